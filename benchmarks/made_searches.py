"""Searches of a decoder-only recommender with random weights, memory and items, to be timed."""

from typing import Any

import torch
from torch import Tensor

from utgrec.decoding import CodeTrie, LeanCausal, make_search
from utgrec.precision import multiplies_bf16
from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.companions import CatalogCompanions, Companions
from utgrec.recommender.item_vectors import item_keys, token_bits
from utgrec.recommender.mixing import CODES_ALONE, Mixing
from utgrec.recommender.ranker import SIGNS, Ranker, RankerConfig
from utgrec.recommender.vocabulary import Vocabulary

NEIGHBOURS = 100  # companions of each item


def mixed_searches(vocabulary: Vocabulary, codes: Tensor) -> dict[str, Any]:
    """By codes alone; mixed with item vectors, companions and contents, which all items have; and
    with a ranker beside.

    Shapes: codes (N, L).
    """
    torch.manual_seed(0)
    (domain,) = vocabulary.domains
    shop = torch.full((len(codes),), vocabulary.domain_token(domain))
    keys = item_keys(shop, vocabulary.to_tokens(codes), token_bits(vocabulary))
    model = CausalRecommender(CausalSizes(), vocabulary, known=keys).eval()
    assert model.items is not None
    torch.nn.init.normal_(model.items.own.weight, std=0.05)
    table, ascending = codes.short().numpy(), keys.sort().values
    companions, contents = (
        CatalogCompanions(
            Companions(
                ascending,
                torch.randint(len(codes), (len(codes), NEIGHBOURS), dtype=torch.int32),
                torch.rand(len(codes), NEIGHBOURS),
            ),
            vocabulary,
            domain,
            table,
        )
        for _ in range(2)
    )
    lean = LeanCausal(model, torch.bfloat16 if multiplies_bf16("cpu") else torch.float32)
    trie = CodeTrie.build(codes)
    config = RankerConfig()
    ranker = Ranker(
        mean=torch.zeros(config.networks, 1, SIGNS),
        deviation=torch.ones(config.networks, 1, SIGNS),
        inner=torch.randn(config.networks, SIGNS, config.width) / SIGNS,
        inner_bias=torch.zeros(config.networks, 1, config.width),
        outer=torch.randn(config.networks, config.width, 1),
        keys=ascending,
        taken=torch.randint(1, 100, (len(codes),)),
        candidates=config.candidates,
    )
    return {
        name: make_search(
            model, lean, vocabulary, trie, domain, table, mixing, companions, contents, ordered
        )
        for name, mixing, ordered in (
            ("codes alone", CODES_ALONE, None),
            ("mixed", Mixing(), None),
            ("mixed, ranked", Mixing(), ranker),
        )
    }
