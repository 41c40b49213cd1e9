"""What items say is remembered by their codes, and new items join as if they had been there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from utgrec.data.split import Split
from utgrec.data.wording import count_words, word_vectors
from utgrec.errors import BadConfig
from utgrec.recommender.companions import NONE, CatalogCompanions, Companions
from utgrec.recommender.contents import Contents, ContentsConfig, compare_contents
from utgrec.recommender.histories import CodedDomain, HistoryEncoder
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.item_words import PLACES, unpack
from utgrec.recommender.vocabulary import Vocabulary

VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("a", "b"))
CONFIG = ContentsConfig(neighbours=5, most_common=1.0)
ITEMS = 40


def make_domain(name: str, seed: int = 0) -> tuple[CodedDomain, list[str]]:
    rng = np.random.default_rng(seed)
    places = rng.permutation(8 * 16 * 16)[:ITEMS]
    codes = np.stack(np.unravel_index(places, (8, 16, 16)), axis=1).astype(np.int16)
    none = np.zeros(0, dtype=np.int32)
    split = Split(train=none, offsets=np.zeros(1, dtype=np.int64), valid=none, test=none)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 40, 9)) for _ in range(ITEMS)]
    return CodedDomain(name, codes, split), texts


def weigh(memory: Companions, domain: CodedDomain, history: list[int]) -> torch.Tensor:
    catalog = CatalogCompanions(memory, VOCABULARY, domain.name, domain.codes)
    encoder = HistoryEncoder(domain.name, domain.codes, VOCABULARY, max_items=20)
    return catalog.weigh(*encoder.encode([np.array(history)]), 0.5)[0]


def test_an_item_that_nobody_took_is_found_by_its_words() -> None:
    domain, texts = make_domain("a")
    texts[7], texts[30] = "cartridge for printer x1000", "printer x1000 of the year"
    memory = compare_contents([domain], [texts], VOCABULARY, CONFIG)
    assert int(weigh(memory.alike, domain, [7]).argmax()) == 30
    assert int(weigh(memory.alike, domain, [3, 30]).argmax()) == 7


def test_domains_are_compared_apart() -> None:
    (one, one_texts), (two, two_texts) = make_domain("a", 0), make_domain("b", 1)
    both = compare_contents([one, two], [one_texts, two_texts], VOCABULARY, CONFIG)
    for domain, texts in ((one, one_texts), (two, two_texts)):
        alone = compare_contents([domain], [texts], VOCABULARY, CONFIG)
        torch.testing.assert_close(
            weigh(both.alike, domain, [1, 4]), weigh(alone.alike, domain, [1, 4])
        )


def test_comes_back_from_disk(tmp_path: Path) -> None:
    domain, texts = make_domain("a")
    memory = compare_contents([domain], [texts], VOCABULARY, CONFIG)
    memory.save(tmp_path / "contents.safetensors")
    back = Contents.load(tmp_path / "contents.safetensors")
    for one, two in zip((*memory.alike, *memory[1:]), (*back.alike, *back[1:]), strict=True):
        assert torch.equal(one, two)


def test_new_items_get_the_neighbours_that_they_would_have_had() -> None:
    """As long as they bring no new words, which would change how rare all others are."""
    domain, texts = make_domain("a")
    config = ContentsConfig(neighbours=ITEMS, most_common=1.0)
    first = domain._replace(codes=domain.codes[:30])
    before = compare_contents([first], [texts[:30]], VOCABULARY, config)
    asked: list[int] = []

    def text(item: int) -> str:
        asked.append(item)
        return texts[item]

    joined = before.with_items(VOCABULARY, "a", domain.codes, text).alike
    assert asked == list(range(30, ITEMS))
    assert len(joined.keys) == ITEMS
    # Old items keep what they had; new ones are near in both directions, and equally.
    old = weigh(joined, domain, [5])
    torch.testing.assert_close(old[:30], weigh(before.alike, first, [5]))
    for new in (30, 35, 39):
        assert weigh(joined, domain, [5])[new] == pytest.approx(
            float(weigh(joined, domain, [new])[5]), abs=1e-6
        )
    assert old[30:].any()


def test_a_new_item_displaces_the_least_of_its_neighbours() -> None:
    domain, texts = make_domain("a")
    first = domain._replace(codes=domain.codes[:30])
    before = compare_contents([first], [texts[:30]], VOCABULARY, CONFIG)
    texts[30] = texts[4]
    new = domain._replace(codes=domain.codes[:31])
    joined = before.with_items(VOCABULARY, "a", new.codes, lambda item: texts[item]).alike
    weights = weigh(joined, new, [4])
    assert int(weights.argmax()) == 30 and weights[30] == pytest.approx(1.0)
    assert (weights > 0).sum() == 5
    for row, values in zip(joined.rows, joined.similar, strict=True):
        assert (values.diff() <= 0).all()
        kept = row[row != NONE].tolist()
        assert len(set(kept)) == len(kept)


def test_a_catalogue_without_new_items_is_as_it_was() -> None:
    domain, texts = make_domain("a")
    memory = compare_contents([domain], [texts], VOCABULARY, CONFIG)
    moved = domain.codes[::-1].copy()

    def text(item: int) -> str:
        raise AssertionError("no item is new")

    assert memory.with_items(VOCABULARY, "a", moved, text) is memory


def test_telling_words_are_the_rarest_of_each_item() -> None:
    domain, texts = make_domain("a")
    texts[2], texts[5] = "", "w1 w2"
    memory = compare_contents([domain], [texts], VOCABULARY, CONFIG)
    table = memory.telling_words(VOCABULARY, "a", 4)
    assert table.shape == (ITEMS, 5) and table[:, 0].equal(memory.alike.keys)
    counts = count_words(texts)
    vectors = word_vectors(counts, counts, most_common=1.0)
    place = {int(key): row for row, key in enumerate(catalog_keys(VOCABULARY, "a", domain.codes))}
    words, weights = unpack(table[:, 1:])
    for row in range(ITEMS):
        own = vectors[place[int(table[row, 0])]]
        # Of equal ones the first.
        order = np.argsort(-own.data, kind="stable")[:4]
        expected = own.data[order] / max(np.linalg.norm(own.data[order]), 1e-9)
        assert words[row, : len(order)].tolist() == [w % PLACES for w in own.indices[order]]
        np.testing.assert_allclose(weights[row, : len(order)], expected, atol=1e-4)
        assert not weights[row, len(order) :].any()


def test_items_without_words_have_no_neighbours() -> None:
    domain, _ = make_domain("a")
    memory = compare_contents([domain], [[""] * ITEMS], VOCABULARY, CONFIG)
    assert not weigh(memory.alike, domain, [1, 2]).any()
    nothing = compare_contents([domain], [[""] * ITEMS], VOCABULARY, ContentsConfig(neighbours=0))
    assert CatalogCompanions(nothing.alike, VOCABULARY, "a", domain.codes).known == 0


@pytest.mark.parametrize("values", [{"neighbours": -1}, {"most_common": 0.0}, {"most_common": 1.5}])
def test_bad_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(BadConfig):
        ContentsConfig(**values)
