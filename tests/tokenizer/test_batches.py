"""Training batches: who is in them, with whom, and that the number alone decides."""

from collections import Counter

import numpy as np
import pytest
import torch
from small_items import TEXTS

from utgrec.data.neighbours import Neighbours, find_neighbours
from utgrec.data.split import Split
from utgrec.errors import BadConfig
from utgrec.tokenizer.batches import PairBatches, PartnersConfig
from utgrec.tokenizer.items import build_prompts, prompt_lengths

# Items 0-2 form a triangle, 3-4 a pair, 5 was taken alone; 6 and 7 by nobody.
HISTORIES = [[0, 1, 2, 0], [3, 4], [4, 3], [5], [1, 2, 1]]
TRAINED = np.arange(6)


def neighbours():
    """The graph of the histories."""
    split = Split(
        offsets=np.cumsum([0, *map(len, HISTORIES)]),
        train=np.array([item for history in HISTORIES for item in history], np.int32),
        valid=np.full(5, -1, np.int32),
        test=np.full(5, -1, np.int32),
    )
    return find_neighbours(split, len(TEXTS))


def make(items, backbone, batch_size=4, seed=0, **partners):
    """Batches over the odd items."""
    return PairBatches(
        items,
        neighbours(),
        TRAINED,
        backbone,
        code_length=3,
        batch_size=batch_size,
        seed=seed,
        partners=PartnersConfig(**partners),
    )


def same(first, second):
    """Whether two batches are equal in everything."""
    flat = [*first._replace(prompts=None), *(part for each in first.prompts for part in each)]
    other = [*second._replace(prompts=None), *(part for each in second.prompts for part in each)]
    return len(flat) == len(other) and all(
        a is b is None or np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(flat, other, strict=True)
    )


@pytest.fixture
def asked(monkeypatch):
    """Anchors of every batch and the partners that were drawn for them."""
    calls = []
    draw = Neighbours.draw

    def watch(self, items, rng):
        partners = draw(self, items, rng)
        calls.append((items, partners))
        return partners

    monkeypatch.setattr(Neighbours, "draw", watch)
    return calls


@pytest.mark.parametrize("batch_size", [2, 4, 5, 100])
def test_every_trained_item_is_an_anchor_once_per_epoch(items, backbone, asked, batch_size):
    batches = make(items, backbone, batch_size)
    for epoch in range(3):
        asked.clear()
        for place in range(batches.per_epoch):
            batches(epoch * batches.per_epoch + place)
        assert sorted(np.concatenate([anchors for anchors, _ in asked])) == list(TRAINED)
        assert len(asked) == batches.per_epoch
        assert max(len(anchors) for anchors, _ in asked) <= max(1, batch_size // 2)


def test_a_batch_is_a_function_of_its_number(items, backbone):
    numbers = [0, 1, 2, 3, 4, 5, 6, 7]
    batches = make(items, backbone)
    first = {number: batches(number) for number in numbers}
    for number in [7, 0, 3, 3, 6, 1]:  # any order, also from a new object
        assert same(first[number], batches(number))
        assert same(first[number], make(items, backbone)(number))
    other = make(items, backbone, seed=1)
    assert not all(same(first[number], other(number)) for number in numbers)


def test_partners_are_real_neighbours_and_only_trained_items_are_drawn(items, backbone, asked):
    batches, graph = make(items, backbone), neighbours()
    drawn = Counter()
    for number in range(40 * batches.per_epoch):
        batch = batches(number)
        assert len(set(batch.rows)) == len(batch.rows) == 4
        assert set(batch.rows) <= set(TRAINED)
        anchors, partners = asked[-1]
        assert set(batch.rows) >= {*anchors, *partners}
        for row, partner in zip(batch.rows, batch.partner.tolist(), strict=True):
            if row == 5 or row not in {*anchors, *partners}:
                assert partner == -1  # nobody's neighbour, or there to fill the batch
            else:
                assert batch.rows[partner] in graph.of(row)
                drawn[int(row), int(batch.rows[partner])] += 1
    assert set(drawn) == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (3, 4), (4, 3)}
    # 1 and 2 follow one another three times, 1 and 0 once.
    pairs = [(a, p) for anchors, partners in asked for a, p in zip(anchors, partners, strict=True)]
    counts = Counter(partner for anchor, partner in pairs if anchor == 1)
    assert 0.6 < counts[2] / (counts[0] + counts[2]) < 0.9


def test_partners_may_be_drawn_alike_however_often_they_were_taken(items, backbone, asked):
    batches = make(items, backbone, by_count=False)
    for number in range(400 * batches.per_epoch):  # so that one half is far from three quarters
        batches.draw(number)
    pairs = [(a, p) for anchors, partners in asked for a, p in zip(anchors, partners, strict=True)]
    counts = Counter(partner for anchor, partner in pairs if anchor == 1)
    assert 0.4 < counts[2] / (counts[0] + counts[2]) < 0.6


def test_a_partner_may_be_without_a_positive_of_its_own(items, backbone, asked):
    mutual, one_way = (make(items, backbone, mutual=both) for both in (True, False))
    for number in range(mutual.per_epoch):
        both, one = mutual(number), one_way(number)
        anchors, _ = asked[-1]
        assert np.array_equal(both.rows, one.rows)
        for row, partner, kept in zip(
            one.rows, one.partner.tolist(), both.partner.tolist(), strict=True
        ):
            assert partner == (kept if row in anchors else -1)


def test_pairs_are_symmetric(items, backbone):
    batches = make(items, backbone, batch_size=2)
    for number in range(batches.per_epoch):
        batch = batches(number)
        assert len(batch.rows) == 2
        assert batch.partner.tolist() == ([-1, -1] if 5 in batch.rows else [1, 0])


def test_an_item_without_neighbours_and_one_that_is_both(items, backbone):
    batch = make(items, backbone).collate(np.array([0, 1, 5]), np.array([1, 2, 5]))
    assert batch.rows.tolist() == [0, 1, 2, 5]
    # 0 drew 1; 1 drew 2, and keeps what it drew; 2 serves the anchor that drew it.
    assert batch.partner.tolist() == [1, 2, 1, -1]


def test_false_negatives_are_the_graph(items, backbone):
    batch = make(items, backbone).collate(np.array([0, 3, 5]), np.array([1, 4, 5]))
    assert batch.rows.tolist() == [0, 1, 3, 4, 5]
    graph = neighbours()
    for place, row in enumerate(batch.rows):
        for other, column in enumerate(batch.rows):
            assert bool(batch.false_negatives[place, other]) == (column in graph.of(row))


def test_contents_are_those_of_the_items(items, backbone):
    batch = make(items, backbone).collate(np.array([0, 4, 1]), np.array([2, 3, 2]))
    longest = max(len(items.words[row]) for row in batch.rows)
    assert 0 <= batch.words.shape[1] - longest < 8  # a round number, to have few widths
    for place, row in enumerate(batch.rows):
        words = items.words[row]
        assert batch.words[place, : len(words)].tolist() == words.tolist()
        assert (batch.words[place, len(words) :] == -100).all()
        latent = items.latent_rows[row]
        assert bool(batch.has_image[place]) == (latent >= 0)
        expected = items.latents[latent] if latent >= 0 else torch.zeros_like(items.latents[0])
        assert torch.equal(batch.latents[place], expected)


def test_items_without_words_make_a_batch(items, backbone):
    batch = make(items, backbone).collate(np.array([1]), np.array([1]))
    assert (batch.words == -100).all()
    assert batch.partner.tolist() == [-1]


def test_batches_hold_like_lengths(items, backbone, asked):
    """Sorted within a pool: the spread of lengths inside batches is below that of a random cut."""
    batches = make(items, backbone, batch_size=4)
    known, spreads = prompt_lengths(items, backbone, 3), []
    for number in range(batches.per_epoch):
        batches(number)
        lengths = known[asked[-1][0]]
        spreads.append(lengths.max() - lengths.min())
    ordered = np.sort(known[TRAINED]).reshape(-1, 2)
    assert sorted(spreads) == sorted(ordered[:, 1] - ordered[:, 0])


class TestShares:
    @pytest.mark.parametrize("count", [1, 2, 3])
    @pytest.mark.parametrize("at_once", [0, 1, 2])
    def test_every_item_is_encoded_once_by_one_process(self, items, backbone, count, at_once):
        batches = make(items, backbone, batch_size=6)
        batches.at_once = at_once
        for number in range(batches.per_epoch):
            pairs = batches.draw(number)
            shares = [batches.lay_out(pairs, place, count) for place in range(count)]
            # An item that is anchor and positive is in the batch once, so it is encoded once.
            assert len(set(pairs.rows)) == len(pairs.rows)
            everyone = np.concatenate([share.own.numpy() for share in shares])
            assert sorted(everyone) == list(range(len(pairs.rows)))
            for share in shares:
                assert share.sizes == tuple(len(each.own) for each in shares)
                assert everyone[share.order.numpy()].tolist() == list(range(len(pairs.rows)))
                assert len(share.prompts) == len(shares[0].prompts)
                # The prompts are those of the own items, in their order.
                rows = share.rows[share.own.numpy()]
                alone = [
                    build_prompts(items, rows[i : i + 1], backbone, 3) for i in range(len(rows))
                ]
                found = [length for part in share.prompts for length in part.lengths.tolist()]
                assert found == [int(prompt.lengths) for prompt in alone]
                summary = torch.cat([part.summary for part in share.prompts])
                assert torch.equal(summary, items.summary[torch.from_numpy(rows)])
                if at_once:
                    assert max(len(part.tokens) for part in share.prompts) <= at_once + 1
                # All processes know the whole batch.
                assert torch.equal(share.partner, shares[0].partner)
                assert torch.equal(share.words, shares[0].words)

    def test_more_processes_than_items_are_refused(self, items, backbone):
        batches = make(items, backbone, batch_size=2)
        with pytest.raises(BadConfig, match="2 items cannot be shared by 3 processes"):
            batches.lay_out(batches.draw(0), 0, 3)
