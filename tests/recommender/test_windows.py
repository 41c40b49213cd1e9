"""Windows of training histories: every target once per round, nothing held out, no mixing."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utgrec.data.split import Split
from utgrec.errors import EmptyDomain
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.recommender.windows import WindowBatches

VOCABULARY = Vocabulary(root_size=8, leaf_size=8, code_length=3, domains=("a", "b"))
CODES = np.stack(np.unravel_index(np.arange(512), (8, 8, 8)), axis=1).astype(np.int16)


def make_domain(name: str, lengths: list[int]) -> CodedDomain:
    """Every training position has an item of its own; items 510 and 511 are held out."""
    users = len(lengths)
    split = Split(
        offsets=np.cumsum([0, *lengths]).astype(np.int64),
        train=np.arange(sum(lengths), dtype=np.int32),
        valid=np.full(users, 510, np.int32),
        test=np.full(users, 511, np.int32),
    )
    return CodedDomain(name, CODES, split)


def make(found: list[CodedDomain], **changes) -> WindowBatches:
    values = {"max_items": 4, "batch_size": 12, "temperature": 1.0, "seed": 0}
    return WindowBatches(found, VOCABULARY, **{**values, **changes})


def read(batch) -> list[tuple[int, list[int], list[int]]]:
    """Windows back as (domain token, item of each place that is used, target items)."""
    out = []
    codes = VOCABULARY.to_codes(batch.items.clamp(min=2))
    items = (codes * torch.tensor([64, 8, 1])).sum(dim=-1)
    for domain, row, targets in zip(batch.domains, items, batch.targets, strict=True):
        used = int(targets.nonzero().max()) + 1
        out.append((int(domain), row[:used].tolist(), row[targets].tolist()))
    return out


def epoch_of(batches: WindowBatches, epoch: int) -> list[tuple[int, list[int], list[int]]]:
    first = epoch * batches.per_epoch
    return [w for n in range(first, first + batches.per_epoch) for w in read(batches(n))]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=12), st.integers(0, 5))
def test_windows_are_runs_of_one_history(lengths: list[int], seed: int) -> None:
    domain = make_domain("a", lengths)
    if max(lengths) < 2:
        with pytest.raises(EmptyDomain):
            make([domain], seed=seed)
        return
    batches = make([domain], seed=seed)
    offsets = domain.split.offsets
    for _, items, targets in epoch_of(batches, 0):
        assert items == list(range(items[0], items[0] + len(items)))
        owner = int(np.searchsorted(offsets, items[0], side="right")) - 1
        assert items[-1] < offsets[owner + 1]  # item number = position: all of one user
        begins = items[0] == offsets[owner]
        assert targets == (items if begins else items[1:])
        assert 2 <= len(items) <= 5  # max_items targets and what they begin from


def test_short_histories_are_whole_and_come_once_per_epoch() -> None:
    domain = make_domain("a", [2, 3, 5, 4, 2, 0, 1])
    batches = make([domain])
    for epoch in range(3):
        seen = Counter(tuple(items) for _, items, _ in epoch_of(batches, epoch))
        assert seen == Counter([(0, 1), (2, 3, 4), (5, 6, 7, 8, 9), (10, 11, 12, 13), (14, 15)])


def test_the_newest_window_is_whole_and_older_ones_shift() -> None:
    batches = make([make_domain("a", [30])], batch_size=1000)
    ends = [sorted(items[-1] for _, items, _ in epoch_of(batches, epoch)) for epoch in range(20)]
    assert {row[-1] for row in ends} == {29}
    assert len({row[-3] for row in ends}) > 2
    targets = Counter(
        t for epoch in range(20) for _, _, part in epoch_of(batches, epoch) for t in part
    )
    assert set(targets) == set(range(30))  # every item of the history is learned, the first too


def test_batches_hold_about_as_many_targets_as_asked() -> None:
    lengths = np.random.default_rng(0).integers(2, 9, 60).tolist()
    batches = make([make_domain("a", lengths)], batch_size=24)
    counts = [int(batches(n).targets[:, 1:].sum()) for n in range(batches.per_epoch)]
    assert 22 < np.mean(counts) < 29  # windows of long histories overlap
    assert max(counts) <= 24 + 2 * 4


def test_a_batch_is_a_function_of_seed_and_number() -> None:
    domains = [make_domain("a", [5, 9, 3]), make_domain("b", [4, 4, 12])]
    one, two, other = make(domains), make(domains), make(domains, seed=1)
    numbers = [7, 0, 3, 7]
    for number in numbers:
        for left, right in zip(one(number), two(number), strict=True):
            assert torch.equal(left, right)
    first = [str(other(n)) for n in range(8)]
    assert first != [str(one(n)) for n in range(8)]


def test_temperature_shares_an_epoch_among_domains() -> None:
    large, small = make_domain("a", [5] * 40), make_domain("b", [5] * 10)
    shares = {}
    for temperature in (1.0, 0.0):
        batches = make([large, small], temperature=temperature, batch_size=16)
        windows = [w for epoch in range(4) for w in epoch_of(batches, epoch)]
        of_b = sum(token == VOCABULARY.domain_token("b") for token, _, _ in windows)
        shares[temperature] = of_b / len(windows)
    assert abs(shares[1.0] - 0.2) < 0.03
    assert abs(shares[0.0] - 0.5) < 0.03


def test_windows_larger_than_a_batch_still_fill_every_step() -> None:
    batches = make([make_domain("a", [20, 20])], batch_size=1)
    for number in range(3 * batches.per_epoch):
        assert bool(batches(number).targets.any())
