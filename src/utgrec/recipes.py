"""Complete configurations: each function returns everything a run needs.

A recipe is plain data. Change one with `dataclasses.replace`, or copy a function.
"""

import dataclasses
from collections.abc import Callable, Sequence

from utgrec.config import require
from utgrec.errors import BadConfig
from utgrec.evaluation.generative import DecodingConfig, ValidationConfig
from utgrec.recommender.causal import CausalSizes
from utgrec.recommender.train import RecommenderConfig, tiny_recommender
from utgrec.regimes import AdaptConfig, without
from utgrec.tokenizer.latents import LatentsConfig
from utgrec.tokenizer.model import HeadsConfig, LossWeights
from utgrec.tokenizer.pretrained import TokenizerConfig
from utgrec.tokenizer.quantizer import QuantizerConfig
from utgrec.tokenizer.tiny import TinyBackboneConfig
from utgrec.training.trainer import TrainerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that turns domains into an evaluated recommender."""

    name: str
    """Name of the function that made it."""
    tokenizer: TokenizerConfig
    """Items → codes."""
    recommender: RecommenderConfig
    """Histories of codes → codes of the next item."""
    validation: ValidationConfig
    """How the recommender is validated while it trains."""
    decoding: DecodingConfig
    """How items are decoded in the evaluation, and by default afterwards."""
    exclude_seen: bool = True
    """Whether items of a user's own history are never recommended; the same for all systems."""
    adapt: AdaptConfig = dataclasses.field(default_factory=AdaptConfig)
    """How a finished run of this recipe is adapted to a domain that it has not seen."""

    def __post_init__(self) -> None:
        require(
            self.tokenizer.quantizer.code_length >= 2,
            f"code_length must be at least 2, got {self.tokenizer.quantizer.code_length}",
        )


def tiny(seed: int = 0) -> Recipe:
    """Two CPU cores, no download: ten thousand items in about twenty minutes."""
    return Recipe(
        name="tiny",
        tokenizer=TokenizerConfig(
            backbone=TinyBackboneConfig(seed=seed),
            quantizer=QuantizerConfig(warmup_steps=40),
            heads=HeadsConfig(
                projection_width=256,
                dropout=0.0,
                decoder_width=128,
                diffusion_width=128,
                diffusion_depth=2,
                diffusion_draws=2,
                max_text_tokens=64,
            ),
            latents=LatentsConfig(),
            # The paper's weights suit a pre-trained backbone. One that starts at random needs more
            # from its neighbours, and standardised states make the code loss 100 times larger.
            weights=LossWeights(code=0.3, alignment=0.4, partner=0.3),
            # Longer training makes codes rebuild an item's own words better, and forget what is
            # taken beside it (docs/quality.md).
            trainer=TrainerConfig(steps=120, learning_rate=5e-4, warmup_share=0.1, seed=seed),
        ),
        recommender=tiny_recommender(seed),
        validation=ValidationConfig(),
        decoding=DecodingConfig(),
        adapt=AdaptConfig(seed=seed),
    )


def demo(seed: int = 0) -> Recipe:
    """The simulated shops of `utgrec demo`: a few minutes on two CPU cores."""
    base = tiny(seed)
    tokenizer = dataclasses.replace(
        base.tokenizer,
        backbone=TinyBackboneConfig(vocabulary=1024, layers=3, seed=seed),
        quantizer=dataclasses.replace(
            base.tokenizer.quantizer, root_size=64, leaf_size=128, revive_every=25
        ),
        heads=dataclasses.replace(base.tokenizer.heads, max_text_tokens=48),
    )
    recommender = dataclasses.replace(
        base.recommender,
        sizes=CausalSizes(),
        batch_size=512,
        trainer=dataclasses.replace(
            base.recommender.trainer,
            steps=1200,
            learning_rate=3e-3,
            validate_every=300,
            patience=0,
        ),
    )
    return dataclasses.replace(base, name="demo", tokenizer=tokenizer, recommender=recommender)


RECIPES: dict[str, Callable[[int], Recipe]] = {"tiny": tiny, "demo": demo}


def find_recipe(name: str, seed: int = 0, *, leave_out: Sequence[str] = ()) -> Recipe:
    """The recipe of a name, without the parts of the tokenizer that are to be left out.

    Raises:
        BadConfig: there is no such recipe, or no such part.
    """
    if name not in RECIPES:
        raise BadConfig(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return reduced(RECIPES[name](seed), leave_out)


def reduced(recipe: Recipe, leave_out: Sequence[str]) -> Recipe:
    """The same recipe without some parts of the tokenizer (see `utgrec.regimes.without`)."""
    if not leave_out:
        return recipe
    return dataclasses.replace(
        recipe,
        name=f"{recipe.name} without {' and '.join(leave_out)}",
        tokenizer=without(recipe.tokenizer, leave_out),
    )
