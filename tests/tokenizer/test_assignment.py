"""Every item gets a code tuple of its own: always, in any order, and as near as it can be."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utgrec.errors import InputError
from utgrec.tokenizer.assignment import assign_codes
from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer


def make(root: int = 2, leaf: int = 3, length: int = 2, dim: int = 2, seed: int = 0):
    """A quantiser with random code vectors."""
    torch.manual_seed(seed)
    config = QuantizerConfig(
        kind="vq", root_size=root, leaf_size=leaf, code_length=length, dim=dim, warmup_steps=0
    )
    return TreeQuantizer(config).eval()


def names(count: int) -> list[str]:
    """Distinct ids whose order is not that of the rows."""
    return [f"item {number * 7919 % 1009}" for number in range(count)]


def assign(states: torch.Tensor, quantizer: TreeQuantizer, **changes):
    """Assign codes under made-up ids."""
    return assign_codes(states, names(len(states)), quantizer, **changes)


def near(quantizer: TreeQuantizer, codes: list[list[int]], noise: float = 0.0, seed: int = 0):
    """States whose nearest codes are these."""
    generator = torch.Generator().manual_seed(seed)
    exact = quantizer.embed(torch.tensor(codes)).cumsum(dim=1).detach()
    return exact + noise * torch.randn(exact.shape, generator=generator)


def distance(quantizer: TreeQuantizer, state: torch.Tensor, codes: tuple[int, ...]) -> float:
    """Squared distance of an item's states to those that the codes rebuild."""
    rebuilt = quantizer.embed(torch.tensor([codes])).cumsum(dim=1)
    return float((state[None] - rebuilt).square().sum().detach())


@st.composite
def catalogues(draw):
    """Small codebooks and up to as many items as there are codes, many of them equal."""
    root, leaf, length = draw(st.integers(2, 3)), draw(st.integers(2, 3)), draw(st.integers(2, 3))
    capacity = root * leaf ** (length - 1)
    count = draw(st.one_of(st.just(capacity), st.integers(0, capacity)))
    seed = draw(st.integers(0, 10**6))
    kinds = draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(kinds, length, 2, generator=generator)
    states = points[torch.randint(kinds, (count,), generator=generator)]
    if draw(st.booleans()):
        states = states + 0.1 * torch.randn(states.shape, generator=generator)
    return make(root, leaf, length, seed=seed), states


@settings(max_examples=150, deadline=None)
@given(catalogues(), st.randoms(use_true_random=False))
def test_codes_are_unique_and_do_not_depend_on_the_order(catalogue, random):
    quantizer, states = catalogue
    ids = names(len(states))
    first = assign_codes(states, ids, quantizer)
    assert len({tuple(row) for row in first.codes.tolist()}) == len(states)
    config = quantizer.config
    assert (first.codes[:, 0] < config.root_size).all()
    assert (first.codes[:, 1:] < config.leaf_size).all()
    assert (first.codes >= 0).all()
    assert np.array_equal(first.conflict, (first.codes != first.nearest).any(axis=1))
    order = list(range(len(states)))
    random.shuffle(order)
    again = assign_codes(states[order], [ids[row] for row in order], quantizer)
    for ours, theirs in zip(first, again, strict=True):
        assert np.array_equal(ours[order], theirs)


@settings(max_examples=100, deadline=None)
@given(catalogues())
def test_who_collides_with_nobody_stays_where_it_is(catalogue):
    """Alone under its nearest prefix, an item moves only to make room for those who overflow."""
    quantizer, states = catalogue
    out = assign(states, quantizer)
    nearest = [tuple(row) for row in out.nearest.tolist()]
    prefixes = [row[:-1] for row in nearest]
    crowded = max((prefixes.count(prefix) for prefix in prefixes), default=0)
    if crowded <= quantizer.config.leaf_size:
        for row, prefix in enumerate(prefixes):
            assert tuple(out.codes[row, :-1]) == prefix  # nobody has to leave a prefix
            group = [other for other, value in enumerate(prefixes) if value == prefix]
            wanted = [nearest[other] for other in group]
            if len(set(wanted)) == len(wanted):
                assert tuple(out.codes[row]) == nearest[row]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.booleans())
def test_within_a_prefix_the_total_distance_is_the_smallest_there_is(seed, count, equal):
    quantizer = make(2, 4, 3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    last = 0.4 * torch.randn(1 if equal else count, 1, 2, generator=generator)
    base = quantizer.embed(torch.tensor([[1, 2, 0]])).detach()[:, :2]  # prefix (1, 2)
    steps = torch.cat([base.expand(count, -1, -1), last.expand(count, 1, 2)], dim=1)
    states = steps.cumsum(dim=1)
    out = assign(states, quantizer)
    assert (out.codes[:, :2] == [1, 2]).all()
    found = sum(
        distance(quantizer, state, tuple(code))
        for state, code in zip(states, out.codes.tolist(), strict=True)
    )
    best = min(
        sum(
            distance(quantizer, state, (1, 2, leaf))
            for state, leaf in zip(states, leaves, strict=True)
        )
        for leaves in itertools.permutations(range(4), count)
    )
    assert found == pytest.approx(best, rel=1e-4, abs=1e-5)
    assert out.distance.sum() == pytest.approx(found, rel=1e-4, abs=1e-5)


def test_the_nearest_codes_are_those_of_the_quantiser():
    quantizer = make(5, 7, 3, dim=4)
    states = torch.randn(60, 3, 4, generator=torch.Generator().manual_seed(1))
    out = assign(states, quantizer)
    assert np.array_equal(out.nearest, quantizer(states).codes.numpy())
    assert not out.conflict.all()
    for row in range(60):
        expected = distance(quantizer, states[row], tuple(out.codes[row].tolist()))
        assert out.distance[row] == pytest.approx(expected, rel=1e-4)


def test_without_collisions_nothing_moves():
    quantizer = make(4, 5, 3, dim=8)
    codes = [[a, b, c] for a in range(4) for b in range(5) for c in (1, 3)]
    out = assign(near(quantizer, codes, noise=0.01), quantizer)
    assert out.codes.tolist() == codes
    assert not out.conflict.any()


def test_overflow_goes_to_the_second_nearest_prefix_and_the_worst_fits_go():
    """Five items at one place, three leaves: three stay, two go where the prefix is next best."""
    quantizer = make(3, 3, 2, dim=4, seed=2)
    states = near(quantizer, [[1, 0]] * 5, noise=0.05)
    out = assign(states, quantizer)
    assert (out.nearest[:, 0] == 1).all()
    stay = out.codes[:, 0] == 1
    assert stay.sum() == 3
    for row in np.flatnonzero(~stay):
        gaps = (states[row, 0] - quantizer.root.vectors.detach()).square().sum(dim=1)
        assert out.codes[row, 0] == gaps.argsort()[1]
    last = states[:, 1] - quantizer.root.vectors.detach()[1]
    cost = torch.cdist(last, quantizer.leaf.vectors.detach()).square().numpy()
    best = min(
        sum(cost[row, leaf] for row, leaf in zip(rows, range(3), strict=True))
        for rows in itertools.permutations(range(5), 3)
    )
    kept = sum(cost[row, out.codes[row, 1]] for row in np.flatnonzero(stay))
    assert kept == pytest.approx(best, rel=1e-4)


@settings(max_examples=100, deadline=None)
@given(catalogues())
def test_under_every_prefix_the_leaves_are_dealt_out_as_well_as_can_be(catalogue):
    """Also where items came from elsewhere: there, other leaves are near than at home."""
    quantizer, states = catalogue
    out = assign(states, quantizer)
    leaves = quantizer.leaf.vectors.detach()
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, code in enumerate(out.codes.tolist()):
        groups.setdefault(tuple(code[:-1]), []).append(row)
    for prefix, rows in groups.items():
        whole = torch.tensor([[*prefix, 0]])
        above = quantizer.embed(whole).detach()[0, :-1].sum(dim=0)
        cost = (states[rows, -1] - above)[:, None] - leaves
        cost = cost.square().sum(dim=-1).double().numpy()  # (rows, leaves)
        found = sum(cost[place, out.codes[row, -1]] for place, row in enumerate(rows))
        best = min(
            sum(cost[place, leaf] for place, leaf in enumerate(choice))
            for choice in itertools.permutations(range(len(leaves)), len(rows))
        )
        assert found == pytest.approx(best, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_the_last_code_of_the_prefix_gives_way_first(seed):
    """With three codes, an overflow keeps the root and takes the next leaf of position 2."""
    quantizer = make(2, 3, 3, dim=4, seed=seed)
    states = near(quantizer, [[1, 2, 0]] * 9)
    out = assign(states[:4], quantizer)
    left_over = states[0, 1] - quantizer.root.vectors.detach()[1]
    ranking = (left_over - quantizer.leaf.vectors.detach()).square().sum(dim=1).argsort().tolist()
    if tuple(out.nearest[0, :2]) != (1, 2):
        pytest.skip("these random code vectors hide one another")
    assert ranking[0] == 2
    assert (out.codes[:, 0] == 1).all()
    assert sorted(out.codes[:, 1]) == sorted([2, 2, 2, ranking[1]])
    everything = assign(states, quantizer)
    assert (everything.codes[:, 0] == 1).all()
    assert np.bincount(everything.codes[:, 1], minlength=3).tolist() == [3, 3, 3]


def test_all_leaves_can_be_used():
    """As many items as codes, all in one place: every tuple is given away."""
    quantizer = make(3, 4, 3)
    out = assign(torch.zeros(48, 3, 2), quantizer)
    expected = set(itertools.product(range(3), range(4), range(4)))
    assert {tuple(row) for row in out.codes.tolist()} == expected


def test_equal_code_vectors_are_no_trap():
    """The search for the nearest and the ranking of alternatives may settle ties differently."""
    quantizer = make(3, 3, 3)
    with torch.no_grad():
        quantizer.root.vectors.copy_(torch.ones(3, 2))
        quantizer.leaf.vectors.copy_(torch.ones(3, 2))
    out = assign(torch.randn(27, 3, 2), quantizer)
    assert len({tuple(row) for row in out.codes.tolist()}) == 27


def test_a_tie_between_nearest_and_ranking_does_not_lose_a_prefix(monkeypatch):
    """Rounding may rank another prefix first than the one an item was found nearest to."""
    quantizer = make(3, 2, 2)
    with torch.no_grad():
        quantizer.root.vectors.copy_(torch.zeros(3, 2))
    last = torch.full((6, 2), 2, dtype=torch.int64) * torch.tensor([1, 0])
    monkeypatch.setattr(quantizer, "nearest", lambda steps: last)
    out = assign(torch.zeros(6, 2, 2), quantizer)
    assert {tuple(row) for row in out.codes.tolist()} == set(itertools.product(range(3), range(2)))


@pytest.mark.parametrize("published", [None, [[0, 0], [1, 2]]])
def test_too_many_items_are_refused(published):
    codes = None if published is None else np.array(published, dtype=np.int16)
    count = 7 if published is None else 5
    with pytest.raises(InputError, match=r"7 items do not fit into codes of sizes \(2, 3\)"):
        assign(torch.zeros(count, 2, 2), make(), published=codes)
    assign(torch.zeros(count - 1, 2, 2), make(), published=codes)


@settings(max_examples=60, deadline=None)
@given(catalogues(), st.floats(0, 1))
def test_published_codes_never_move_and_are_never_given_again(catalogue, share):
    quantizer, states = catalogue
    split = round(share * len(states))
    before = assign(states[:split], quantizer)
    kept = before.codes.copy()
    after = assign_codes(
        states[split:], names(len(states))[split:], quantizer, published=before.codes
    )
    assert np.array_equal(before.codes, kept)
    everything = [tuple(row) for row in [*kept.tolist(), *after.codes.tolist()]]
    assert len(set(everything)) == len(states)


def test_a_new_item_gets_its_nearest_code_if_it_is_free():
    quantizer = make(4, 5, 2, dim=6)
    states = near(quantizer, [[2, 3], [2, 4], [1, 0]])
    published = np.array([[2, 3], [0, 0]], dtype=np.int16)
    out = assign(states, quantizer, published=published)
    assert out.codes[1:].tolist() == [[2, 4], [1, 0]]
    assert out.codes[0, 0] == 2
    assert out.codes[0, 1] not in (3, 4)
    assert out.conflict.tolist() == [True, False, False]


def test_no_items():
    out = assign(torch.zeros(0, 3, 2), make(length=3))
    assert out.codes.shape == out.nearest.shape == (0, 3)
    assert out.codes.dtype == np.int16


def test_many_equal_items_do_not_take_forever():
    """300 items in one place with 512 codes: the worst case for the repair."""
    quantizer = make(8, 8, 3, dim=4)
    out = assign(torch.zeros(300, 3, 4), quantizer)
    assert len({tuple(row) for row in out.codes.tolist()}) == 300
