"""Written, near, counted, alike: four voices about every item of a catalogue, as one score.

Beam search says how likely the codes of items are; an item that no beam ended in counts as the
least likely one that did. Item vectors say how near each item is to what a history asks for.
Companions say what people took who took the history's items, contents which items say the same as
these. `recommender/mixing.py` has the formula; a score is the log-probability of an item among
those that may be recommended.

Only items that some voice names can be among the best: those of the panels with the highest scores
of vectors (`item_table.py`), hits, and what the memories name. Of all others nothing but a sum is
needed.

Shapes: B users · W hits · E excluded items · C candidates (padded) · N items · P panels · M width.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.decoding.beam import BeamSearch, Hits
from utgrec.decoding.causal import CausalState, LeanCausal
from utgrec.decoding.filters import NO_ITEM, AllowedItems, Exclusions, padded_rows
from utgrec.decoding.item_table import NOTHING, PANEL, ItemTable, Panels
from utgrec.decoding.parallel import in_threads
from utgrec.decoding.trie import CodeTrie
from utgrec.decoding.voices import Voices, with_memories
from utgrec.recommender.causal import CausalRecommender
from utgrec.recommender.companions import CatalogCompanions
from utgrec.recommender.mixing import Mixing
from utgrec.recommender.vocabulary import Vocabulary

_USERS_AT_ONCE = 128  # read the table together; 16 MB of panels for a million items
# Scores of users × items that `voices` holds at a time: 16 MB per voice.
_SCORES_AT_ONCE = 2**22


class _Heard(NamedTuple):
    """What beam search found, and what else is given, of some users."""

    hits: Hits  # (B, W)
    states: Tensor | None  # (B, M), what the network made of each history
    input_ids: Tensor  # (B, S)
    attention_mask: Tensor  # (B, S)
    allowed: AllowedItems | None
    excluded: Tensor  # (B, E), int64, padded with -1

    def part(self, users: slice) -> "_Heard":
        """The same of some users."""
        return _Heard(
            Hits(*(field[users] for field in self.hits)),
            None if self.states is None else self.states[users],
            self.input_ids[users],
            self.attention_mask[users],
            self.allowed,
            self.excluded[users],
        )


class _Sparse(NamedTuple):
    """Values of some items of some users, by the key user × N + item."""

    keys: Tensor  # (n,), int64, ascending
    values: Tensor  # (n,), float32

    @classmethod
    def sums(cls, keys: Tensor, values: Tensor) -> "_Sparse":
        """Values of the same key are added. Shapes: (n,) twice."""
        unique, place = torch.unique(keys, return_inverse=True)
        return cls(unique, torch.zeros(len(unique)).index_add_(0, place, values))

    def at(self, keys: Tensor) -> Tensor:
        """The values of keys, 0 where there is none. Any shape → the same."""
        if not len(self.keys):
            return torch.zeros(keys.shape)
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == keys, self.values[place], 0.0)


class MixedSearch:
    """Finds items by all voices; the same call as `BeamSearch.search`."""

    def __init__(
        self,
        search: BeamSearch[Any],
        trie: CodeTrie,
        table: ItemTable | None,
        companions: CatalogCompanions | None,
        contents: CatalogCompanions | None,
        mixing: Mixing,
    ) -> None:
        self._search, self._trie = search, trie
        self._table, self.mixing = table, mixing
        self.companions, self.contents = companions, contents

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
        heard = self._hear(input_ids, attention_mask, k, beam, allowed, exclude)
        items = torch.full((len(input_ids), k), NO_ITEM)
        scores = torch.full((len(input_ids), k), -torch.inf)
        threads = torch.get_num_threads()
        even = max(1, min(_USERS_AT_ONCE, -(-len(input_ids) // threads)))

        def fill(part: slice) -> None:
            items[part], scores[part] = self._best(heard.part(part), k)

        parts = [slice(begin, begin + even) for begin in range(0, len(input_ids), even)]
        in_threads(fill, parts, threads)
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
        """What is said of all items to each user, a few users at a time."""
        heard = self._hear(input_ids, attention_mask, k, beam, allowed, exclude)
        count = self._trie.item_count
        step = max(1, _SCORES_AT_ONCE // count)
        for begin in range(0, len(input_ids), step):
            users = slice(begin, begin + step)
            part = heard.part(users)
            near = None
            if self._table is not None and part.states is not None:
                near = self._table.scores(part.states)
            counted, alike = self.remembered(part.input_ids, part.attention_mask, self.mixing.decay)
            shape = (len(part.excluded), count)
            usable = torch.ones(shape, dtype=torch.bool)
            if part.allowed is not None:
                usable &= part.allowed.mask
            row, place = (part.excluded != NO_ITEM).nonzero(as_tuple=True)
            usable[row, part.excluded[row, place]] = False
            yield Voices(users, _spread(part.hits, shape), near, counted, alike, usable)

    def remembered(
        self, input_ids: Tensor, attention_mask: Tensor, decay: float
    ) -> tuple[Tensor | None, Tensor | None]:
        """Sums of similarities of all items to some histories: by who took them, and by text."""
        counted, alike = (
            None if memory is None else memory.weigh(input_ids, attention_mask, decay)
            for memory in (self.companions, self.contents)
        )
        return counted, alike

    def _hear(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        k: int,
        beam: int,
        allowed: AllowedItems | Tensor | None,
        exclude: Tensor | Sequence[Sequence[int]] | None,
    ) -> _Heard:
        """Beam search, and what the network made of each history on the way."""
        if isinstance(allowed, Tensor):
            allowed = AllowedItems(self._trie, allowed)
        users, states = len(input_ids), None
        if self._table is not None:
            states = torch.zeros(users, self._table.vectors.shape[1])

        def note(chunk: Tensor, state: CausalState) -> None:
            if states is not None:
                states[chunk] = state.states.float()

        hits = self._search.search(
            input_ids,
            attention_mask,
            k=max(k, beam),
            beam=beam,
            allowed=allowed,
            exclude=exclude,
            heard=note,
        )
        if exclude is None:
            exclude = torch.zeros(users, 0, dtype=torch.int64)
        excluded = exclude if isinstance(exclude, Tensor) else padded_rows(exclude)
        return _Heard(hits, states, input_ids, attention_mask, allowed, excluded.long())

    def _best(self, heard: _Heard, k: int) -> Hits:
        """The k best items of some users."""
        users, count = len(heard.excluded), self._trie.item_count
        changes = self._changes(heard)
        memories = [
            (weight, self._named(memory, heard, changes))
            for weight, memory in (
                (self.mixing.companions, self.companions),
                (self.mixing.contents, self.contents),
            )
            if memory is not None
        ]
        if self._table is None:
            asked = None
            likely, total = self._without_vectors(heard, changes, k)
        else:
            assert heard.states is not None
            weight = self.mixing.vectors / (1 + self.mixing.vectors)
            asked = self._table.asked(heard.states) * weight  # (B, M)
            likely, total = self._by_vectors(asked, heard.allowed, changes, k)
        keys = torch.unique(torch.cat([likely, *(named.keys for _, named in memories)]))
        user, item = keys // count, keys % count
        total = total.where(total.isfinite(), 0.0)  # of somebody who has no item left
        network = changes.at(keys) - total[user]
        if asked is not None and self._table is not None:
            network += self._table.of_pairs(asked, user, item)
        if heard.allowed is not None:
            network.masked_fill_(~heard.allowed.has(item), -torch.inf)
        # Every user's candidates in a row of their own, in the order of the items.
        of_each = torch.bincount(user, minlength=users)
        place = torch.arange(len(keys)) - (of_each.cumsum(0) - of_each)[user]
        shape = (users, max(int(of_each.max()), 1) if users else 1)
        items = torch.full(shape, NO_ITEM).index_put((user, place), item)
        scores = torch.full(shape, -torch.inf).index_put((user, place), network)
        shares = (
            (weight, torch.zeros(shape).index_put((user, place), named.at(keys)))
            for weight, named in memories
        )
        return _top(items, with_memories(scores, shares), k)

    def _changes(self, heard: _Heard) -> _Sparse:
        """What hits and excluded items have beside the score of their vectors.

        Everything is relative to an item that is no hit, as the same sum for all is lost anyway.
        """
        scale = 1 / (1 + (0.0 if self._table is None else self.mixing.vectors))
        items, scores = heard.hits
        found = items != NO_ITEM  # (B, W)
        least = scores.masked_fill(~found, torch.inf).amin(dim=1, keepdim=True)  # (B, 1)
        first = torch.arange(len(items))[:, None] * self._trie.item_count
        out = heard.excluded != NO_ITEM  # (B, E)
        keys = torch.cat([(first + items)[found], (first + heard.excluded)[out]])
        minus = torch.full((int(out.sum()),), -torch.inf)
        return _Sparse.sums(keys, torch.cat([((scores - least) * scale)[found], minus]))

    def _named(self, memory: CatalogCompanions, heard: _Heard, changes: _Sparse) -> _Sparse:
        """Shares of the usable items that a memory names, which add up to 1 for each user."""
        count = self._trie.item_count
        named = memory.named(heard.input_ids, heard.attention_mask, self.mixing.decay)
        first = torch.arange(len(named.items))[:, None] * count
        used = (named.items < count) & (named.similar > 0)
        sums = _Sparse.sums((first + named.items)[used], named.similar[used])
        kept = changes.at(sums.keys) > -torch.inf
        if heard.allowed is not None:
            kept &= heard.allowed.has(sums.keys % count)
        keys, values = sums.keys[kept], sums.values[kept]
        whole = torch.zeros(len(named.items)).index_add_(0, keys // count, values)
        return _Sparse(keys, values / whole.clamp(min=1e-12)[keys // count])

    def _by_vectors(
        self, asked: Tensor, allowed: AllowedItems | None, changes: _Sparse, k: int
    ) -> tuple[Tensor, Tensor]:
        """Keys of items among which are the k best of each user by codes and vectors, and the
        logarithm of the sum over all usable items, (B,)."""
        assert self._table is not None
        count = self._trie.item_count
        panels = self._table.panels(asked, None if allowed is None else allowed.words)
        size = panels.largest.shape[1]  # P
        # Panels with excluded items are computed again, without them.
        lost = changes.keys[changes.values == -torch.inf]
        again, row = torch.unique(lost // count * size + lost % count // PANEL, return_inverse=True)
        if len(again):
            of, panel = again // size, again % size
            members = panel[:, None] * PANEL + torch.arange(PANEL)  # (panels, 64)
            missing = members >= count
            missing[row, lost % count % PANEL] = True
            members = members.clamp(max=count - 1)
            if allowed is not None:
                missing |= ~allowed.has(members)
            scores = self._table.of_pairs(asked, of, members).masked_fill_(missing, -torch.inf)
            for into, values in zip(panels, Panels.of(scores), strict=True):
                into[of, panel] = values
        total = (panels.largest + panels.sums.log()).logsumexp(dim=1)  # (B,), without codes
        hits = changes.keys[changes.values > -torch.inf]
        of, plain = hits // count, self._table.of_pairs(asked, hits // count, hits % count)
        raised = plain + changes.at(hits)
        largest = total.clamp(min=NOTHING).scatter_reduce(0, of, raised, "amax")
        more = (raised - largest[of]).exp() - (plain - largest[of]).exp()
        total = largest + (total - largest).exp().index_add(0, of, more).log()
        best = panels.largest.topk(min(k, size), dim=1).indices  # (B, k)
        items = (best[:, :, None] * PANEL + torch.arange(PANEL)).flatten(1)  # (B, k × 64)
        keys = torch.arange(len(items))[:, None] * count + items
        return torch.cat([keys[items < count], hits]), total

    def _without_vectors(self, heard: _Heard, changes: _Sparse, k: int) -> tuple[Tensor, Tensor]:
        """The same where codes speak alone: hits, and of all others, which are equal, the first."""
        count, users = self._trie.item_count, len(heard.excluded)
        allowed = heard.allowed
        left = torch.full((users,), count if allowed is None else allowed.total)
        left = left - Exclusions.build(self._trie, heard.excluded, allowed).counts
        hits = changes.values > -torch.inf
        of = changes.keys[hits] // count
        among = torch.zeros(users).index_add_(0, of, changes.values[hits].exp())
        total = (among + left - torch.bincount(of, minlength=users)).log()
        enough = k + heard.hits.items.shape[1] + heard.excluded.shape[1]
        first = torch.arange(min(count, enough))
        if allowed is not None:
            first = allowed.mask.nonzero().squeeze(1)[:enough]
        keys = torch.arange(users)[:, None] * count + first
        return torch.cat([keys.flatten(), changes.keys]), total


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
    return MixedSearch(search, trie, table, companions, contents, mixing)


def _top(items: Tensor, scores: Tensor, k: int) -> Hits:
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


def _spread(hits: Hits, shape: tuple[int, int]) -> Tensor:
    """Scores of all items, the least one of the hits where there is no hit: (b, N)."""
    missing = hits.items == NO_ITEM  # (b, W)
    least = hits.scores.masked_fill(missing, torch.inf).amin(dim=1, keepdim=True)  # (b, 1)
    least = least.masked_fill(least == torch.inf, 0.0)
    out = least.expand(shape).clone()
    row, place = (~missing).nonzero(as_tuple=True)
    out[row, hits.items[row, place]] = hits.scores[row, place]
    return out
