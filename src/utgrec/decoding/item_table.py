"""Vectors of a catalogue's items, and how near each is to what histories ask for.

A search needs of a million scores only their sum and the few best. So the table is read in panels
of 64 items, and of each panel, for each user, the largest score and a sum are kept. No array has an
entry per user and item.

Shapes: B users · N items · P panels of 64 items · M width · E pairs of a user and an item.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.decoding.kernels.native import Functions, find_functions, fits
from utgrec.decoding.parallel import in_threads
from utgrec.recommender.causal import CausalRecommender
from utgrec.recommender.item_vectors import catalog_tokens
from utgrec.recommender.vocabulary import Vocabulary

PANEL = 64
NOTHING = -3e38  # the largest score of a panel without usable items
_SCORES_AT_ONCE = 2**20  # users × items of one product, where torch computes it; 4 MB
_PAIRS_AT_ONCE = 2**16


class Panels(NamedTuple):
    """Scores of the usable items of each panel."""

    largest: Tensor  # (B, P), float32
    sums: Tensor  # (B, P), float32, of e^(score - largest)

    @classmethod
    def of(cls, scores: Tensor) -> "Panels":
        """Of all scores, -inf where an item is not usable: (…, 64) → (…)."""
        largest = scores.amax(dim=-1).clamp(min=NOTHING)
        return cls(largest, (scores - largest[..., None]).exp().sum(dim=-1))


class ItemTable:
    """The vectors of one catalogue's items, and what histories ask of them."""

    def __init__(
        self,
        model: CausalRecommender,
        vocabulary: Vocabulary,
        domain: str,
        codes: npt.NDArray[np.int16],
    ) -> None:
        """A snapshot for the items of a domain with these codes (N, L)."""
        parts = (torch.split(tokens, 8192) for tokens in catalog_tokens(vocabulary, domain, codes))
        with torch.no_grad():
            vectors = [model.vectors_of(*part) for part in zip(*parts, strict=True)]
            self.vectors = torch.cat(vectors)  # (N, M)
            self._weight = model.rank_state.weight.detach().float().clone()
            self._bias = model.rank_state.bias.detach().float().clone()

    def asked(self, states: Tensor) -> Tensor:
        """What histories ask for. (B, M) → (B, M)"""
        return (states.float() @ self._weight.T + self._bias).contiguous()

    @torch.inference_mode()
    def scores(self, states: Tensor) -> Tensor:
        """Log-shares of all items. Shapes: (B, M) → (B, N)."""
        return (self.asked(states) @ self.vectors.T).log_softmax(dim=1)

    def of_pairs(self, asked: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """Scores of single items. Shapes: asked (B, M), users (E,), items (E, …) → (E, …)."""
        if not items.numel():
            return torch.empty(items.shape)
        functions = self._functions()
        if functions is not None:
            of = users.view(-1, *[1] * (items.ndim - 1)).expand_as(items).contiguous()
            items, out = items.contiguous(), torch.empty(items.shape)
            functions.rank_pairs(
                asked.data_ptr(),
                asked.shape[1],
                self.vectors.data_ptr(),
                of.data_ptr(),
                items.data_ptr(),
                items.numel(),
                out.data_ptr(),
            )
            return out
        step = max(1, _PAIRS_AT_ONCE * len(items) // max(1, items.numel()))
        scores = [
            (self.vectors[some] * asked[of].view(len(of), *[1] * (some.ndim - 1), -1)).sum(dim=-1)
            for of, some in zip(torch.split(users, step), torch.split(items, step), strict=True)
        ]
        return torch.cat(scores)

    def panels(self, asked: Tensor, usable: Tensor | None) -> Panels:
        """What is kept of every panel, each thread taking some.

        Shapes: asked (B, M), usable (P,), int64, one bit per item; None for all.
        """
        count = -(-len(self.vectors) // PANEL)  # P
        found = Panels(torch.empty(len(asked), count), torch.empty(len(asked), count))
        functions, threads = self._functions(), torch.get_num_threads()
        size = -(-count // threads)
        if functions is None:
            size = min(size, max(1, _SCORES_AT_ONCE // PANEL // max(1, len(asked))))
        parts = [range(first, min(first + size, count)) for first in range(0, count, size)]

        def fill(part: range) -> None:
            if functions is not None:
                self._call(functions, asked, usable, part, found)
                return
            scores = self._scores(asked, usable, part)
            for into, values in zip(found, Panels.of(scores), strict=True):
                into[:, part.start : part.stop] = values

        in_threads(fill, parts, threads)
        return found

    def _functions(self) -> Functions | None:
        """Compiled functions for vectors like these."""
        return find_functions(torch.float32) if fits(self.vectors.shape[1]) else None

    def _call(
        self, functions: Functions, asked: Tensor, usable: Tensor | None, part: range, found: Panels
    ) -> None:
        functions.rank(
            asked.data_ptr(),
            len(asked),
            asked.shape[1],
            self.vectors.data_ptr(),
            len(self.vectors),
            None if usable is None else usable.data_ptr(),
            part.start,
            part.stop,
            found.largest.shape[1],
            found.largest.data_ptr(),
            found.sums.data_ptr(),
        )

    def _scores(self, asked: Tensor, usable: Tensor | None, part: range) -> Tensor:
        """Scores of some panels' items, -inf where there is none. (B, panels, 64)"""
        vectors = self.vectors[part.start * PANEL : part.stop * PANEL]
        scores = torch.full((len(asked), len(part) * PANEL), -torch.inf)
        scores[:, : len(vectors)] = asked @ vectors.T
        if usable is not None:
            words = usable[part.start : part.stop].numpy().view(np.uint8)
            bits = np.unpackbits(words, bitorder="little").view(np.bool_)
            scores.masked_fill_(torch.from_numpy(~bits), -torch.inf)
        return scores.view(len(asked), len(part), PANEL)
