"""Vectors of words: sums by hand, items told apart by domain and codes, and words left out."""

import pytest
import torch

from utgrec.errors import BadConfig
from utgrec.recommender.causal import CausalRecommender, CausalSizes, RankingConfig
from utgrec.recommender.item_vectors import item_keys, token_bits
from utgrec.recommender.item_words import PLACES, ItemWords, pack, unpack
from utgrec.recommender.vocabulary import Vocabulary

VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("a", "b"))
BITS = token_bits(VOCABULARY)
ITEMS = VOCABULARY.to_tokens(torch.tensor([[0, 1, 2], [3, 4, 5], [7, 15, 15]]))
A = torch.full((3,), VOCABULARY.domain_token("a"))
B = torch.full((3,), VOCABULARY.domain_token("b"))
WORDS = torch.tensor([[5, 9], [PLACES - 1, 5], [0, 0]])
WEIGHTS = torch.tensor([[0.6, 0.8], [1.0, 0.25], [0.5, 0.0]])


def make() -> ItemWords:
    torch.manual_seed(0)
    return ItemWords(16, BITS, pack(item_keys(A, ITEMS, BITS), WORDS, WEIGHTS))


def test_a_packed_table_says_the_same() -> None:
    keys = torch.tensor([7, 2, 4])
    table = pack(keys, WORDS, WEIGHTS)
    assert table[:, 0].tolist() == [2, 4, 7]
    words, weights = unpack(table[:, 1:])
    order = keys.argsort()
    assert torch.equal(words, WORDS[order])
    torch.testing.assert_close(weights, WEIGHTS[order], atol=1e-5, rtol=0)


def test_vectors_are_weighted_sums() -> None:
    words = make()
    expected = (words.vectors.weight[WORDS] * WEIGHTS[..., None]).sum(dim=1)
    torch.testing.assert_close(words(A, ITEMS), expected, atol=1e-4, rtol=1e-4)
    histories = ITEMS[None].expand(2, 3, 3)
    torch.testing.assert_close(
        words(A[:2], histories), expected.expand(2, 3, 16), atol=1e-4, rtol=1e-4
    )


def test_other_domains_and_other_codes_have_no_words() -> None:
    words = make()
    assert not words(B, ITEMS).any()
    assert not words(A, ITEMS.flip(1)).any()
    assert not ItemWords(16, BITS)(A, ITEMS).any()


def test_more_items_may_come_and_change() -> None:
    words = make()
    before = words(A, ITEMS)
    words.read(pack(item_keys(B, ITEMS, BITS), WORDS.flip(0), WEIGHTS.flip(0)))
    torch.testing.assert_close(words(A, ITEMS), before)
    torch.testing.assert_close(words(B, ITEMS), before.flip(0))
    words.read(pack(item_keys(A, ITEMS, BITS)[:1], WORDS[1:2], WEIGHTS[1:2]))
    torch.testing.assert_close(words(A, ITEMS)[0], before[1])
    torch.testing.assert_close(words(A, ITEMS)[1:], before[1:])
    words.forget()
    assert not words(A, ITEMS).any()


def test_left_out_words_are_made_up_for_by_the_others() -> None:
    words = make()
    torch.manual_seed(1)
    drawn = torch.stack([words(A, ITEMS, dropped=0.5) for _ in range(3000)])
    torch.testing.assert_close(drawn.mean(dim=0), words(A, ITEMS), atol=0.05, rtol=0)
    assert drawn.std(dim=0)[:2].min() > 0


def test_a_network_begins_near_items_of_the_same_words() -> None:
    """Before any training, most often of all 60 items, and through layers of random weights."""
    torch.manual_seed(0)
    items = VOCABULARY.to_tokens(
        torch.stack([torch.arange(60) % 8, torch.arange(60) % 16, torch.arange(60) // 16], dim=1)
    )
    shop = torch.full((60,), VOCABULARY.domain_token("a"))
    keys = item_keys(shop, items, BITS)
    model = CausalRecommender(CausalSizes(width=64), VOCABULARY, known=keys).eval()
    words = torch.randint(0, PLACES, (30, 8)).repeat(2, 1)  # item i + 30 says what item i says
    assert model.words is not None
    model.words.read(pack(keys, words, torch.full(words.shape, 8**-0.5)))

    def found() -> float:
        with torch.no_grad():
            state = model.read(shop[:30], items[:30, None])[:, -1]
            scores = model.rank_state(state) @ model.vectors_of(shop, items).T
        scores[torch.arange(30), torch.arange(30)] = -torch.inf
        return float((scores.argmax(dim=1) == torch.arange(30) + 30).float().mean())

    with_words = found()
    model.words.forget()
    assert with_words > 0.3 > 0.15 > found()


def test_it_is_left_out_where_items_have_no_vectors() -> None:
    assert CausalRecommender(CausalSizes(item_vectors=False), VOCABULARY).words is None
    assert CausalRecommender(CausalSizes(item_words=0), VOCABULARY).words is None


def test_bad_settings_are_refused() -> None:
    with pytest.raises(BadConfig, match="item_words"):
        CausalSizes(item_words=-1)
    with pytest.raises(BadConfig, match="dropped_words"):
        RankingConfig(dropped_words=1.0)
