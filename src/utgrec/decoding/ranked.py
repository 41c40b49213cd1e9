"""Written, then ranked: beam search proposes items by their codes, item vectors order them.

A recommender with item vectors says two things of an item: how likely its codes are, and how near
its vector is to what the history asks for. The score is the log-probability of its codes plus a
weight times its log-share of the catalogue by vectors. Candidates are the items that the beams end
in and as many of the nearest vectors; one that no beam ended in counts as the least likely one that
did. Codes bring what no vector knows yet, such as items that are new; vectors bring what codes blur.

Shapes: B users · S history tokens · W candidates of one kind · N items · L codes · M width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.decoding.beam import BeamSearch, Hits
from utgrec.decoding.causal import LeanCausal
from utgrec.decoding.filters import NO_ITEM, AllowedItems
from utgrec.decoding.trie import CodeTrie
from utgrec.recommender.causal import CausalRecommender
from utgrec.recommender.vocabulary import Vocabulary

# Scores of users × items held at a time: 64 MB.
_SCORES_AT_ONCE = 2**24


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
        assert model.items is not None
        tokens = vocabulary.to_tokens(torch.from_numpy(codes.astype(np.int64)))
        shop = torch.full((len(tokens),), vocabulary.domain_token(domain))
        with torch.no_grad():
            vectors = [
                model.code_vectors(part) + model.items(shops, part)
                for part, shops in zip(tokens.split(8192), shop.split(8192), strict=True)
            ]
            self.vectors = torch.cat(vectors)  # (N, M)
            self._weight = model.rank_state.weight.detach().float().clone()
            self._bias = model.rank_state.bias.detach().float().clone()

    @torch.inference_mode()
    def scores(self, states: Tensor) -> Tensor:
        """Log-shares of all items. Shapes: (B, M) → (B, N)."""
        asked = states.float() @ self._weight.T + self._bias
        return (asked @ self.vectors.T).log_softmax(dim=1)


class RankedSearch:
    """Beam search whose hits are ranked together with the nearest item vectors."""

    def __init__(
        self,
        model: LeanCausal,
        search: BeamSearch[Any],
        trie: CodeTrie,
        table: ItemTable,
        weight: float,
    ) -> None:
        self._model, self._search, self._trie = model, search, trie
        self._table, self._weight = table, weight
        self._chunk = max(1, _SCORES_AT_ONCE // max(1, len(table.vectors)))

    @torch.inference_mode()
    def search(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        k: int = 10,
        beam: int = 50,
        allowed: AllowedItems | Tensor | None = None,
        exclude: Tensor | Sequence[Sequence[int]] | None = None,
    ) -> Hits:
        """The k best items of each user; see `BeamSearch.search`.

        Scores are comparable within one user's answer.
        """
        if isinstance(allowed, Tensor):
            allowed = AllowedItems(self._trie, allowed)
        width = max(k, beam)
        written = self._search.search(
            input_ids, attention_mask, k=width, beam=beam, allowed=allowed, exclude=exclude
        )
        items = torch.full((len(input_ids), k), NO_ITEM)
        scores = torch.full((len(input_ids), k), -torch.inf)
        for begin in range(0, len(input_ids), self._chunk):
            part = slice(begin, begin + self._chunk)
            states = self._model.start(input_ids[part], attention_mask[part]).states
            shares = self._table.scores(states)  # (b, N)
            usable = self._usable(shares.shape, allowed, None if exclude is None else exclude[part])
            found = self._merge(
                Hits(written.items[part], written.scores[part]), shares, usable, width
            )
            count = min(k, found.items.shape[1])
            items[part, :count] = found.items[:, :count]
            scores[part, :count] = found.scores[:, :count]
        return Hits(items, scores)

    def _usable(
        self,
        shape: torch.Size,
        allowed: AllowedItems | None,
        exclude: Tensor | Sequence[Sequence[int]] | None,
    ) -> Tensor:
        """Items that may be returned: (b, N), bool."""
        usable = torch.ones(shape, dtype=torch.bool)
        if allowed is not None:
            usable &= allowed.mask
        if exclude is not None:
            for row, skipped in enumerate(exclude):
                places = torch.as_tensor(skipped, dtype=torch.int64)
                usable[row, places[places != NO_ITEM]] = False
        return usable

    def _merge(self, written: Hits, shares: Tensor, usable: Tensor, width: int) -> Hits:
        """Written and near items in one order. Shapes: (b, W), (b, N), (b, N) → (b, 2 W).

        `usable` is changed.
        """
        missing = written.items == NO_ITEM  # (b, W)
        least = written.scores.masked_fill(missing, torch.inf).amin(dim=1, keepdim=True)  # (b, 1)
        places = written.items.clamp(min=0)
        first = written.scores + self._weight * shares.gather(1, places)
        first = first.masked_fill(missing, -torch.inf)
        row, place = (~missing).nonzero(as_tuple=True)
        usable[row, written.items[row, place]] = False  # these are there already
        near = shares.masked_fill(~usable, -torch.inf).topk(min(width, shares.shape[1]), dim=1)
        second = near.values * self._weight + least
        second = second.masked_fill(~near.values.isfinite(), -torch.inf)
        items = torch.cat([written.items, near.indices], dim=1)
        scores = torch.cat([first, second], dim=1)
        # Equal scores in the order of the items, so that an answer does not hang on chance.
        by_item = items.argsort(dim=1, stable=True)
        items, scores = items.gather(1, by_item), scores.gather(1, by_item)
        best = scores.sort(dim=1, descending=True, stable=True)
        items = items.gather(1, best.indices).masked_fill(best.values == -torch.inf, NO_ITEM)
        return Hits(items, best.values)


def make_search(
    model: CausalRecommender | Any,
    lean: Any,
    vocabulary: Vocabulary,
    trie: CodeTrie,
    domain: str,
    codes: npt.NDArray[np.int16],
    weight: float,
) -> "BeamSearch[Any] | RankedSearch":
    """The search that fits a network: ranked where it has item vectors and `weight` is not 0."""
    search = BeamSearch[Any](lean, vocabulary, trie)
    if weight == 0 or not isinstance(model, CausalRecommender) or model.items is None:
        return search
    return RankedSearch(lean, search, trie, ItemTable(model, vocabulary, domain, codes), weight)
