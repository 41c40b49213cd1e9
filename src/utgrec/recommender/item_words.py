"""Vectors of items by the words of their texts: what codes leave out, and any shop can read.

An item's vector is the weighted sum of the vectors of its most telling words. A word is looked up
by a hash, so it means the same in every shop, and what a base has learned of it holds for items
that nobody has seen before. The vectors begin at random: items that share words are near each other
from the start, and training then says which words matter.

Shapes: B histories · T items · n items with words · W words kept of each · M width · L codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utgrec.recommender.item_vectors import item_keys

PLACES = 2**15  # that words are hashed to
_BITS = 15
_FULL = 2**16 - 1  # a weight of 1


class ItemWords(nn.Module):
    """The words of known items, looked up by domain and codes as in `item_vectors.py`."""

    table: Tensor  # (n, 1 + W), int64: the key of an item, ascending, and its words

    def __init__(self, width: int, bits: int, table: Tensor | None = None) -> None:
        """Random vectors, from torch's current seed; without a `table` no item has words."""
        super().__init__()
        self.bits = bits
        none = torch.zeros(0, 1, dtype=torch.int64)
        # One tensor, so that it is replaced at once while others read it.
        self.register_buffer("table", none if table is None else table)
        self.vectors = nn.Embedding(PLACES, width)
        nn.init.normal_(self.vectors.weight, std=width**-0.5)

    def forward(self, domains: Tensor, items: Tensor, dropped: float = 0.0) -> Tensor:
        """Vectors of items, zero for those without words. Shapes: (B,), (B, …, L) → (B, …, M).

        `dropped` is the share of words that are left out at random.
        """
        return self.of_keys(item_keys(domains, items, self.bits), dropped)

    def of_keys(self, keys: Tensor, dropped: float = 0.0) -> Tensor:
        """The same for keys of `item_keys`. Shapes: (…) → (…, M)."""
        table = self.table
        shape = (*keys.shape, self.vectors.embedding_dim)
        if not len(table):
            return self.vectors.weight.new_zeros(shape)
        different, place_of = torch.unique(keys, return_inverse=True)
        place = torch.searchsorted(table[:, 0].contiguous(), different).clamp(max=len(table) - 1)
        words, weights = unpack(table[place, 1:])
        weights = weights * (table[place, :1] == different[:, None])
        if dropped:
            weights = weights * (torch.rand_like(weights) >= dropped) / (1 - dropped)
        sums = F.embedding_bag(words, self.vectors.weight, per_sample_weights=weights, mode="sum")
        return sums[place_of].view(shape)

    def read(self, table: Tensor) -> None:
        """Let other items have words, too, or other ones than before. Shape: (n, 1 + W)."""
        self.table = table if not len(self.table) else _joined(self.table, table)

    def forget(self) -> None:
        """Let no item have words; what was learned of words stays."""
        self.table = self.table[:0]


def pack(keys: Tensor, words: Tensor, weights: Tensor) -> Tensor:
    """A table for `ItemWords`. Shapes: keys (n,), words (n, W), weights (n, W) in [0, 1]."""
    entries = (words.long() % PLACES) | ((weights * _FULL).round().long() << _BITS)
    table = torch.cat([keys[:, None], entries], dim=1)
    return table[keys.argsort()]


def unpack(entries: Tensor) -> tuple[Tensor, Tensor]:
    """Places and weights of words. Shapes: (n, W) → (n, W), (n, W)."""
    return entries & (PLACES - 1), (entries >> _BITS).float() / _FULL


def _joined(one: Tensor, other: Tensor) -> Tensor:
    """Both tables, the entries of `other` for items that are in both."""
    kept = one[~torch.isin(one[:, 0], other[:, 0])]
    both = torch.cat([kept, other])
    return both[both[:, 0].argsort()]
