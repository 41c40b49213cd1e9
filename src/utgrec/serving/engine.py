"""Recommendations out of one generation of a catalogue, which can be exchanged while it serves.

A `Shelf` is everything made from one generation: catalogue, trie, searches. The engine holds one at
a time. A request takes it once and keeps it to its end, so no request sees two generations, and
exchanging it is one assignment.

Shapes: N items of a generation, live or not · L codes per item.
"""

import dataclasses
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch

from utgrec.config import require
from utgrec.decoding import (
    AllowedItems,
    BeamModel,
    CodeTrie,
    ItemSet,
    make_beam_model,
    make_search,
    read_new_words,
)
from utgrec.errors import FieldError, InputError, SettingsMismatch, UnknownItem, named
from utgrec.evaluation.generative import DecodingConfig
from utgrec.evaluation.ranking import read_ranker
from utgrec.recommender.attention import item_attention
from utgrec.recommender.companions import CatalogCompanions
from utgrec.recommender.histories import HistoryEncoder
from utgrec.recommender.mixing import Mixing
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.ranker import Ranker
from utgrec.recommender.train import Memory, read_memory, read_recommender
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.runs import read_plan
from utgrec.serving.filters import AttributeIndex, Filters
from utgrec.serving.generations import Generation, GenerationStore
from utgrec.serving.shared import share_module, share_weights

log = logging.getLogger(__name__)
FILTERS_KEPT = 32  # sets of recent filters, about 0.7 MB each for a million items
MOST_REASONS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for one history."""

    history: tuple[str, ...]
    """Ids of items, oldest first."""
    k: int = 10
    """Items wanted."""
    beam: int | None = None
    """Beams kept while decoding; None for the run's own."""
    filters: Filters = dataclasses.field(default_factory=Filters)
    """Which items may be recommended."""
    exclude_seen: bool = True
    """Whether items of the history are left out."""
    unknown: Literal["error", "skip"] = "error"
    """What to do about ids that the catalogue has never had."""
    attention: bool = False
    """Whether to say, too, which items of the history the recommender attended to."""
    field: str = "history"
    """What errors call the history, if it is one of several."""

    def __post_init__(self) -> None:
        require(self.k >= 1, f"k must be at least 1, got {self.k}")
        require(self.beam is None or self.beam >= 1, f"beam must be at least 1, got {self.beam}")
        require(
            self.unknown in ("error", "skip"), f"unknown is error or skip, got {self.unknown!r}"
        )


class Reason(NamedTuple):
    """An item of the history that a recommended one is there for."""

    item: int  # index
    shared: int  # codes that both begin with
    attention: float | None = None  # share of attention on it among the history; None if not asked


class Found(NamedTuple):
    """One recommended item."""

    item: int  # index in the catalogue of the shelf
    score: float  # log-probability of the item
    why: tuple[Reason, ...]  # items of the history that are alike or attended to, most alike first


class Answer(NamedTuple):
    """What a request gets."""

    shelf: "Shelf"  # the generation that answered
    found: list[Found]  # best first
    unknown: list[str]  # ids that were skipped


class Recommender(NamedTuple):
    """What all generations have in common."""

    domain: str
    network: GenerativeRecommender
    lean: BeamModel[Any]  # the same weights, made for searching
    vocabulary: Vocabulary
    memory: Memory
    mixing: Mixing  # of the voices of network and memory
    ranker: Ranker | None  # puts the best of the mixture in order
    max_items: int  # newest items of a history that are read


class Shelf:
    """One generation, ready to recommend from."""

    def __init__(self, generation: Generation, recommender: "Recommender") -> None:
        vocabulary = recommender.vocabulary
        if generation.sizes != vocabulary.code_sizes:
            raise SettingsMismatch(
                f"generation {generation.number} has codes of sizes {generation.sizes}, the "
                f"recommender was trained on {vocabulary.code_sizes}; begin the generations anew "
                "from the codes of this run"
            )
        self.generation = generation
        self.catalog = generation.catalog
        self.codes = generation.rows.codes  # (N, L)
        self.live = generation.rows.live  # (N,)
        self.live_count = int(self.live.sum())
        pictures = self.catalog.table.column("image")
        self.pictured = np.array(pc.not_equal(pc.fill_null(pictures, ""), "").to_numpy())  # (N,)
        self.trie = CodeTrie.build(self.codes)
        self.index = AttributeIndex(self.catalog, self.trie)
        domain = recommender.domain
        self._encoder = HistoryEncoder(domain, self.codes, vocabulary, recommender.max_items)
        memory = recommender.memory
        contents = memory.contents.with_items(
            vocabulary, domain, self.codes, lambda item: self.catalog[item].text
        )
        if contents is not memory.contents:
            read_new_words(recommender.network, recommender.lean, contents, vocabulary, domain)
        self._search = make_search(
            recommender.network,
            recommender.lean,
            vocabulary,
            self.trie,
            domain,
            self.codes,
            recommender.mixing,
            CatalogCompanions(memory.companions, vocabulary, domain, self.codes),
            CatalogCompanions(contents.alike, vocabulary, domain, self.codes),
            recommender.ranker,
        )
        self._live = ItemSet.of(self.trie, self.live)
        self._allowed: OrderedDict[Any, AllowedItems | None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """Number of the generation."""
        return self.generation.number

    def search(
        self, prepared: Sequence["_Prepared"], k: int, beam: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Items and scores of requests with the same filter, (requests, k) twice."""
        tokens, mask = self._encoder.encode([one.history for one in prepared])
        skipped = [one.skipped.tolist() for one in prepared]
        hits = self._search.search(
            tokens,
            mask,
            k=k,
            beam=beam,
            allowed=prepared[0].allowed,
            exclude=skipped if any(skipped) else None,
        )
        return hits.items.numpy(), hits.scores.numpy()

    def prepare(self, request: Request) -> "_Prepared":
        """Look everything up that a request names.

        Raises:
            UnknownItem: ids that the catalogue has never had, unless the request skips them.
            InputError: a filter that does not fit the catalogue.
        """
        filters = request.filters
        history = self.index.find(request.history)
        deny = self.index.find(filters.deny)
        allow = None if filters.allow is None else self.index.find(filters.allow)
        unknown = [*history.unknown, *deny.unknown, *([] if allow is None else allow.unknown)]
        if unknown and request.unknown == "error":
            raise UnknownItem(
                f"not in this catalogue: {named(unknown)}; correct the ids, or ask to skip what "
                "is unknown"
            ).about(
                FieldError.of(f"{field}.{given.index(one)}", one, "is in the catalogue")
                for field, given, found in (
                    (request.field, request.history, history.unknown),
                    ("filters.allow", filters.allow or (), [] if allow is None else allow.unknown),
                    ("filters.deny", filters.deny, deny.unknown),
                )
                for one in dict.fromkeys(found)
            )
        seen = history.places if request.exclude_seen else np.zeros(0, dtype=np.int64)
        return _Prepared(
            request,
            history.places,
            np.concatenate([seen, deny.places]),
            self._mask(filters, None if allow is None else allow.places),
            list(dict.fromkeys(unknown)),
        )

    def why(
        self,
        item: int,
        history: npt.NDArray[np.int64],
        attention: Mapping[int, float] | None = None,
    ) -> tuple[Reason, ...]:
        """Why an item may be there: at most `MOST_REASONS` items of a history that begin with the
        same codes, newest first if equal; then, with `attention`, those that hold most of it.

        `attention`: item of the history → share of attention on it.
        """
        newest = np.array(list(dict.fromkeys(history[::-1].tolist())), dtype=np.int64)
        same = self.codes[newest] == self.codes[item]  # (distinct items of the history, L)
        shared = np.cumprod(same, axis=1).sum(axis=1)
        order = np.argsort(-shared, kind="stable")
        rows = [int(row) for row in order if shared[row]][:MOST_REASONS]
        share = np.zeros(len(newest))
        if attention is not None:
            share[:] = [attention.get(one, 0.0) for one in newest.tolist()]
            most = [int(row) for row in np.argsort(-share, kind="stable")[:MOST_REASONS]]
            rows = list(dict.fromkeys([*rows, *(row for row in most if share[row] > 0)]))
        return tuple(
            Reason(
                int(newest[row]),
                int(shared[row]),
                None if attention is None else float(share[row]),
            )
            for row in rows
        )

    def attention(
        self, network: GenerativeRecommender, found: Sequence[int], history: npt.NDArray[np.int64]
    ) -> list[dict[int, float]]:
        """For each recommended item: item of the history → share of the network's attention."""
        tokens, mask = self._encoder.encode([history])
        written = torch.from_numpy(self._encoder.item_tokens[np.array(found, dtype=np.int64)])
        shares = item_attention(network, tokens, mask, written).tolist()  # (K, T)
        read = history[-self._encoder.max_items :].tolist()
        sums: list[dict[int, float]] = [{} for _ in found]
        for row, into in zip(shares, sums, strict=True):
            for one, share in zip(read, row, strict=True):
                into[one] = into.get(one, 0.0) + share  # an item may be in a history twice
        return sums

    def _mask(self, filters: Filters, allow: npt.NDArray[np.int64] | None) -> AllowedItems | None:
        """Live items that meet the filters; None if that is all of them."""
        # As text, since True, 1 and 1.0 are equal in Python and different values in a filter.
        where = tuple((name, condition.shown) for name, condition in filters.where)
        key = (where, None if allow is None else allow.tobytes())
        with self._lock:
            if key in self._allowed:
                self._allowed.move_to_end(key)
                return self._allowed[key]
        chosen, met = self._live, self.index.matching(filters.where)
        if met is not None:
            chosen = chosen & met
        if allow is not None:
            chosen = chosen & ItemSet.of_items(self.trie, allow)
        made = None if len(chosen) == chosen.size else AllowedItems(self.trie, chosen)
        with self._lock:
            self._allowed[key] = made
            while len(self._allowed) > FILTERS_KEPT:
                self._allowed.popitem(last=False)
        return made


class _Prepared(NamedTuple):
    """A request in terms of one shelf."""

    request: Request
    history: npt.NDArray[np.int64]  # item indices, oldest first
    skipped: npt.NDArray[np.int64]  # item indices not to return
    allowed: AllowedItems | None
    unknown: list[str]


class Engine:
    """The recommender of one domain of a run, over the generation that serves."""

    def __init__(
        self, store: GenerationStore, weights: Path | None = None, generation: int | None = None
    ) -> None:
        """Open the recommender and a generation, by default the one that serves.

        `weights` is a folder that several processes use, to hold the weights in memory once.

        Raises:
            MissingStage, CorruptFile, SettingsMismatch: the run cannot be used.
        """
        plan = read_plan(store.run)
        network, vocabulary, config = read_recommender(store.run.recommender)
        memory = read_memory(store.run.recommender)
        self.decoding: DecodingConfig = plan.recipe.decoding
        lean: BeamModel[Any] = make_beam_model(network, vocabulary.code_length, self.decoding.dtype)
        if weights is not None:
            share_weights(lean, weights)
            share_module(network, weights)
        self._recommender = Recommender(
            store.domain,
            network,
            lean,
            vocabulary,
            memory,
            self.decoding.mixing or memory.mixing_of(store.domain),
            None if self.decoding.mixing else read_ranker(store.run.ranker, store.domain),
            config.max_items,
        )
        self.store = store
        self.shelf = self._shelf(store.open(generation))

    def refresh(self) -> bool:
        """Serve the store's current generation, if it is another one; whether it was.

        Requests under way are answered from the one they began with. If the new one cannot be
        used, the error is raised and the old one goes on serving.
        """
        number = self.store.current
        if number == self.shelf.number:
            return False
        self.shelf = self._shelf(self.store.open(number))
        log.info("generation %d of %s serves now", number, self.store.domain)
        return True

    def recommend(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """Answer several requests together; each gets its answer or its own error."""
        shelf = self.shelf
        answers: list[Answer | Exception | None] = [None] * len(requests)
        groups: dict[Any, list[int]] = {}
        prepared: dict[int, _Prepared] = {}
        for place, request in enumerate(requests):
            try:
                one = shelf.prepare(request)
            except InputError as error:
                answers[place] = error
                continue
            prepared[place] = one
            # Only equal searches go together, so that company never changes an answer.
            groups.setdefault((id(one.allowed), request.k, request.beam), []).append(place)
        for (_, k, beam), places in groups.items():
            members = [prepared[place] for place in places]
            try:
                width = max(beam or self.decoding.beam, k)
                items, scores = shelf.search(members, k, width)
            except Exception as error:  # one bad search must not take the others along
                log.exception("a search failed")
                for place in places:
                    answers[place] = RuntimeError(f"the search failed: {error}")
                continue
            for row, place in enumerate(places):
                answers[place] = self._answer(shelf, prepared[place], items[row], scores[row])
        return [answer for answer in answers if answer is not None]

    def _shelf(self, generation: Generation) -> Shelf:
        return Shelf(generation, self._recommender)

    def _answer(
        self,
        shelf: Shelf,
        prepared: _Prepared,
        items: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
    ) -> Answer:
        places, history = [int(item) for item in items if item >= 0], prepared.history
        attention: Sequence[Mapping[int, float] | None] = [None] * len(places)
        if prepared.request.attention:
            attention = shelf.attention(self._recommender.network, places, history)
        found = [
            Found(item, float(score), shelf.why(item, history, share))
            for item, score, share in zip(places, scores[: len(places)], attention, strict=True)
        ]
        return Answer(shelf, found, prepared.unknown)
