"""Small recommenders with random weights, random catalogues, and padded histories."""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utgrec.decoding import BeamSearch, CodeTrie, LeanT5, exact_scores
from utgrec.recommender.vocabulary import PAD, Vocabulary


class Shop(NamedTuple):
    """A recommender, its catalogue and some users."""

    vocabulary: Vocabulary
    model: Any  # T5ForConditionalGeneration
    codes: Tensor  # (N, L)
    trie: CodeTrie
    input_ids: Tensor  # (B, S), padded on the right
    mask: Tensor  # (B, S)

    def search(self, dtype: torch.dtype = torch.float32, chunk: int = 2) -> BeamSearch[Any]:
        """A beam search over this shop."""
        return BeamSearch(LeanT5(self.model, dtype), self.vocabulary, self.trie, chunk=chunk)

    def exact(self) -> Tensor:
        """The score of every item for every user, by the oracle. (B, N)"""
        return exact_scores(self.model, self.vocabulary, self.input_ids, self.mask, self.codes)


def random_codes(sizes: tuple[int, ...], items: int, seed: int) -> Tensor:
    """`items` different code tuples in random order. (N, L)"""
    generator = torch.Generator().manual_seed(seed)
    total = int(torch.tensor(sizes).prod())
    numbers = torch.randperm(total, generator=generator)[:items]
    return torch.stack(torch.unravel_index(numbers, sizes), dim=1)


def random_t5(vocab_size: int, seed: int, **settings: Any) -> Any:
    """A small T5 in which no weight, scales of norms included, has a special value."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}
    config = T5Config(
        vocab_size=vocab_size, decoder_start_token_id=PAD, **{**shape, **buckets, **settings}
    )
    model = T5ForConditionalGeneration(config).eval()
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    return model


@functools.cache
def make_shop(
    *, length: int = 3, items: int = 60, root: int = 6, leaf: int = 8, seed: int = 0
) -> Shop:
    """A shop with 5 users, whose histories have 1 to 12 tokens."""
    vocabulary = Vocabulary(
        root_size=root, leaf_size=leaf, code_length=length, domains=("a",), domain_slots=2
    )
    codes = random_codes(vocabulary.code_sizes, items, seed)
    torch.manual_seed(seed + 1)
    lengths = torch.tensor([3, 12, 7, 1, 9])
    mask = (torch.arange(12) < lengths[:, None]).long()
    input_ids = torch.randint(2, vocabulary.size, mask.shape) * mask
    model = random_t5(vocabulary.size, seed)
    return Shop(vocabulary, model, codes, CodeTrie.build(codes), input_ids, mask)
