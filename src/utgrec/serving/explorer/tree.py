"""The tree of codes as something to look at: how many items are where, and what they share.

Items sorted by their codes make every prefix one stretch, so a prefix is found by bisection and its
branches by where the next code changes; a million items need no index beyond that order.

Shapes: N items, live or not · L codes per item.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from utgrec.serving.engine import Shelf
from utgrec.serving.explorer.search import plain, split_words
from utgrec.serving.likeness import check_prefix

COVERS = 4  # items shown for a branch
LOOKED_AT = 48  # items of a branch whose words are counted
WORDS = 3  # words that describe a branch
SHORTEST_WORD = 3  # characters
# Words that say nothing about an item, however unevenly they are spread.
EMPTY_WORDS = frozenset(
    [
        "and",
        "any",
        "are",
        "but",
        "can",
        "for",
        "from",
        "has",
        "have",
        "into",
        "its",
        "not",
        "our",
        "own",
        "that",
        "the",
        "their",
        "them",
        "they",
        "this",
        "was",
        "were",
        "will",
        "with",
        "you",
        "your",
        "comes",
        "made",
        "shows",
    ]
)
MOST_DESCRIBED = 600  # branches with words and covers, the largest ones
SPREADS_KEPT = 256

Ints = npt.NDArray[np.int64]


class Branch(NamedTuple):
    """One child of a place."""

    code: int
    items: int  # live items below it
    moved: int  # of them, those whose nearest codes were taken
    words: list[str]  # what is said of its items more often than of its siblings'
    covers: list[int]  # its most typical live items, nearest to their codes; with picture first


class Step(NamedTuple):
    """One code on the way to a place."""

    code: int
    items: int
    words: list[str]


class Spread(NamedTuple):
    """One place of the tree, with all below it."""

    items: int  # live items below it
    moved: int
    trail: list[Step]  # the way here, from the root
    branches: list[Branch]  # with live items, in the order of their codes
    reserved: list[int]  # codes that only removed items have
    unused: list[int]  # codes that no item has ever had; at the root these are the dead ones
    covers: list[int]


class Atlas:
    """The tree of one generation."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._order: Ints = shelf.trie.order.numpy().astype(np.int64)  # (N,)
        self._columns = [np.ascontiguousarray(column) for column in shelf.codes[self._order].T]
        moved = shelf.generation.rows.conflict[self._order] & shelf.live[self._order]
        self._live = np.concatenate([[0], np.cumsum(shelf.live[self._order])])  # (N + 1,)
        self._moved = np.concatenate([[0], np.cumsum(moved)])  # (N + 1,)
        self._kept: OrderedDict[tuple[int, ...], Spread] = OrderedDict()
        self._lock = threading.Lock()

    def spread(self, prefix: Sequence[int]) -> Spread:
        """What is below the first codes of items; an empty prefix is the whole tree.

        Raises:
            InputError: a prefix that no item can have.
        """
        sizes, key = self._shelf.generation.sizes, tuple(prefix)
        check_prefix(key, sizes)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = self._make(key)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > SPREADS_KEPT:
                self._kept.popitem(last=False)
        return made

    def _make(self, prefix: tuple[int, ...]) -> Spread:
        first, last, trail = 0, len(self._order), []
        for depth, code in enumerate(prefix):
            column = self._columns[depth][first:last]
            above = self.spread(prefix[:depth])
            last = first + int(np.searchsorted(column, code, side="right"))
            first += int(np.searchsorted(column, code, side="left"))
            said = next((one.words for one in above.branches if one.code == code), [])
            trail.append(Step(code, int(self._live[last] - self._live[first]), said))
        items = int(self._live[last] - self._live[first])
        moved = int(self._moved[last] - self._moved[first])
        covers = self._typical(first, last)
        if len(prefix) == len(self._columns):
            return Spread(items, moved, trail, [], [], [], covers)
        column = self._columns[len(prefix)][first:last]
        inner = np.flatnonzero(column[1:] != column[:-1]) + 1
        begins: Ints = first + np.concatenate([[0], inner]) if last > first else np.zeros(0, int)
        ends = np.append(begins[1:], last)[: len(begins)]
        codes = self._columns[len(prefix)][begins]
        live = self._live[ends] - self._live[begins]
        unused = np.setdiff1d(np.arange(self._shelf.generation.sizes[len(prefix)]), codes)
        described = np.zeros(len(begins), dtype=np.bool_)
        described[np.argsort(-live, kind="stable")[:MOST_DESCRIBED]] = True
        words = self._words(begins, ends, described)
        branches = [
            Branch(
                int(codes[row]),
                int(live[row]),
                int(self._moved[ends[row]] - self._moved[begins[row]]),
                words[row],
                self._typical(int(begins[row]), int(ends[row])) if described[row] else [],
            )
            for row in np.flatnonzero(live)
        ]
        reserved = codes[live == 0].tolist()
        return Spread(items, moved, trail, branches, reserved, unused.tolist(), covers)

    def _sample(self, first: int, last: int) -> Ints:
        """Some live items of a stretch, evenly spread over it."""
        items = self._order[first:last]
        if len(items) > 4 * LOOKED_AT:  # many: thin out before looking at each
            items = items[:: len(items) // (4 * LOOKED_AT)]
        items = items[self._shelf.live[items]]
        return items[:: max(1, len(items) // LOOKED_AT)][:LOOKED_AT]

    def _typical(self, first: int, last: int) -> list[int]:
        items = self._sample(first, last)
        distance = self._shelf.generation.rows.distance[items]
        order = np.lexsort((distance, ~self._shelf.pictured[items]))[:COVERS]
        return [int(item) for item in items[order]]

    def _words(self, begins: Ints, ends: Ints, described: npt.NDArray[np.bool_]) -> list[list[str]]:
        """For each branch the words that set it apart from its siblings."""
        samples = [
            self._sample(int(first), int(last)) if wanted else np.zeros(0, int)
            for first, last, wanted in zip(begins, ends, described, strict=True)
        ]
        branch = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
        found: list[list[str]] = [[] for _ in samples]
        if not len(branch):
            return found
        texts = self._shelf.catalog.table.column("text").take(pa.array(np.concatenate(samples)))
        words, rows = split_words(plain(pa.array([text or "" for text in texts.to_pylist()])))
        coded = words.dictionary_encode()
        vocabulary = coded.dictionary.to_pylist()
        # A word counts once for each item that has it.
        pairs = np.unique(rows * len(vocabulary) + coded.indices.to_numpy())
        rows, word = pairs // max(len(vocabulary), 1), pairs % max(len(vocabulary), 1)
        items = np.bincount(branch, minlength=len(samples))
        cells, count = np.unique(branch[rows] * len(vocabulary) + word, return_counts=True)
        owner, word = cells // max(len(vocabulary), 1), cells % max(len(vocabulary), 1)
        overall = np.bincount(word, weights=count, minlength=len(vocabulary)) / len(branch)
        share = count / items[owner]
        # Words that most items have, such as articles, say little even where all have them.
        gain = share * np.log(share / overall[word]) * (1 - overall[word])
        usable = np.array(
            [
                len(one) >= SHORTEST_WORD and not one.isdigit() and one not in EMPTY_WORDS
                for one in vocabulary
            ],
            dtype=np.bool_,
        )
        # One item among siblings has words of its own for sure: they must be of two at least.
        good = usable[word] & (gain > 0) & ((count > 1) | (items[owner] == 1))
        for row in np.lexsort((word, -gain, owner)):
            if good[row] and len(found[owner[row]]) < WORDS:
                found[owner[row]].append(vocabulary[word[row]])
        return found
