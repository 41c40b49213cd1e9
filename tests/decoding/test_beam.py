"""Beam search: exact when wide, the textbook's when narrow, never outside the catalogue."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_shops import make_shop, random_codes

from utgrec.decoding import BeamSearch, CodeTrie, Step
from utgrec.errors import InputError
from utgrec.recommender.vocabulary import PAD, Vocabulary

EVERYTHING = 10_000


class TableModel:
    """Not a T5: log-probabilities looked up by a hash of the user's first token and the codes.

    It shows that any model with `start` and `step` can be decoded, and it costs nothing.
    """

    def __init__(self, table):
        self.table = table  # (rows, V)

    def start(self, input_ids, attention_mask):
        return input_ids[:, :1]

    def step(self, state, tokens, parents, first, count):
        state = self.extend(state.gather(1, parents), tokens)  # (B, W)
        return Step(self.table[state][:, :, first : first + count], state)

    def extend(self, state, token):
        return (state * 31 + token * 7 + 1) % len(self.table)


def slow_search(model, vocabulary, codes, user_token, k, beam):
    """The textbook's beam search for one user, over lists."""
    items = {tuple(row): item for item, row in enumerate(codes.tolist())}
    beams = [((), model.extend(user_token, PAD), 0.0)]
    for depth in range(vocabulary.code_length):
        offset = vocabulary.code_offsets[depth]
        following = []
        for prefix, state, score in beams:
            children = {row[depth] for row in items if row[:depth] == prefix}
            for code in children:
                # A tensor, so that sums round as in the search.
                total = model.table[state, offset + code] + score
                step = (*prefix, code), model.extend(state, offset + code), total
                following.append(step)
        last = depth == vocabulary.code_length - 1
        following.sort(key=lambda step: (-float(step[2]), step[0]))
        beams = following[: k if last else beam]
    return [items[prefix] for prefix, _, _ in beams], [float(score) for *_, score in beams]


@settings(deadline=None)
@given(
    length=st.integers(1, 4),
    items=st.integers(1, 40),
    k=st.integers(1, 12),
    extra=st.integers(0, 8),
    seed=st.integers(0, 1000),
    rounded=st.booleans(),
)
def test_a_narrow_beam_is_the_textbooks(length, items, k, extra, seed, rounded):
    vocabulary = Vocabulary(root_size=5, leaf_size=4, code_length=length, domains=())
    total = 5 * 4 ** (length - 1)
    codes = random_codes(vocabulary.code_sizes, min(items, total), seed)
    table = torch.randn(50, vocabulary.size, generator=torch.Generator().manual_seed(seed))
    # Whole numbers make many ties: they must go to the lower codes.
    model = TableModel(table.round() if rounded else table)
    input_ids = torch.arange(2, 9)[:, None]
    search = BeamSearch(model, vocabulary, CodeTrie.build(codes), chunk=3)
    hits = search.search(input_ids, torch.ones_like(input_ids), k=k, beam=k + extra)
    for user in range(len(input_ids)):
        found, scores = slow_search(model, vocabulary, codes, user + 2, k, k + extra)
        padding = k - len(found)
        assert hits.items[user].tolist() == found + [-1] * padding
        assert hits.scores[user].tolist() == scores + [-torch.inf] * padding


@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_full_beam_is_exact(length):
    shop = make_shop(length=length, items=45)
    hits = shop.search().search(shop.input_ids, shop.mask, k=45, beam=EVERYTHING)
    scores, items = shop.exact().sort(dim=1, descending=True)
    torch.testing.assert_close(hits.scores, scores, atol=1e-4, rtol=0)
    assert torch.equal(hits.items, items)


@pytest.mark.parametrize(("length", "beam"), [(2, 5), (3, 3), (3, 10), (4, 6)])
def test_it_finds_what_transformers_generate_finds(length, beam):
    shop = make_shop(length=length, items=80, seed=length)
    tokens = shop.vocabulary.to_tokens(shop.codes).tolist()
    nexts = {}
    for row in tokens:
        for depth in range(length):
            nexts.setdefault(tuple(row[:depth]), set()).add(row[depth])
    output = shop.model.generate(
        input_ids=shop.input_ids,
        attention_mask=shop.mask,
        num_beams=beam,
        num_return_sequences=beam,
        max_new_tokens=length,
        do_sample=False,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=lambda _, ids: sorted(nexts.get(tuple(ids[1:].tolist()), {PAD})),
        return_dict_in_generate=True,
        output_scores=True,
    )
    item_of = {tuple(row): item for item, row in enumerate(tokens)}
    theirs = [item_of[tuple(row)] for row in output.sequences[:, 1:].tolist()]
    hits = shop.search().search(shop.input_ids, shop.mask, k=beam, beam=beam)
    assert hits.items.flatten().tolist() == theirs
    torch.testing.assert_close(hits.scores.flatten(), output.sequences_scores, atol=1e-4, rtol=0)


def assert_same(hits, others):
    assert torch.equal(hits.items, others.items)
    torch.testing.assert_close(hits.scores, others.scores, atol=1e-5, rtol=0)


def test_a_batch_is_its_users_one_by_one():
    shop = make_shop()
    search = shop.search(chunk=3)
    batch = search.search(shop.input_ids, shop.mask, k=7, beam=9)
    for user in range(5):
        rows = slice(user, user + 1)
        single = search.search(shop.input_ids[rows], shop.mask[rows], k=7, beam=9)
        assert_same(single, type(batch)(batch.items[rows], batch.scores[rows]))


def test_padding_does_not_change_results():
    shop = make_shop()
    search = shop.search(chunk=5)
    hits = search.search(shop.input_ids, shop.mask, k=7, beam=9)
    pad = torch.zeros(5, 4, dtype=torch.int64)
    noise = pad + 3  # what stands where the mask is 0 must not matter
    for ids in ([shop.input_ids, noise], [noise, shop.input_ids]):
        mask = torch.cat([shop.mask if part is shop.input_ids else pad for part in ids], dim=1)
        assert_same(search.search(torch.cat(ids, dim=1), mask, k=7, beam=9), hits)
    rolled = [
        torch.stack(
            [row.roll(12 - int(own.sum())) for row, own in zip(part, shop.mask, strict=True)]
        )
        for part in (shop.input_ids, shop.mask)
    ]
    assert_same(search.search(*rolled, k=7, beam=9), hits)


@pytest.mark.parametrize(("k", "beam"), list(itertools.product([1, 5, 30], [1, 2, 10, 64])))
def test_hits_are_different_items_in_order_whatever_the_beam(k, beam):
    shop = make_shop(items=100)
    hits = shop.search().search(shop.input_ids, shop.mask, k=k, beam=beam)
    assert hits.items.shape == hits.scores.shape == (5, k)
    assert ((hits.items >= 0) & (hits.items < 100)).all()
    assert all(len(set(row)) == k for row in hits.items.tolist())
    assert (hits.scores.diff(dim=1) <= 0).all()
    exact = shop.exact().gather(1, hits.items)
    torch.testing.assert_close(hits.scores, exact, atol=1e-4, rtol=0)


def test_more_hits_than_items_are_padded():
    shop = make_shop(items=4)
    hits = shop.search().search(shop.input_ids, shop.mask, k=9, beam=2)
    assert (hits.items[:, :4].sort().values == torch.arange(4)).all()
    assert (hits.items[:, 4:] == -1).all()
    assert (hits.scores[:, 4:] == -torch.inf).all()


def test_a_catalogue_of_one_item():
    shop = make_shop(items=1)
    hits = shop.search().search(shop.input_ids, shop.mask, k=1, beam=1)
    assert hits.items.tolist() == [[0]] * 5
    torch.testing.assert_close(hits.scores, shop.exact(), atol=1e-4, rtol=0)


def test_results_are_ordinary_tensors():
    """Callers may change them in place, which tensors of inference mode forbid."""
    shop = make_shop()
    hits = shop.search().search(shop.input_ids, shop.mask, k=3)
    best = hits.scores[:, 0].clone()
    hits.scores.exp_()
    torch.testing.assert_close(hits.scores[:, 0], best.exp())
    assert not hits.scores.requires_grad


def test_no_users_get_no_hits():
    shop = make_shop()
    hits = shop.search().search(shop.input_ids[:0], shop.mask[:0], k=3, exclude=[])
    assert hits.items.shape == hits.scores.shape == (0, 3)


def test_bfloat16_finds_nearly_the_same_items():
    shop = make_shop(items=300)
    hits = shop.search().search(shop.input_ids, shop.mask, k=20)
    rough = shop.search(torch.bfloat16).search(shop.input_ids, shop.mask, k=20)
    pairs = zip(hits.items.tolist(), rough.items.tolist(), strict=True)
    overlap = [len(set(ours) & set(theirs)) / 20 for ours, theirs in pairs]
    assert min(overlap) >= 0.8


def test_what_cannot_be_searched_is_refused():
    shop = make_shop()
    search = shop.search()
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        search.search(shop.input_ids, shop.mask, k=0)
    with pytest.raises(InputError, match="beam must be at least 1, got -1"):
        search.search(shop.input_ids, shop.mask, beam=-1)
    with pytest.raises(InputError, match=r"\(5, 12\) and attention_mask \(5, 11\)"):
        search.search(shop.input_ids, shop.mask[:, 1:])
    with pytest.raises(InputError, match="chunk must be at least 1"):
        shop.search(chunk=0)
    with pytest.raises(InputError, match="codebooks have"):
        BeamSearch(TableModel(None), shop.vocabulary, CodeTrie.build(shop.codes + 4))
    with pytest.raises(InputError, match="codebooks have"):
        BeamSearch(TableModel(None), shop.vocabulary, CodeTrie.build(shop.codes[:1, :2]))


def test_a_damaged_model_is_reported():
    shop = make_shop()
    model = TableModel(torch.full((50, shop.vocabulary.size), torch.nan))
    search = BeamSearch(model, shop.vocabulary, shop.trie)
    with pytest.raises(InputError, match="not finite"):
        search.search(shop.input_ids, shop.mask, k=3, beam=1)
