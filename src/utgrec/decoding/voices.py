"""What is said of every item of a catalogue to some users, and how it is put together.

This is the plain form of the mixture, with an entry per user and item: for calibration, which
weighs the same scores many times, and as the oracle of the tests. `mixed.py` finds the best items
without it.

Shapes: b users · N items.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from utgrec.recommender.mixing import Mixing


class Voices(NamedTuple):
    """What is said of all items of a catalogue to some users."""

    users: slice
    codes: Tensor  # (b, N), log-probabilities; that of the least likely hit where there is none
    vectors: Tensor | None  # (b, N), log-shares
    companions: Tensor | None  # (b, N), sums of similarities
    usable: Tensor  # (b, N), bool, items that may be recommended

    def mix(self, mixing: Mixing) -> Tensor:
        """Log-probability of every usable item, -inf for all others: (b, N)."""
        network = self.codes
        if self.vectors is not None and mixing.vectors:
            network = (network + mixing.vectors * self.vectors) / (1 + mixing.vectors)
        network = network.masked_fill(~self.usable, -torch.inf).log_softmax(dim=1)
        network = network.masked_fill(~self.usable, -torch.inf)  # of nothing it would be NaN
        if self.companions is None or not mixing.companions:
            return network
        counted = self.companions * self.usable
        return with_companions(network, counted, counted.sum(dim=1, keepdim=True), mixing)


def with_companions(network: Tensor, counted: Tensor, total: Tensor, mixing: Mixing) -> Tensor:
    """Log-probabilities with what was counted.

    Shapes: network (b, n), log-probabilities; counted (b, n), sums of similarities; total (b, 1),
        that of all usable items → (b, n).
    """
    # Somebody whose items have no companions hears the network alone.
    share = mixing.companions * (total > 0)
    counted = counted / total.clamp(min=1e-12)
    mixed = torch.log((1 - share) * network.exp() + share * counted)
    # A share too small for float32 keeps its place behind all others.
    return torch.where(mixed.isfinite(), mixed, network + torch.log1p(-share))
