"""Texts as vectors of words: known answers, and the same for one text and for many."""

import numpy as np
import pytest

from utgrec.data.similarities import NO_ITEM, nearest
from utgrec.data.wording import BUCKETS, MOST_COUNTED, count_words, word_vectors


def vectors_of(texts: list[str], most_common: float = 1.0):
    counts = count_words(texts)
    return word_vectors(counts, counts, most_common=most_common)


def test_counts_words_without_case() -> None:
    counts = count_words(["Red red BRUSH", "", "brush, red-brush!"])
    assert counts.shape == (3, BUCKETS) and counts.dtype == np.uint8
    red, brush = (count_words([word]).indices[0] for word in ("red", "Brush"))
    dense = counts[:, [red, brush]].toarray()
    assert dense.tolist() == [[2, 1], [0, 0], [1, 2]]
    assert counts.nnz == 4


@pytest.mark.parametrize("text", ["自動開関", "カーテン", "กระดาษ"])
def test_scripts_without_spaces_are_counted_by_pairs(text: str) -> None:
    assert count_words([text]).sum() == len(text) - 1
    longer = count_words([text, "新" + text + "品"])
    assert longer[0].multiply(longer[1]).sum() == len(text) - 1


def test_many_texts_are_counted_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 9, size)) for size in range(25)]
    texts[3] = "カーテン W1 w1"
    whole = count_words(texts)
    monkeypatch.setattr("utgrec.data.wording._TOGETHER", 4)
    parts = count_words(texts)
    assert np.array_equal(whole.toarray(), parts.toarray()) and parts.has_sorted_indices
    for row, text in enumerate(texts):
        assert (count_words([text]) != whole[row]).nnz == 0
    assert count_words([]).shape == (0, BUCKETS)


def test_many_times_are_counted_up_to_a_bound() -> None:
    assert count_words(["again " * 1000]).data.tolist() == [MOST_COUNTED]


def test_vectors_by_hand() -> None:
    """Three items; "blue" in two, "pen" in two, and each other word in one alone."""
    vectors = vectors_of(["blue blue pen", "blue ink", "pen case"]).toarray()
    blue, pen = (count_words([word]).indices[0] for word in ("blue", "pen"))
    rarity = np.log(3 / 2)
    first = np.array([(1 + np.log(2)) * rarity, rarity])
    np.testing.assert_allclose(vectors[0, [blue, pen]], first / np.linalg.norm(first))
    np.testing.assert_allclose(vectors[1:, [blue, pen]], [[1, 0], [0, 1]])
    assert np.count_nonzero(vectors) == 4


def test_common_words_are_left_out() -> None:
    texts = [f"the item{number // 2}" for number in range(40)]
    the = count_words(["the"]).indices[0]
    assert vectors_of(texts, 1.0)[:, [the]].nnz == 0  # it says nothing: log(N / N)
    texts[0] = "item0"
    assert vectors_of(texts, 1.0)[:, [the]].nnz == 39
    assert vectors_of(texts, 0.5)[:, [the]].nnz == 0


def test_nearest_is_the_largest_product() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 30, 6)) for _ in range(50)]
    vectors = vectors_of(texts)
    products = (vectors @ vectors.T).toarray().astype(np.float32)
    np.fill_diagonal(products, 0)
    found = nearest(vectors, vectors, neighbours=8, first=0)
    for row in range(50):
        order = np.argsort(-products[row], kind="stable")[:8]
        expected = [item if products[row, item] > 0 else NO_ITEM for item in order]
        assert found.items[row].tolist() == expected
        np.testing.assert_allclose(found.values[row], products[row, order], rtol=1e-6)
    part = nearest(vectors[20:30], vectors, neighbours=8, first=20)
    assert np.array_equal(part.items, found.items[20:30])
    with_itself = nearest(vectors[20:30], vectors, neighbours=1)
    assert with_itself.items[:, 0].tolist() == list(range(20, 30))
