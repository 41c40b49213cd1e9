"""Vectors of items, by which whole items are told apart: of their codes, and of their own.

Any item has a vector made of its codes, also one that nobody has taken yet, and codes mean the same
in every shop. An item that occurs in training histories has a vector of its own beside it, which
begins at zero and learns what its codes leave out. It belongs to a domain and a tuple of codes,
and published codes never move, so it is found again in every later generation of a catalogue.

Shapes: B histories · T items · n items with a vector of their own · L codes per item · M width.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from utgrec.config import require
from utgrec.recommender.vocabulary import Vocabulary


class ItemVectors(nn.Module):
    """Vectors of their own for the known items of all domains, looked up by domain and codes."""

    keys: Tensor  # (n,), int64, ascending

    def __init__(self, keys: Tensor, width: int, bits: int, code_length: int) -> None:
        """All vectors start at zero. `keys` are those of `item_keys`, in any order."""
        super().__init__()
        self.bits, self.length = bits, code_length
        self.register_buffer("keys", torch.unique(keys))
        self.own = nn.Embedding(max(len(self.keys), 1), width)
        nn.init.zeros_(self.own.weight)

    @property
    def count(self) -> int:
        """Items with a vector of their own, n."""
        return len(self.keys)

    def rows(self, domains: Tensor, items: Tensor) -> Tensor:
        """Row of each item; n for one without a vector of its own.

        Shapes: domains (B,) tokens, items (B, …, L) tokens → (B, …), int64.
        """
        wanted = item_keys(domains, items, self.bits)
        if self.count == 0:
            return torch.zeros_like(wanted)
        place = torch.searchsorted(self.keys, wanted).clamp(max=self.count - 1)
        return place.masked_fill(self.keys[place] != wanted, self.count)

    def forward(self, domains: Tensor, items: Tensor) -> Tensor:
        """Own vectors, zero where there is none. Shapes: (B,), (B, …, L) → (B, …, M)."""
        rows = self.rows(domains, items)
        known = (rows < self.count)[..., None]
        out: Tensor = self.own(rows.clamp(max=max(self.count - 1, 0))) * known
        return out

    def tokens(self) -> Tensor:
        """Code tokens of the known items, row by row: (n, L)."""
        shifts = torch.arange(self.length - 1, -1, -1, device=self.keys.device) * self.bits
        return (self.keys[:, None] >> shifts) & ((1 << self.bits) - 1)

    def knowing(self, keys: Tensor) -> "ItemVectors":
        """The same for other known items: those that had a vector keep it, new ones get zeros."""
        out = ItemVectors(keys, self.own.embedding_dim, self.bits, self.length)
        if self.count and out.count:
            place = torch.searchsorted(self.keys, out.keys).clamp(max=self.count - 1)
            kept = self.keys[place] == out.keys  # (n,)
            with torch.no_grad():
                out.own.weight[kept] = self.own.weight[place[kept]]
        return out


def token_bits(vocabulary: Vocabulary) -> int:
    """Bits that one token takes in a key.

    Raises:
        BadConfig: a domain and the codes of an item do not fit into one integer.
    """
    bits = max(1, (vocabulary.size - 1).bit_length())
    most = 63 // bits - 1
    require(
        vocabulary.code_length <= most,
        f"with {vocabulary.size} tokens an item may have at most {most} codes to have a vector of "
        f"its own, got {vocabulary.code_length}; switch off item_vectors in the recommender's "
        "sizes, or choose smaller codebooks",
    )
    return bits


def item_keys(domains: Tensor, items: Tensor, bits: int) -> Tensor:
    """One integer for a domain and the codes of an item. Shapes: (B,), (B, …, L) → (B, …)."""
    key = domains.view(-1, *[1] * (items.ndim - 2)).expand(items.shape[:-1])
    for place in range(items.shape[-1]):
        key = (key << bits) | items[..., place]
    return key


class CatalogTokens(NamedTuple):
    """Items of one domain as tokens."""

    domains: Tensor  # (n,), int64, the token of the domain, for each item
    items: Tensor  # (n, L), int64


def catalog_tokens(
    vocabulary: Vocabulary, domain: str, codes: npt.NDArray[np.int16]
) -> CatalogTokens:
    """Items of a domain with these codes, (n, L)."""
    items = vocabulary.to_tokens(torch.from_numpy(codes.astype(np.int64)))
    return CatalogTokens(torch.full((len(items),), vocabulary.domain_token(domain)), items)


def catalog_keys(vocabulary: Vocabulary, domain: str, codes: npt.NDArray[np.int16]) -> Tensor:
    """Keys of items of a domain with these codes. Shapes: (n, L) → (n,)."""
    return item_keys(*catalog_tokens(vocabulary, domain, codes), token_bits(vocabulary))
