"""Written, near, counted, alike: four voices about every item of a catalogue, as one score.

Beam search says how likely the codes of items are; an item that no beam ended in counts as the
least likely one that did. Item vectors say how near each item is to what a history asks for.
Companions say what people took who took the history's items, contents which items say the same as
these. `recommender/mixing.py` has the formula; a score is the log-probability of an item among
those that may be recommended. A ranker (`recommender/ranker.py`), where there is one, puts the best
of them in order.

Only items that some voice names can be among the best: those of the panels with the highest scores
of vectors (`item_table.py`), hits, and what the memories name. Of all others nothing but a sum is
needed.

Shapes: B users · W hits · E excluded items · C candidates (padded) · R of them that are ranked ·
N items · P panels · M width.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.decoding.beam import BeamSearch, Hits
from utgrec.decoding.causal import CausalState, LeanCausal
from utgrec.decoding.filters import NO_ITEM, AllowedItems, padded_rows
from utgrec.decoding.item_table import ItemTable
from utgrec.decoding.likely import Heard, by_codes, by_vectors
from utgrec.decoding.parallel import in_threads
from utgrec.decoding.sparse import Remembered, Sparse, best_hits, best_places
from utgrec.decoding.trie import CodeTrie
from utgrec.decoding.voices import Voices, with_memories
from utgrec.recommender.causal import CausalRecommender
from utgrec.recommender.companions import CatalogCompanions
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.mixing import Mixing
from utgrec.recommender.ranker import MEMORIES, Ranker, Signs
from utgrec.recommender.vocabulary import Vocabulary

_USERS_AT_ONCE = 128  # read the table together; 16 MB of panels for a million items
# Scores of users × items that `voices` holds at a time: 16 MB per voice.
_SCORES_AT_ONCE = 2**22


class _Candidates(NamedTuple):
    """Items among which are the best of each user, in the order of the items."""

    items: Tensor  # (B, C), NO_ITEM where there are fewer
    scores: Tensor  # (B, C), log-probabilities by the mixture, -inf where there is none
    network: Tensor  # (B, C), log-shares by what was trained
    changes: Sparse
    memories: list[Remembered | None]  # companions, contents


class Ranked(NamedTuple):
    """The best items of some users by the mixture, and what is known of them."""

    users: slice
    items: Tensor  # (b, R), the best first, NO_ITEM where there are fewer
    signs: Signs  # of (b, R)


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
        ranker: Ranker | None = None,
        taken: Tensor | None = None,
    ) -> None:
        """`taken`: how often each item was taken in training, (N,), which a ranker asks for."""
        self._search, self._trie = search, trie
        self._table, self.mixing, self.ranker = table, mixing, ranker
        self._taken = torch.zeros(trie.item_count) if taken is None else taken
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
    ) -> Heard:
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
        return Heard(hits, states, input_ids, attention_mask, allowed, excluded.long())

    @torch.inference_mode()
    def candidates(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        count: int,
        *,
        beam: int,
        exclude: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Ranked]:
        """The `count` best items of each user by the mixture, some users at a time."""
        heard = self._hear(input_ids, attention_mask, 1, beam, None, exclude)
        for begin in range(0, len(input_ids), _USERS_AT_ONCE):
            users = slice(begin, begin + _USERS_AT_ONCE)
            part = heard.part(users)
            found = self._weighed(part, count)
            best = best_places(found.scores, count)
            missing = found.scores.gather(1, best) == -torch.inf
            items = found.items.gather(1, best).masked_fill(missing, NO_ITEM)
            yield Ranked(users, items, self._signs(part, found, best))

    def _best(self, heard: Heard, k: int) -> Hits:
        """The k best items of some users."""
        if self.ranker is None:
            found = self._weighed(heard, k)
            return best_hits(found.items, found.scores, k)
        # Those that are ranked share their probability anew, and of all others the k best are left.
        found = self._weighed(heard, k + self.ranker.candidates)
        best = best_places(found.scores, self.ranker.candidates)
        together = found.scores.gather(1, best).logsumexp(dim=1, keepdim=True)
        ranked = together + self.ranker.shares(self._signs(heard, found, best))
        return best_hits(found.items, found.scores.scatter(1, best, ranked), k)

    def _weighed(self, heard: Heard, k: int) -> _Candidates:
        """Items among which are the k best of some users by the mixture."""
        users, count = len(heard.excluded), self._trie.item_count
        changes = self._changes(heard)
        decay = self.mixing.decay
        weights = (self.mixing.companions, self.mixing.contents)
        memories = [
            None if memory is None else self._named(memory, heard, changes, decay)
            for memory in (self.companions, self.contents)
        ]
        if self._table is None:
            asked = None
            likely, total = by_codes(self._trie, heard, changes, k)
        else:
            assert heard.states is not None
            weight = self.mixing.vectors / (1 + self.mixing.vectors)
            asked = self._table.asked(heard.states) * weight  # (B, M)
            likely, total = by_vectors(self._table, asked, heard, changes, k)
        named = [memory.sums.keys for memory in memories if memory is not None]
        keys = torch.unique(torch.cat([likely, *named]))
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
        trained = torch.full(shape, -torch.inf).index_put((user, place), network)
        shares = (
            (weight, torch.zeros(shape).index_put((user, place), memory.shares(keys, user)))
            for weight, memory in zip(weights, memories, strict=True)
            if memory is not None
        )
        return _Candidates(items, with_memories(trained, shares), trained, changes, memories)

    def _signs(self, heard: Heard, found: _Candidates, best: Tensor) -> Signs:
        """What is known of some candidates. Shapes: best (B, R), places among them."""
        items = found.items.gather(1, best)  # (B, R)
        keys = torch.arange(len(items))[:, None] * self._trie.item_count + items.clamp(min=0)
        sums, totals = [], []
        for memory, whole in zip((self.companions, self.contents), found.memories, strict=True):
            newest = None
            if memory is not None:
                newest = self._named(memory, heard, found.changes, decay=0.0)
            for one in (whole, newest):
                sums.append(torch.zeros(keys.shape) if one is None else one.sums.at(keys))
                totals.append(torch.zeros(len(keys)) if one is None else one.totals)
        assert len(sums) == MEMORIES
        scale = 1 + (0.0 if self._table is None else self.mixing.vectors)
        return Signs(
            found.scores.gather(1, best),
            found.network.gather(1, best),
            found.changes.at(keys) * scale,
            sums,
            totals,
            self._taken[items.clamp(min=0)],
            (heard.attention_mask.sum(dim=1) - 2) // self._trie.code_length,
        )

    def _changes(self, heard: Heard) -> Sparse:
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
        return Sparse.sums(keys, torch.cat([((scores - least) * scale)[found], minus]))

    def _named(
        self, memory: CatalogCompanions, heard: Heard, changes: Sparse, decay: float
    ) -> Remembered:
        """What a memory says of the usable items."""
        count = self._trie.item_count
        named = memory.named(heard.input_ids, heard.attention_mask, decay)
        first = torch.arange(len(named.items))[:, None] * count
        used = (named.items < count) & (named.similar > 0)
        sums = Sparse.sums((first + named.items)[used], named.similar[used])
        kept = changes.at(sums.keys) > -torch.inf
        if heard.allowed is not None:
            kept &= heard.allowed.has(sums.keys % count)
        keys, values = sums.keys[kept], sums.values[kept]
        totals = torch.zeros(len(named.items)).index_add_(0, keys // count, values)
        return Remembered(Sparse(keys, values), totals)


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
    ranker: Ranker | None = None,
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
    taken = None
    if ranker is not None:
        taken = ranker.taken_of(catalog_keys(vocabulary, domain, codes))
    return MixedSearch(search, trie, table, companions, contents, mixing, ranker, taken)


def _spread(hits: Hits, shape: tuple[int, int]) -> Tensor:
    """Scores of all items, the least one of the hits where there is no hit: (b, N)."""
    missing = hits.items == NO_ITEM  # (b, W)
    least = hits.scores.masked_fill(missing, torch.inf).amin(dim=1, keepdim=True)  # (b, 1)
    least = least.masked_fill(least == torch.inf, 0.0)
    out = least.expand(shape).clone()
    row, place = (~missing).nonzero(as_tuple=True)
    out[row, hits.items[row, place]] = hits.scores[row, place]
    return out
