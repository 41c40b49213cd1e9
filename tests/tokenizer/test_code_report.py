"""The code report, by hand and at its extremes."""

import numpy as np
import pytest

from utgrec.data.neighbours import Neighbours
from utgrec.tokenizer.assignment import Assignment
from utgrec.tokenizer.report import report_codes


def graph(pairs, count):
    """Neighbours from pairs with counts."""
    rows = [[] for _ in range(count)]
    for first, second, times in pairs:
        rows[first].append((second, times))
        rows[second].append((first, times))
    flat = [entry for row in rows for entry in sorted(row)]
    return Neighbours(
        offsets=np.cumsum([0, *map(len, rows)]),
        items=np.array([item for item, _ in flat], dtype=np.int32),
        counts=np.array([times for _, times in flat], dtype=np.int32),
    )


def assignment(codes, nearest=None):
    """An assignment of these codes."""
    codes = np.array(codes, dtype=np.int16)
    nearest = codes if nearest is None else np.array(nearest, dtype=np.int16)
    return Assignment(
        codes=codes,
        nearest=nearest,
        conflict=(codes != nearest).any(axis=1),
        distance=np.zeros(len(codes), np.float32),
    )


def test_six_items_by_hand():
    nearest = [[0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    codes = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 1], [1, 1, 0], [1, 2, 1]]
    pairs = [(0, 1, 3), (0, 2, 1), (2, 3, 4), (3, 4, 2)]
    report = report_codes(assignment(codes, nearest), graph(pairs, 6), (4, 3, 3))
    assert report.items == 6
    assert report.conflict_rate == pytest.approx(5 / 6)
    assert report.moved_rate == pytest.approx(3 / 6)
    root, second, third = report.levels
    assert (root.size, root.used, root.dead) == (4, 0.5, 2)
    assert root.perplexity == pytest.approx(2)
    assert root.gini == pytest.approx(0.5)  # half the entries have all the items, evenly
    assert (second.used, second.dead) == (pytest.approx(2 / 3), 1)
    shares = np.array([2 / 6, 4 / 6])
    assert second.perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    # Mean absolute difference over all pairs of entries, over twice the mean.
    usage = np.array([2, 4, 0]) / 6
    by_pairs = np.abs(usage[:, None] - usage).mean() / (2 * usage.mean())
    assert second.gini == pytest.approx(by_pairs)
    assert third.dead == 1
    assert report.root_used == 0.5
    assert report.leaf_used == pytest.approx(2 / 3)
    # Co-taken ten times in all: roots agree in 3 + 1 + 2, the first two codes in 3 + 2.
    assert report.neighbour_agreement == pytest.approx((0.6, 0.5))
    # Ends of pairs by root: root 0 has 3 + 1 + 3 + 1 + 4 = 12 of 20, root 1 has 8.
    assert report.chance_agreement[0] == pytest.approx(0.6**2 + 0.4**2)
    # By the first two codes: (0,0) 3+1+3 = 7, (0,1) 1+4 = 5, (1,1) 4+2+2 = 8.
    assert report.chance_agreement[1] == pytest.approx((49 + 25 + 64) / 400)
    assert report.agreement_lift == pytest.approx(0.6 / 0.52)


def test_even_and_uneven_use():
    everything = [[a, b] for a in range(4) for b in range(8)]
    even = report_codes(assignment(everything), graph([], 32), (4, 8))
    assert [level.perplexity for level in even.levels] == pytest.approx([4, 8])
    assert [level.gini for level in even.levels] == pytest.approx([0, 0], abs=1e-12)
    assert [level.dead for level in even.levels] == [0, 0]
    assert even.conflict_rate == even.moved_rate == 0
    one = report_codes(assignment(everything, nearest=[[1, 3]] * 32), graph([], 32), (4, 8))
    assert [level.perplexity for level in one.levels] == pytest.approx([1, 1])
    assert [level.gini for level in one.levels] == pytest.approx([3 / 4, 7 / 8])
    assert one.conflict_rate == 1
    assert one.moved_rate == pytest.approx(31 / 32)
    assert one.leaf_used == 1 / 8


def test_random_codes_agree_as_often_as_by_chance():
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.stack(np.unravel_index(np.arange(2000), (10, 10, 20)), axis=1))
    pairs = {tuple(sorted(pair)) for pair in rng.integers(0, 2000, (20_000, 2)).tolist()}
    edges = [(a, b, int(rng.integers(1, 4))) for a, b in pairs if a != b]
    report = report_codes(assignment(codes), graph(edges, 2000), (10, 10, 20))
    for found, chance in zip(report.neighbour_agreement, report.chance_agreement, strict=True):
        assert found == pytest.approx(chance, rel=0.15)
    assert report.agreement_lift == pytest.approx(1, abs=0.1)


def test_codes_that_follow_the_pairs_agree_far_more_often():
    codes = [[item // 2 % 8, item // 16, item % 2] for item in range(64)]
    edges = [(item, item + 1, 1) for item in range(0, 64, 2)]
    report = report_codes(assignment(codes), graph(edges, 64), (8, 4, 2))
    assert report.neighbour_agreement == (1.0, 1.0)
    assert report.agreement_lift == pytest.approx(8)


def test_nobody_took_two_items():
    report = report_codes(assignment([[0, 0], [1, 1]]), graph([], 2), (2, 2))
    assert report.neighbour_agreement == report.chance_agreement == (0.0,)
    assert report.agreement_lift == 0
