"""Written, near, counted, alike: four voices about every item of a catalogue, as one score.

Beam search says how likely the codes of items are; an item that no beam ended in counts as the
least likely one that did. Item vectors say how near each item is to what a history asks for.
Companions say what people took who took the history's items, contents which items say the same as
these. `recommender/mixing.py` has the formula; a score is the log-probability of an item among
those that may be recommended.

Shapes: B users · S history tokens · W beams · N items · L codes · M width.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.decoding.beam import BeamSearch, Hits
from utgrec.decoding.causal import LeanCausal
from utgrec.decoding.filters import NO_ITEM, AllowedItems
from utgrec.decoding.trie import CodeTrie
from utgrec.recommender.causal import CausalRecommender
from utgrec.recommender.companions import CatalogCompanions
from utgrec.recommender.mixing import Mixing
from utgrec.recommender.vocabulary import Vocabulary

# Scores of users × items held at a time: 16 MB per voice.
_SCORES_AT_ONCE = 2**22


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
        tokens = vocabulary.to_tokens(torch.from_numpy(codes.astype(np.int64)))
        shop = torch.full((len(tokens),), vocabulary.domain_token(domain))
        with torch.no_grad():
            vectors = [
                model.vectors_of(shops, part)
                for part, shops in zip(
                    torch.split(tokens, 8192), torch.split(shop, 8192), strict=True
                )
            ]
            self.vectors = torch.cat(vectors)  # (N, M)
            self._weight = model.rank_state.weight.detach().float().clone()
            self._bias = model.rank_state.bias.detach().float().clone()

    @torch.inference_mode()
    def scores(self, states: Tensor) -> Tensor:
        """Log-shares of all items. Shapes: (B, M) → (B, N)."""
        asked = states.float() @ self._weight.T + self._bias
        return (asked @ self.vectors.T).log_softmax(dim=1)


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
        network = self.network(mixing.vectors)
        share, added = torch.zeros(len(network), 1), torch.zeros(())
        for weight, memory in (
            (mixing.companions, self.companions),
            (mixing.contents, self.contents),
        ):
            if memory is None or not weight:
                continue
            remembered = self.shares(memory)
            # Somebody of whose items nothing is remembered hears the network instead.
            share = share + weight * remembered.any(dim=1, keepdim=True)
            added = added + weight * remembered
        if not share.any():
            return network
        mixed = torch.log((1 - share) * network.exp() + added)
        # A share too small for float32 keeps its place behind all others.
        return torch.where(mixed.isfinite(), mixed, network + torch.log1p(-share))

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


class MixedSearch:
    """Finds items by all voices; the same call as `BeamSearch.search`."""

    def __init__(
        self,
        model: Any,
        search: BeamSearch[Any],
        trie: CodeTrie,
        table: ItemTable | None,
        companions: CatalogCompanions | None,
        contents: CatalogCompanions | None,
        mixing: Mixing,
    ) -> None:
        self._model, self._search, self._trie = model, search, trie
        self._table, self.mixing = table, mixing
        self.companions, self.contents = companions, contents
        self._chunk = max(1, _SCORES_AT_ONCE // max(1, trie.item_count))

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

        A user gets min(k, items left) hits, whatever the beam. Scores are log-probabilities among
        the items that may be recommended.
        """
        items = torch.full((len(input_ids), k), NO_ITEM)
        scores = torch.full((len(input_ids), k), -torch.inf)
        for voices in self.voices(
            input_ids, attention_mask, k=k, beam=beam, allowed=allowed, exclude=exclude
        ):
            mixed = voices.mix(self.mixing)
            count = min(k, mixed.shape[1])
            best = mixed.topk(count, dim=1)
            # Equal scores in the order of the items, so that an answer does not hang on chance.
            by_item = best.indices.sort(dim=1)
            values = best.values.gather(1, by_item.indices)
            order = values.sort(dim=1, descending=True, stable=True)
            found = by_item.values.gather(1, order.indices)
            items[voices.users, :count] = found.masked_fill(order.values == -torch.inf, NO_ITEM)
            scores[voices.users, :count] = order.values
        return Hits(items, scores)

    @torch.inference_mode()
    def voices(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        k: int,
        beam: int,
        allowed: AllowedItems | Tensor | None = None,
        exclude: Tensor | Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Voices]:
        """What is said to each user, a few users at a time."""
        if isinstance(allowed, Tensor):
            allowed = AllowedItems(self._trie, allowed)
        written = self._search.search(
            input_ids, attention_mask, k=max(k, beam), beam=beam, allowed=allowed, exclude=exclude
        )
        for begin in range(0, len(input_ids), self._chunk):
            part = slice(begin, begin + self._chunk)
            ids, mask = input_ids[part], attention_mask[part]
            near = None
            if self._table is not None:
                near = self._table.scores(self._model.start(ids, mask).states)
            counted, alike = self.remembered(ids, mask, self.mixing.decay)
            shape = (len(ids), self._trie.item_count)
            yield Voices(
                part,
                _spread(Hits(written.items[part], written.scores[part]), shape),
                near,
                counted,
                alike,
                _usable(shape, allowed, None if exclude is None else exclude[part]),
            )

    def remembered(
        self, input_ids: Tensor, attention_mask: Tensor, decay: float
    ) -> tuple[Tensor | None, Tensor | None]:
        """Sums of similarities of all items to some histories: by who took them, and by text."""
        counted, alike = (
            None if memory is None else memory.weigh(input_ids, attention_mask, decay)
            for memory in (self.companions, self.contents)
        )
        return counted, alike


def make_search(
    model: Any,
    lean: Any,
    vocabulary: Vocabulary,
    trie: CodeTrie,
    domain: str,
    codes: npt.NDArray[np.int16],
    mixing: Mixing,
    companions: CatalogCompanions | None = None,
    contents: CatalogCompanions | None = None,
) -> "BeamSearch[Any] | MixedSearch":
    """The search for a network and its memory: plain beam search where codes speak alone."""
    search = BeamSearch[Any](lean, vocabulary, trie)
    table = None
    if mixing.vectors and isinstance(model, CausalRecommender) and model.items is not None:
        assert isinstance(lean, LeanCausal)
        table = ItemTable(model, vocabulary, domain, codes)
    if not mixing.companions or (companions is not None and not companions.known):
        companions = None
    if not mixing.contents or (contents is not None and not contents.known):
        contents = None
    if table is None and companions is None and contents is None:
        return search
    return MixedSearch(lean, search, trie, table, companions, contents, mixing)


def _spread(hits: Hits, shape: tuple[int, int]) -> Tensor:
    """Scores of all items, the least one of the hits where there is no hit: (b, N)."""
    missing = hits.items == NO_ITEM  # (b, W)
    least = hits.scores.masked_fill(missing, torch.inf).amin(dim=1, keepdim=True)  # (b, 1)
    least = least.masked_fill(least == torch.inf, 0.0)
    out = least.expand(shape).clone()
    row, place = (~missing).nonzero(as_tuple=True)
    out[row, hits.items[row, place]] = hits.scores[row, place]
    return out


def _usable(
    shape: tuple[int, int],
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
