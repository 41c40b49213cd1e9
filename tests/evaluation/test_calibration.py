"""The mixture is what guesses validation items best, and nothing of the test part moves it."""

import dataclasses

import numpy as np
import pytest
import torch

from utgrec.data.split import Split
from utgrec.evaluation.calibration import make_calibrator
from utgrec.evaluation.generative import DecodingConfig, GenerativeSystem, ValidationConfig
from utgrec.evaluation.protocol import evaluate
from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.companions import Companions, CompanionsConfig, count_companions
from utgrec.recommender.contents import Contents, ContentsConfig, compare_contents
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.item_vectors import item_keys, token_bits
from utgrec.recommender.mixing import CODES_ALONE, Mixing
from utgrec.recommender.train import Memory
from utgrec.recommender.vocabulary import Vocabulary

ITEMS, USERS = 60, 80
VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("shop",))
DECODING = DecodingConfig(beam=20, precision="fp32")


def make_domain(seed: int = 0) -> CodedDomain:
    """People stay in one of ten groups of six items, so counts say what comes next."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(8 * 16 * 16)[:ITEMS]
    codes = np.stack(np.unravel_index(places, (8, 16, 16)), axis=1).astype(np.int16)
    groups = rng.integers(0, 10, USERS)
    taken = np.stack([group * 6 + rng.permutation(6) for group in groups])  # (U, 6)
    return CodedDomain(
        "shop",
        codes,
        Split(
            offsets=np.arange(0, 4 * USERS + 1, 4),
            train=taken[:, :4].ravel().astype(np.int32),
            valid=taken[:, 4].astype(np.int32),
            test=taken[:, 5].astype(np.int32),
        ),
    )


def make_model(domain: CodedDomain) -> CausalRecommender:
    torch.manual_seed(0)
    tokens = VOCABULARY.to_tokens(torch.from_numpy(domain.codes.astype(np.int64)))
    shop = torch.full((ITEMS,), VOCABULARY.domain_token("shop"))
    known = item_keys(shop, tokens, token_bits(VOCABULARY))
    sizes = CausalSizes(width=16, feed_forward=16, heads=2)
    return CausalRecommender(sizes, VOCABULARY, known=known).eval()


def calibrate(domain: CodedDomain, model, companions: Companions, **before: Mixing) -> Mixing:
    calibrator = make_calibrator(ValidationConfig(), DECODING, max_items=20, exclude_seen=True)
    memory = Memory(companions, Contents.nothing(), before)
    return calibrator(model, VOCABULARY, [domain], memory)["shop"]


def gain(domain: CodedDomain, model, companions: Companions, mixing: Mixing) -> float:
    system = GenerativeSystem(
        model,
        VOCABULARY,
        "shop",
        domain.codes,
        max_items=20,
        decoding=dataclasses.replace(DECODING, mixing=mixing),
        memory=Memory(companions, Contents.nothing(), {}),
    )
    result = evaluate(
        system, domain.split, part="valid", item_count=ITEMS, ks=(10,), exclude_seen=True
    )
    return result.mean("ndcg@10")


@pytest.fixture(scope="module")
def shop():
    domain = make_domain()
    return domain, make_model(domain), count_companions([domain], VOCABULARY, CompanionsConfig())


def test_counts_are_heard_where_they_know_and_the_network_does_not(shop) -> None:
    domain, model, companions = shop
    found = calibrate(domain, model, companions)
    alone = dataclasses.replace(found, companions=0.0)
    assert found.companions > 0
    found_gain, alone_gain = (gain(domain, model, companions, one) for one in (found, alone))
    assert found_gain > 0.6 > 0.2 > alone_gain


def test_no_mixture_of_the_grid_is_better_by_the_protocol(shop) -> None:
    domain, model, companions = shop
    found = gain(domain, model, companions, calibrate(domain, model, companions))
    for mixing in (
        Mixing(),
        Mixing(vectors=0.3, companions=0.0, contents=0.0),
        Mixing(vectors=10.0, companions=0.7, contents=0.0, decay=0.4),
        Mixing(vectors=1.0, companions=0.5, contents=0.0, decay=1.0),
    ):
        assert found >= gain(domain, model, companions, mixing) - 1e-6


def test_test_items_have_no_part_in_it(shop) -> None:
    domain, model, companions = shop
    moved = np.roll(domain.split.test, 1)
    other = domain._replace(split=domain.split._replace(test=moved))
    assert calibrate(other, model, companions) == calibrate(domain, model, companions)


def test_validation_items_have(shop) -> None:
    domain, model, companions = shop
    rng = np.random.default_rng(3)
    moved = rng.permutation(domain.split.valid)
    other = domain._replace(split=domain.split._replace(valid=moved))
    assert calibrate(other, model, companions) != calibrate(domain, model, companions)


def test_without_anything_to_mix_codes_speak_alone(shop) -> None:
    domain, _, _ = shop
    torch.manual_seed(0)
    sizes = CausalSizes(width=16, feed_forward=16, heads=2, item_vectors=False)
    model = CausalRecommender(sizes, VOCABULARY).eval()
    assert calibrate(domain, model, Companions.nothing()) == CODES_ALONE


def test_without_validation_items_the_mixture_stays(shop) -> None:
    domain, model, companions = shop
    nobody = np.full(USERS, -1, dtype=np.int32)
    other = domain._replace(split=domain.split._replace(valid=nobody, test=nobody))
    assert calibrate(other, model, companions) == Mixing()
    of_a_base = Mixing(vectors=5.0, companions=0.1, contents=0.2)
    assert calibrate(other, model, companions, shop=of_a_base) == of_a_base
    assert calibrate(domain, model, companions, shop=of_a_base) != of_a_base


def test_contents_are_heard_where_they_know() -> None:
    """Groups of items say the same, and nothing was counted."""
    domain = make_domain()
    texts = [f"word{item // 6} item{item}" for item in range(ITEMS)]
    contents = compare_contents([domain], [texts], VOCABULARY, ContentsConfig())
    memory = Memory(Companions.nothing(), contents, {})
    calibrator = make_calibrator(ValidationConfig(), DECODING, max_items=20, exclude_seen=True)
    found = calibrator(make_model(domain), VOCABULARY, [domain], memory)["shop"]
    assert found.companions == 0 and found.contents > 0
