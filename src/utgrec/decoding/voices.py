"""What is said of every item of a catalogue to some users, and how it is put together.

This is the plain form of the mixture, with an entry per user and item: for calibration, which
weighs the same scores many times, and as the oracle of the tests. `mixed.py` finds the best items
without it.

Shapes: b users · N items.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from utgrec.recommender.mixing import Mixing


class Voices(NamedTuple):
    """What is said of all items of a catalogue to some users."""

    users: slice
    codes: Tensor  # (b, N), log-probabilities; that of the least likely hit where there is none
    vectors: Tensor | None  # (b, N), log-shares
    companions: Tensor | None  # (b, N), sums of similarities by who took them
    contents: Tensor | None  # (b, N), sums of similarities by text
    usable: Tensor  # (b, N), bool, items that may be recommended

    def mix(self, mixing: Mixing) -> Tensor:
        """Log-probability of every usable item, -inf for all others: (b, N)."""
        memories = ((mixing.companions, self.companions), (mixing.contents, self.contents))
        return with_memories(
            self.network(mixing.vectors),
            [(weight, self.shares(sums)) for weight, sums in memories if sums is not None],
        )

    def network(self, vectors: float) -> Tensor:
        """Log-shares of the usable items by what was trained: (b, N)."""
        out = self.codes
        if self.vectors is not None and vectors:
            out = (out + vectors * self.vectors) / (1 + vectors)
        out = out.masked_fill(~self.usable, -torch.inf).log_softmax(dim=1)
        return out.masked_fill(~self.usable, -torch.inf)  # of nothing it would be NaN

    def shares(self, memory: Tensor) -> Tensor:
        """Shares of the usable items in what is remembered, or zeros. Shapes: (b, N) → (b, N)."""
        kept = memory * self.usable
        return kept / kept.sum(dim=1, keepdim=True).clamp(min=1e-12)


def with_memories(network: Tensor, memories: Iterable[tuple[float, Tensor]]) -> Tensor:
    """Log-probabilities of the network with what is remembered.

    Shapes: network (b, n), log-probabilities; of each memory its weight, and the items' shares
        (b, n), with every item that it names among the n → (b, n).
    """
    share, added = torch.zeros(len(network), 1), torch.zeros(())
    for weight, remembered in memories:
        # Somebody of whose items nothing is remembered hears the network instead.
        share = share + weight * remembered.any(dim=1, keepdim=True)
        added = added + weight * remembered
    if not share.any():
        return network
    mixed = torch.log((1 - share) * network.exp() + added)
    # A share too small for float32 keeps its place behind all others.
    return torch.where(mixed.isfinite(), mixed, network + torch.log1p(-share))
