"""What is said of some of a catalogue's items to some users, and the best of rows of candidates.

Shapes: B users · C candidates (padded) · N items · n pairs of a user and an item.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from utgrec.decoding.beam import Hits
from utgrec.decoding.filters import NO_ITEM


class Sparse(NamedTuple):
    """Values of some items of some users, by the key user × N + item."""

    keys: Tensor  # (n,), int64, ascending
    values: Tensor  # (n,), float32

    @classmethod
    def sums(cls, keys: Tensor, values: Tensor) -> "Sparse":
        """Values of the same key are added. Shapes: (n,) twice."""
        unique, place = torch.unique(keys, return_inverse=True)
        return cls(unique, torch.zeros(len(unique)).index_add_(0, place, values))

    def at(self, keys: Tensor) -> Tensor:
        """The values of keys, 0 where there is none. Any shape → the same."""
        if not len(self.keys):
            return torch.zeros(keys.shape)
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == keys, self.values[place], 0.0)


class Remembered(NamedTuple):
    """Similarities of usable items to a history, as one memory has them."""

    sums: Sparse
    totals: Tensor  # (B,), over all usable items

    def shares(self, keys: Tensor, user: Tensor) -> Tensor:
        """Shares that add up to 1 for each user of whom something is remembered. (n,) → (n,)"""
        return self.sums.at(keys) / self.totals.clamp(min=1e-12)[user]


def best_places(scores: Tensor, count: int) -> Tensor:
    """Places of the best scores of each row, the best first; equal ones in their order.

    Shapes: (B, C) → (B, at most `count`).
    """
    best = scores.topk(min(count, scores.shape[1]), dim=1).indices.sort(dim=1).values
    order = scores.gather(1, best).sort(dim=1, descending=True, stable=True).indices
    return best.gather(1, order)


def best_hits(items: Tensor, scores: Tensor, k: int) -> Hits:
    """The k best of each row; equal scores in the order of the items.

    Shapes: items (B, C), ascending, scores (B, C), -inf where there is none.
    """
    best = scores.topk(min(k, scores.shape[1]), dim=1)
    by_item = best.indices.sort(dim=1)
    values = best.values.gather(1, by_item.indices)
    values, order = values.sort(dim=1, descending=True, stable=True)
    found = items.gather(1, by_item.values.gather(1, order))
    missing = k - found.shape[1]
    found = found.masked_fill(values == -torch.inf, NO_ITEM)
    return Hits(
        torch.nn.functional.pad(found, (0, missing), value=NO_ITEM),
        torch.nn.functional.pad(values, (0, missing), value=-torch.inf),
    )
