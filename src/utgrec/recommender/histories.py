"""Histories of items as token ids, laid out for reading.

Shapes: B histories · S tokens of a history · L codes per item · N items of a domain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.data.split import Split
from utgrec.errors import EmptyDomain
from utgrec.recommender.vocabulary import END, PAD, Vocabulary


class CodedDomain(NamedTuple):
    """A domain as the recommender sees it: histories and the codes of its items."""

    name: str
    codes: npt.NDArray[np.int16]  # (N, L)
    split: Split


class HistoryEncoder:
    """Histories of item indices of one domain → token ids."""

    def __init__(
        self, name: str, codes: npt.NDArray[np.int16], vocabulary: Vocabulary, max_items: int
    ) -> None:
        self.max_items = max_items
        self.domain = vocabulary.domain_token(name)
        self.item_tokens = vocabulary.to_tokens(torch.from_numpy(codes.astype(np.int64))).numpy()

    def encode(self, histories: Sequence[npt.NDArray[np.integer]]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of the newest `max_items` of each history: (B, S), (B, S), int64."""
        kept = [history[-self.max_items :] for history in histories]
        return self._lay_out(kept)

    def _lay_out(self, kept: Sequence[npt.NDArray[np.integer]]) -> tuple[Tensor, Tensor]:
        length = self.item_tokens.shape[1]
        longest = 2 + length * max((len(items) for items in kept), default=0)
        tokens = np.full((len(kept), longest), PAD, dtype=np.int64)
        tokens[:, 0] = self.domain
        for row, items in enumerate(kept):
            end = 1 + length * len(items)
            tokens[row, 1:end] = self.item_tokens[items].ravel()
            tokens[row, end] = END
        return torch.from_numpy(tokens), torch.from_numpy((tokens != PAD).astype(np.int64))


def epoch_shares(
    domains: Sequence[CodedDomain], targets: Sequence[int], temperature: float
) -> npt.NDArray[np.float64]:
    """What share of an epoch each domain has: n ** temperature, normalised, with n its targets.

    Raises:
        EmptyDomain: there is not a single target in all of them.
    """
    sizes = np.asarray(targets, dtype=np.float64)
    if not sizes.any():
        raise EmptyDomain(
            f"no user of {', '.join(domain.name for domain in domains)} has two training items "
            "to learn from; users need at least 4 interactions, as the last two are held out"
        )
    share = np.where(sizes > 0, np.maximum(sizes, 1) ** temperature, 0)
    return np.asarray(share / share.sum())


def newest_codes(tokens: Tensor, mask: Tensor, length: int) -> Tensor:
    """The codes of the newest item of each history, where the decoder begins.

    Padding on the right; an empty history gives padding. Shapes: (B, S), (B, S) → (B, length).
    """
    end = mask.sum(dim=1) - 1  # the end token
    places = end[:, None] - length + torch.arange(length, device=tokens.device)  # (B, length)
    codes = tokens.gather(1, places.clamp(min=0))
    return codes.masked_fill(places < 1, PAD)
