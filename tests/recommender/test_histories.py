"""Training samples: every prefix of every training history, once per epoch, and nothing else."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utgrec.data.split import Split
from utgrec.errors import EmptyDomain
from utgrec.recommender.histories import CodedDomain, HistoryEncoder, newest_codes
from utgrec.recommender.prefixes import PrefixBatches
from utgrec.recommender.vocabulary import END, PAD, Vocabulary

ITEMS = 50
VOCABULARY = Vocabulary(root_size=8, leaf_size=8, code_length=3, domains=("a", "b"))


def codes_of(seed: int) -> np.ndarray:
    """Unique codes of all items, so that tokens tell the item."""
    numbers = np.random.default_rng(seed).permutation(512)[:ITEMS]
    return np.stack(np.unravel_index(numbers, (8, 8, 8)), axis=1).astype(np.int16)


def make_domain(name: str, histories: list[list[int]], seed: int = 0) -> CodedDomain:
    """A domain whose held-out items are 48 and 49: nothing but leakage brings them in."""
    users = len(histories)
    split = Split(
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        train=np.array([item for items in histories for item in items], np.int32),
        valid=np.full(users, 48, np.int32),
        test=np.full(users, 49, np.int32),
    )
    return CodedDomain(name, codes_of(seed), split)


def draw_histories(seed: int, users: int, longest: int) -> list[list[int]]:
    """Histories of 0 to `longest` items."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 48, rng.integers(0, longest + 1)).tolist() for _ in range(users)]


def make(domains: list[CodedDomain], **changes) -> PrefixBatches:
    """Small batches."""
    values = {"max_items": 4, "batch_size": 8, "temperature": 1.0, "seed": 0}
    return PrefixBatches(domains, VOCABULARY, **{**values, **changes})


def read(batch, domains: list[CodedDomain]) -> list[tuple]:
    """Samples of a batch back as (domain, history, target), by taking its tokens apart."""
    samples = []
    for tokens, mask, target in zip(*(part.tolist() for part in batch), strict=True):
        length = sum(mask)
        assert mask == [1] * length + [0] * (len(mask) - length)
        assert tokens[length:] == [PAD] * (len(tokens) - length)
        assert tokens[length - 1] == END
        number = next(n for n, d in enumerate(domains)
                      if VOCABULARY.domain_token(d.name) == tokens[0])  # fmt: skip
        items = {
            tuple(row): item
            for item, row in enumerate(
                VOCABULARY.to_tokens(torch.from_numpy(domains[number].codes)).tolist()
            )
        }
        body = tokens[1 : length - 1]
        history = tuple(items[tuple(body[i : i + 3])] for i in range(0, len(body), 3))
        samples.append((number, history, items[tuple(target)]))
    return samples


def epoch_of(batches: PrefixBatches, domains: list[CodedDomain], epoch: int) -> Counter:
    """All samples of an epoch."""
    numbers = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
    return Counter(sample for number in numbers for sample in read(batches(number), domains))


def by_brute_force(domains: list[CodedDomain], max_items: int) -> Counter:
    """Every prefix of every training history."""
    found = Counter()
    for number, domain in enumerate(domains):
        for user in range(len(domain.split.valid)):
            items = domain.split.train_history(user).tolist()
            for end in range(1, len(items)):
                found[number, tuple(items[max(0, end - max_items) : end]), items[end]] += 1
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 6), st.integers(1, 30))
def test_every_prefix_comes_once_per_epoch(seed, users, max_items, batch_size):
    domains = [
        make_domain("a", [[1, 2, 3], *draw_histories(seed, users, 9)]),
        make_domain("b", draw_histories(seed + 1, users, 5), seed=1),
    ]
    batches = make(domains, max_items=max_items, batch_size=batch_size)
    expected = by_brute_force(domains, max_items)
    for epoch in (0, 1, 5):
        assert epoch_of(batches, domains, epoch) == expected
    assert batches.samples == sum(expected.values())


def test_no_held_out_item_is_ever_seen():
    """48 and 49 are the held-out items; the brute force above never looks at them either."""
    domains = [make_domain("a", draw_histories(0, 30, 9))]
    batches = make(domains)
    seen = {
        item
        for number in range(2 * batches.per_epoch)
        for _, history, target in read(batches(number), domains)
        for item in (*history, target)
    }
    assert seen
    assert not seen & {48, 49}


def test_a_batch_by_hand():
    domain = make_domain("b", [[7], [5, 6, 7, 8]])
    tokens = VOCABULARY.to_tokens(torch.from_numpy(domain.codes))
    batches = make([make_domain("a", [[0, 1]]), domain], max_items=2)
    # Items stand one after the other: user 1's are at 1 … 4; targets are at 2 and at 4.
    batch = batches.collate(np.array([[1, 2], [1, 4]]))
    name = VOCABULARY.domain_token("b")
    assert batch.tokens.tolist() == [
        [name, *tokens[5].tolist(), END, PAD, PAD, PAD],
        [name, *tokens[6].tolist(), *tokens[7].tolist(), END],
    ]
    assert batch.mask.tolist() == [[1] * 5 + [0] * 3, [1] * 8]
    assert batch.targets.tolist() == [tokens[6].tolist(), tokens[8].tolist()]
    assert batch.tokens.dtype == batch.mask.dtype == batch.targets.dtype == torch.int64


def test_a_batch_is_a_function_of_seed_and_number():
    domains = [make_domain("a", draw_histories(0, 30, 9)), make_domain("b", [[1, 2, 3]])]
    batches = make(domains)
    numbers = range(3 * batches.per_epoch)
    first = [batches(number) for number in numbers]

    def same(one, other):
        return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    for number in [len(numbers) - 1, 0, 4, 4, len(numbers) // 2]:
        assert same(first[number], batches(number))
        assert same(first[number], make(domains)(number))
    assert not all(same(first[n], make(domains, seed=1)(n)) for n in numbers)
    assert not all(same(first[n], first[n + batches.per_epoch]) for n in range(batches.per_epoch))


def test_batches_are_full_but_the_last_of_the_epoch():
    batches = make([make_domain("a", draw_histories(3, 60, 9))], batch_size=7)
    sizes = sorted(len(batches(number).tokens) for number in range(batches.per_epoch))
    assert sizes[1:] == [7] * (batches.per_epoch - 1)
    assert sum(sizes) == batches.samples


def test_like_lengths_come_together():
    batches = make([make_domain("a", draw_histories(3, 200, 9))], batch_size=8, max_items=9)
    padding = np.mean([1 - float(batches(n).mask.float().mean()) for n in range(batches.per_epoch)])
    assert padding < 0.1


class TestTemperature:
    def count(self, temperature: float, epochs: int = 1) -> Counter:
        """Samples of each domain over some epochs; the sizes are 90 and 10."""
        domains = [
            make_domain("a", [list(range(31))] * 3),
            make_domain("b", [list(range(11))], seed=1),
        ]
        batches = make(domains, temperature=temperature)
        assert batches.samples == 100
        drawn = Counter()
        for epoch in range(epochs):
            for (number, _, _), times in epoch_of(batches, domains, epoch).items():
                drawn[number] += times
        return drawn

    @pytest.mark.parametrize(
        ("temperature", "shares"), [(1.0, (90, 10)), (0.0, (50, 50)), (0.5, (75, 25))]
    )
    def test_shares(self, temperature, shares):
        assert self.count(temperature) == dict(enumerate(shares))

    def test_all_prefixes_come_before_any_comes_again(self):
        domains = [
            make_domain("a", [list(range(31))] * 3),
            make_domain("b", [list(range(11))], seed=1),
        ]
        batches = make(domains, temperature=0.0, max_items=40)
        total = Counter()
        for epoch in range(9):
            total += epoch_of(batches, domains, epoch)
            large = [times for (number, _, _), times in total.items() if number == 0]
            small = [times for (number, _, _), times in total.items() if number == 1]
            # The three users of "a" are alike: each of its 30 samples stands for three.
            assert sum(large) == 50 * (epoch + 1)
            assert set(small) == {5 * (epoch + 1)}
            if sum(large) >= 90:
                assert min(large) >= 3 * (sum(large) // 90)
                assert max(large) <= 3 * -(-sum(large) // 90)


class TestNothingToLearn:
    def test_a_domain_without_samples_takes_no_part(self):
        domains = [make_domain("a", [[1], [2], []]), make_domain("b", [[1, 2, 3]])]
        batches = make(domains)
        assert epoch_of(batches, domains, 0) == {(1, (1,), 2): 1, (1, (1, 2), 3): 1}

    def test_no_samples_at_all_is_an_error_that_says_so(self):
        with pytest.raises(EmptyDomain, match=r"a, b.*at least 4 interactions"):
            make([make_domain("a", [[1], []]), make_domain("b", [[2]])])


class TestEncoder:
    def test_the_newest_items_are_kept(self):
        encoder = HistoryEncoder("a", codes_of(0), VOCABULARY, max_items=2)
        item = VOCABULARY.to_tokens(torch.from_numpy(codes_of(0)))
        tokens, mask = encoder.encode([np.array([1, 2, 3]), np.array([4])])
        name = VOCABULARY.domain_token("a")
        assert tokens.tolist() == [
            [name, *item[2].tolist(), *item[3].tolist(), END],
            [name, *item[4].tolist(), END, PAD, PAD, PAD],
        ]
        assert mask.sum(dim=1).tolist() == [8, 5]

    def test_an_empty_history_is_the_domain_alone(self):
        encoder = HistoryEncoder("b", codes_of(0), VOCABULARY, max_items=2)
        tokens, mask = encoder.encode([np.array([], dtype=np.int64)])
        assert tokens.tolist() == [[VOCABULARY.domain_token("b"), END]]
        assert mask.tolist() == [[1, 1]]

    def test_nobody(self):
        tokens, mask = HistoryEncoder("b", codes_of(0), VOCABULARY, max_items=2).encode([])
        assert tokens.shape == mask.shape == (0, 2)


class TestNewest:
    def test_the_codes_of_the_last_item_of_each_history(self):
        encoder = HistoryEncoder("a", codes_of(0), VOCABULARY, max_items=3)
        item = VOCABULARY.to_tokens(torch.from_numpy(codes_of(0))).tolist()
        histories = [np.array([1, 2, 3, 4]), np.array([7]), np.array([], np.int64)]
        tokens, mask = encoder.encode(histories)
        assert newest_codes(tokens, mask, 3).tolist() == [item[4], item[7], [PAD] * 3]

    def test_they_are_those_of_the_item_before_the_target(self):
        domain = make_domain("a", [[5, 6, 7]])
        batch = make([domain]).collate(np.array([[0, 1], [0, 2]]))
        item = VOCABULARY.to_tokens(torch.from_numpy(domain.codes)).tolist()
        assert newest_codes(batch.tokens, batch.mask, 3).tolist() == [item[5], item[6]]
        assert batch.targets.tolist() == [item[6], item[7]]

    def test_none_at_all(self):
        tokens = torch.tensor([[5, 6, END]])
        assert newest_codes(tokens, torch.ones_like(tokens), 0).shape == (1, 0)
