"""What one simulated shop teaches helps another: figures that only transfer can explain.

In these shops people follow colours, themes and purposes, which all shops share, and not product
types, which no two shops share; the few products that many take are not so many either.
"""

import dataclasses
from pathlib import Path

import pytest

from test_marketplace_quality import small_recipe
from utgrec.adaptation import adapt_run
from utgrec.data.marketplace import BehaviourConfig, MarketplaceConfig, write_marketplace
from utgrec.recipes import Recipe
from utgrec.recommender.train import codes_alone
from utgrec.regimes import AdaptConfig
from utgrec.runs import run_recipe

MARKET = MarketplaceConfig(
    items_per_shop=600,
    users_per_shop=1500,
    picture_size=56,
    behaviour=BehaviourConfig(
        complement_strength=0.0,
        same_type_penalty=0.0,
        popularity_exponent=0.3,
        colour_continuation=2.0,
        theme_continuation=2.0,
        purpose_continuation=1.0,
        set_continuation=1.0,
    ),
)


def long_recipe() -> Recipe:
    """The small recipe of the quality tests, trained longer: two minutes on one core."""
    base, change = small_recipe(), dataclasses.replace
    tokenizer, recommender = base.tokenizer, base.recommender
    return change(
        base,
        tokenizer=change(
            tokenizer,
            quantizer=change(tokenizer.quantizer, warmup_steps=100, revive_every=20),
            trainer=change(tokenizer.trainer, steps=500, learning_rate=1e-3),
        ),
        recommender=change(
            recommender, trainer=change(recommender.trainer, steps=1200, validate_every=400)
        ),
        adapt=AdaptConfig(
            tokenizer_steps=100,
            tokenizer_learning_rate=3e-4,
            recommender_steps=200,
            recommender_learning_rate=2e-3,
        ),
    )


def bring(recipe: Recipe, folder: Path) -> dict[str, float]:
    """NDCG@10 in clothing after each regime from a base of the kitchen, and that of popularity."""
    kitchen, clothing = write_marketplace(folder / "market", MARKET)
    run_recipe(recipe, [kitchen], folder / "base")
    ndcg = {}
    for regime in ("zero-shot", "full", "from-scratch"):
        config = dataclasses.replace(recipe.adapt, regime=regime)
        done = adapt_run(folder / "base", clothing, folder / regime, config)
        systems = done["evaluation/clothing"].facts["systems"]
        ndcg |= {
            regime: systems["UTGRec"]["ndcg@10"],
            "popularity": systems["Popularity"]["ndcg@10"],
        }
    print(ndcg)  # `-s` shows it: docs/transfer.md has the figures
    return ndcg


@pytest.mark.slow
def test_what_one_shop_teaches_helps_another(tmp_path):
    """Codes alone, with as many steps; five minutes on one core.

    Measured once: full .222, from-scratch .151, zero-shot .030, popularity .017.
    """
    recipe = long_recipe()
    alone = dataclasses.replace(recipe, recommender=codes_alone(recipe.recommender))
    ndcg = bring(alone, tmp_path)
    assert ndcg["full"] > 1.2 * ndcg["from-scratch"], ndcg
    assert ndcg["full"] > 1.5 * ndcg["zero-shot"], ndcg
    assert ndcg["zero-shot"] > 1.3 * ndcg["popularity"], ndcg


@pytest.mark.slow
def test_words_and_memories_help_at_once_and_are_not_lost(tmp_path):
    """The whole recommender, which learns the new shop by itself as fast.

    Measured once: full .374, from-scratch .380, zero-shot .371, popularity .017.
    """
    ndcg = bring(long_recipe(), tmp_path)
    assert ndcg["zero-shot"] > 5 * ndcg["popularity"], ndcg
    assert ndcg["zero-shot"] > 0.9 * ndcg["from-scratch"], ndcg
    assert ndcg["full"] > 0.95 * ndcg["from-scratch"], ndcg
