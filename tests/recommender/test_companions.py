"""What is remembered of who took what: ItemKNN where order says nothing, found again by codes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from utgrec.data.split import Split
from utgrec.errors import BadConfig
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig
from utgrec.evaluation.protocol import Query
from utgrec.recommender.companions import (
    NONE,
    CatalogCompanions,
    Companions,
    CompanionsConfig,
    count_companions,
)
from utgrec.recommender.histories import CodedDomain, HistoryEncoder
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.mixing import Mixing
from utgrec.recommender.vocabulary import Vocabulary

VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("a", "b"))
CONFIG = CompanionsConfig(neighbours=6, shrink=2.0)
WITHOUT_ORDER = dataclasses.replace(CONFIG, distance=0.0, backward=1.0, window=1000)


def make_domain(name: str, items: int, seed: int, known: int | None = None) -> CodedDomain:
    """Random histories of the first `known` items, all of which occur."""
    rng = np.random.default_rng(seed)
    known = items if known is None else known
    places = rng.permutation(8 * 16 * 16)[:items]
    codes = np.stack(np.unravel_index(places, (8, 16, 16)), axis=1).astype(np.int16)
    train = np.concatenate([np.arange(known), rng.integers(0, known, 7 * known)])
    train = rng.permutation(train).astype(np.int32)
    offsets = np.arange(0, len(train) + 1, 4)
    held = np.full(len(offsets) - 1, -1, dtype=np.int32)
    return CodedDomain(name, codes, Split(train=train, offsets=offsets, valid=held, test=held))


def weigh(companions: CatalogCompanions, domain: CodedDomain, history: list[int], decay: float):
    encoder = HistoryEncoder(domain.name, domain.codes, VOCABULARY, max_items=20)
    tokens, mask = encoder.encode([np.array(history, dtype=np.int64)])
    return companions.weigh(tokens, mask, decay)[0]


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_weighs_as_itemknn_does(decay: float) -> None:
    domain = make_domain("a", 40, seed=0)
    memory = count_companions([domain], VOCABULARY, WITHOUT_ORDER)
    companions = CatalogCompanions(memory, VOCABULARY, "a", domain.codes)
    settings = ItemKNNConfig(neighbours=6, shrink=2.0, decay=decay)
    itemknn = ItemKNN.fit(domain.split, 40, settings)
    for history in ([3], [1, 5, 9], [2, 2, 7]):
        ours = weigh(companions, domain, history, decay)
        query = Query(users=np.array([0]), histories=[np.array(history)])
        expected = itemknn.recommend(query, 40, exclude_seen=False)
        scores = torch.zeros(40)
        found = expected.items[0] >= 0
        scores[torch.from_numpy(expected.items[0][found])] = torch.from_numpy(
            expected.scores[0][found]
        )
        torch.testing.assert_close(ours, scores, atol=1e-5, rtol=1e-5)


def test_what_comes_soon_after_is_named_first() -> None:
    codes = make_domain("a", 40, seed=0).codes
    train = np.array([0, 1, 2, 0, 1, 2, 3, 4, 5], dtype=np.int32)
    offsets, held = np.arange(0, 10, 3), np.full(3, -1, dtype=np.int32)
    domain = CodedDomain("a", codes, Split(train=train, offsets=offsets, valid=held, test=held))
    memory = count_companions([domain], VOCABULARY, CONFIG)
    companions = CatalogCompanions(memory, VOCABULARY, "a", codes)
    of_each = [weigh(companions, domain, [item], 1.0) for item in range(3)]
    assert of_each[0][1] > of_each[0][2] > 0  # the nearer one
    assert of_each[1][2] > of_each[1][0] > 0  # the one that came after


def test_domains_are_counted_apart() -> None:
    domains = [make_domain("a", 40, seed=0), make_domain("b", 30, seed=1)]
    both = count_companions(domains, VOCABULARY, CONFIG)
    for domain in domains:
        alone = count_companions([domain], VOCABULARY, CONFIG)
        weights = [
            weigh(
                CatalogCompanions(memory, VOCABULARY, domain.name, domain.codes),
                domain,
                [4, 8],
                0.8,
            )
            for memory in (both, alone)
        ]
        torch.testing.assert_close(*weights)
        assert weights[0].any()


def test_a_catalogue_in_another_order_and_with_new_items_is_known_by_its_codes() -> None:
    domain = make_domain("a", 40, seed=0, known=30)
    memory = count_companions([domain], VOCABULARY, CONFIG)
    before = CatalogCompanions(memory, VOCABULARY, "a", domain.codes)
    order = np.random.default_rng(5).permutation(40)
    moved = domain._replace(codes=domain.codes[order])
    after = CatalogCompanions(memory, VOCABULARY, "a", moved.codes)
    assert before.known == after.known == 30
    there = np.argsort(order)
    history = [2, 11, 35]
    weights = weigh(before, domain, history, 0.7)
    assert not weights[30:].any()
    found = weigh(after, moved, [int(there[item]) for item in history], 0.7)
    torch.testing.assert_close(found, weights[torch.from_numpy(order)])


def test_a_memory_without_some_items_is_that_of_somebody_who_never_heard_of_them() -> None:
    shops = [make_domain("a", 40, seed=0), make_domain("b", 30, seed=1)]
    memory = count_companions(shops, VOCABULARY, CONFIG)
    lost = np.arange(0, 40, 3)
    less = memory.without(catalog_keys(VOCABULARY, "a", shops[0].codes[lost]))
    assert len(less.keys) == 70 - len(lost)
    assert ((less.rows == NONE) == (less.similar == 0)).all()
    before, after = (
        CatalogCompanions(one, VOCABULARY, "a", shops[0].codes) for one in (memory, less)
    )
    assert after.known == 40 - len(lost)
    weights = weigh(before, shops[0], [1, 4], 0.7)  # of items that stay
    assert weights[lost].any()
    weights[lost] = 0.0
    assert weights.any()
    torch.testing.assert_close(weigh(after, shops[0], [1, 4], 0.7), weights)
    assert not weigh(after, shops[0], [3, 9], 0.7).any()  # of items that are lost
    other = [CatalogCompanions(one, VOCABULARY, "b", shops[1].codes) for one in (memory, less)]
    assert torch.equal(*(weigh(one, shops[1], [0, 3, 8], 0.7) for one in other))
    for one, two in zip(memory, memory.without(memory.keys[:0]), strict=True):
        assert torch.equal(one, two)
    assert len(memory.without(memory.keys).keys) == 0


def test_comes_back_from_disk(tmp_path: Path) -> None:
    memory = count_companions([make_domain("a", 40, seed=0)], VOCABULARY, CONFIG)
    memory.save(tmp_path / "memory.safetensors")
    for one, two in zip(memory, Companions.load(tmp_path / "memory.safetensors"), strict=True):
        assert torch.equal(one, two)


def test_nothing_is_remembered_without_neighbours() -> None:
    domain = make_domain("a", 40, seed=0)
    memory = count_companions([domain], VOCABULARY, CompanionsConfig(neighbours=0))
    companions = CatalogCompanions(memory, VOCABULARY, "a", domain.codes)
    assert companions.known == 0 and not weigh(companions, domain, [1, 2], 1.0).any()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (CompanionsConfig, {"neighbours": -1}),
        (CompanionsConfig, {"shrink": -1.0}),
        (CompanionsConfig, {"distance": -0.1}),
        (CompanionsConfig, {"backward": 1.1}),
        (CompanionsConfig, {"window": 0}),
        (Mixing, {"vectors": -1.0}),
        (Mixing, {"companions": 1.0}),
        (Mixing, {"companions": 0.5, "contents": 0.5}),
        (Mixing, {"contents": -0.1}),
        (Mixing, {"decay": 0.0}),
    ],
)
def test_bad_settings_are_refused(kind: type, values: dict[str, float]) -> None:
    with pytest.raises(BadConfig):
        kind(**values)
