"""Filters: the best of what is left, as if the rest had never been in the catalogue."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_shops import make_shop

from utgrec.decoding import AllowedItems, CodeTrie, Exclusions
from utgrec.errors import InputError

ITEMS = 60
MANY = 10_000

masks = st.lists(st.booleans(), min_size=ITEMS, max_size=ITEMS)
lists = st.lists(
    st.one_of(st.lists(st.integers(0, ITEMS - 1), max_size=80), st.just(list(range(ITEMS)))),
    min_size=5,
    max_size=5,
)


@pytest.fixture(scope="module")
def exact():
    return make_shop().exact()


def assert_best_of_rest(hits, exact, k):
    """Hits are those of `exact`, in which items that are not allowed have -inf."""
    scores, items = exact.sort(dim=1, descending=True, stable=True)
    scores, items = scores[:, :k], items[:, :k]
    torch.testing.assert_close(hits.scores, scores, atol=1e-4, rtol=0)
    assert torch.equal(hits.items, items.where(scores > -torch.inf, -1))


def blocked(exact, mask=None, exclude=None):
    exact = exact.clone()
    if mask is not None:
        exact[:, ~mask] = -torch.inf
    for user, items in enumerate(exclude or []):
        exact[user, items] = -torch.inf
    return exact


@settings(deadline=None, max_examples=30)
@given(mask=masks, exclude=lists)
def test_filters_equal_brute_force(exact, mask, exclude):
    shop, mask = make_shop(), torch.tensor(mask)
    search = shop.search()
    options = {"k": ITEMS, "beam": MANY}
    hits = search.search(shop.input_ids, shop.mask, allowed=mask, **options)
    assert_best_of_rest(hits, blocked(exact, mask), ITEMS)
    hits = search.search(shop.input_ids, shop.mask, exclude=exclude, **options)
    assert_best_of_rest(hits, blocked(exact, None, exclude), ITEMS)
    hits = search.search(shop.input_ids, shop.mask, allowed=mask, exclude=exclude, **options)
    assert_best_of_rest(hits, blocked(exact, mask, exclude), ITEMS)


@settings(deadline=None, max_examples=30)
@given(mask=masks, exclude=lists, k=st.integers(1, 12), beam=st.integers(1, 12))
def test_a_filtered_search_is_a_search_in_the_smaller_catalogue(mask, exclude, k, beam):
    """Narrow beams too: dead branches must not take a place in the beam."""
    shop, mask = make_shop(), torch.tensor(mask)
    hits = shop.search().search(
        shop.input_ids, shop.mask, k=k, beam=beam, allowed=mask, exclude=exclude
    )
    for user, skipped in enumerate(exclude):
        rows = slice(user, user + 1)
        left = mask.clone()
        left[skipped] = False
        kept = left.nonzero().squeeze(1)
        if not len(kept):
            assert (hits.items[user] == -1).all()
            continue
        smaller = shop._replace(trie=CodeTrie.build(shop.codes[kept]))
        alone = smaller.search().search(shop.input_ids[rows], shop.mask[rows], k=k, beam=beam)
        found = alone.items[0]
        assert torch.equal(hits.items[user], kept[found].where(found >= 0, -1))
        torch.testing.assert_close(hits.scores[user], alone.scores[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_users_with_very_different_exclusions_share_a_chunk(exact, seed):
    shop, generator = make_shop(), torch.Generator().manual_seed(seed)
    counts = torch.randint(0, ITEMS, (5,), generator=generator).tolist()
    exclude = [torch.randperm(ITEMS, generator=generator)[:count].tolist() for count in counts]
    hits = shop.search(chunk=5).search(
        shop.input_ids, shop.mask, k=ITEMS, beam=MANY, exclude=exclude
    )
    assert_best_of_rest(hits, blocked(exact, None, exclude), ITEMS)


def test_a_beam_of_one_still_gives_k_items_under_heavy_exclusion():
    shop, generator = make_shop(items=200), torch.Generator().manual_seed(0)
    everything = torch.randperm(200, generator=generator)
    exclude = [everything[left:].tolist() for left in (3, 10, 50, 11, 0)]
    hits = shop.search().search(shop.input_ids, shop.mask, k=10, beam=1, exclude=exclude)
    assert (hits.items >= 0).sum(dim=1).tolist() == [3, 10, 10, 10, 0]
    for found, skipped in zip(hits.items.tolist(), exclude, strict=True):
        assert not set(found) & set(skipped)


def test_a_shorter_list_may_be_padded():
    shop = make_shop()
    rows = [[3, 5, 3], [], [1], [59, 0], [7]]
    padded = torch.tensor([row + [-1] * (3 - len(row)) for row in rows])
    search = shop.search()
    one = search.search(shop.input_ids, shop.mask, exclude=rows)
    other = search.search(shop.input_ids, shop.mask, exclude=padded)
    assert torch.equal(one.items, other.items)


def test_a_mask_can_be_prepared_once():
    shop = make_shop()
    mask = torch.arange(ITEMS) % 3 == 0
    search, prepared = shop.search(), AllowedItems(shop.trie, mask)
    assert prepared.total == 20
    one = search.search(shop.input_ids, shop.mask, allowed=prepared)
    other = search.search(shop.input_ids, shop.mask, allowed=mask)
    assert torch.equal(one.items, other.items)


def test_filters_of_another_catalogue_are_refused():
    shop = make_shop()
    with pytest.raises(InputError, match=r"boolean of shape \(60,\), got torch.bool .* \(59,\)"):
        AllowedItems(shop.trie, torch.ones(59, dtype=torch.bool))
    with pytest.raises(InputError, match=r"got torch.int64"):
        AllowedItems(shop.trie, torch.ones(60, dtype=torch.int64))
    with pytest.raises(InputError, match=r"indices 0 … 59"):
        Exclusions.build(shop.trie, [[60]])
    with pytest.raises(InputError, match=r"indices 0 … 59"):
        Exclusions.build(shop.trie, torch.tensor([[-2]]))
    with pytest.raises(InputError, match="4 rows for 5 users"):
        shop.search().search(shop.input_ids, shop.mask, exclude=[[1]] * 4)
