"""Beam search over the decoder-only recommender finds what scoring every item finds."""

import numpy as np
import pytest
import torch

from utgrec.decoding import BeamSearch, CodeTrie, LeanCausal, exact_causal_scores
from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.histories import HistoryEncoder
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.item_words import PLACES, pack
from utgrec.recommender.vocabulary import Vocabulary

VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("shop",))


@pytest.fixture(scope="module")
def shop() -> tuple[CausalRecommender, np.ndarray, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    sizes = CausalSizes(width=32, feed_forward=48, heads=4, trunk_layers=3, distances=6)
    rng = np.random.default_rng(0)
    places = rng.permutation(8 * 16 * 16)[:300]
    codes = np.stack(np.unravel_index(places, (8, 16, 16)), axis=1).astype(np.int16)
    keys = catalog_keys(VOCABULARY, "shop", codes)
    model = CausalRecommender(sizes, VOCABULARY, known=keys[:200]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    assert model.words is not None
    words = torch.randint(0, PLACES, (280, 5))
    model.words.read(pack(keys[:280], words, torch.full(words.shape, 0.4)))
    encoder = HistoryEncoder("shop", codes, VOCABULARY, max_items=10)
    histories = [rng.integers(0, 300, size) for size in (1, 10, 0, 4, 14, 2)]
    tokens, mask = encoder.encode(histories)
    return model, codes, tokens, mask


def test_full_beam_equals_the_exact_scorer(shop) -> None:
    model, codes, tokens, mask = shop
    search = BeamSearch(LeanCausal(model), VOCABULARY, CodeTrie.build(codes))
    hits = search.search(tokens, mask, k=300, beam=300)
    exact = exact_causal_scores(model, VOCABULARY, tokens, mask, torch.from_numpy(codes))
    torch.testing.assert_close(
        hits.scores, exact.sort(dim=1, descending=True).values, atol=1e-4, rtol=1e-4
    )
    found = exact.gather(1, hits.items)
    torch.testing.assert_close(found, hits.scores, atol=1e-4, rtol=1e-4)


def test_a_user_gets_the_same_alone_and_among_others(shop) -> None:
    model, codes, tokens, mask = shop
    search = BeamSearch(LeanCausal(model), VOCABULARY, CodeTrie.build(codes))
    together = search.search(tokens, mask, k=5, beam=20)
    for user in range(len(tokens)):
        alone = search.search(tokens[user : user + 1], mask[user : user + 1], k=5, beam=20)
        assert torch.equal(alone.items[0], together.items[user])
        torch.testing.assert_close(alone.scores[0], together.scores[user], atol=1e-4, rtol=1e-4)


def test_bfloat16_stays_near(shop) -> None:
    model, codes, tokens, mask = shop
    exact = exact_causal_scores(model, VOCABULARY, tokens, mask, torch.from_numpy(codes))
    search = BeamSearch(LeanCausal(model, torch.bfloat16), VOCABULARY, CodeTrie.build(codes))
    hits = search.search(tokens, mask, k=10, beam=300)
    assert (hits.scores - exact.gather(1, hits.items)).abs().max() < 0.3


def test_a_snapshot_does_not_follow_the_model(shop) -> None:
    model, codes, tokens, mask = shop
    lean = LeanCausal(model)
    search = BeamSearch(lean, VOCABULARY, CodeTrie.build(codes))
    before = search.search(tokens, mask, k=3, beam=20)
    saved = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight.zero_()
    after = search.search(tokens, mask, k=3, beam=20)
    with torch.no_grad():
        model.head.weight.copy_(saved)
    assert torch.equal(before.scores, after.scores)
