"""Give every item of a catalogue a code tuple of its own.

Items whose nearest codes agree up to the last position compete for the last code: they get the
assignment with the smallest total squared distance over the whole leaf codebook. Where a prefix has
more items than leaves, those that fit worst go on to their next nearest prefix. Nothing depends on
the order of the items: ties are settled by item id.

Shapes: N items · L codes per item · D code dimension · K entries of the last codebook.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from utgrec.errors import InputError
from utgrec.tokenizer.quantizer import TreeQuantizer, squared_distances

Codes = npt.NDArray[np.int16]
CHUNK = 1024  # items whose distances to all codes stay in the processor's cache
PORTION = 4096  # items under crowded prefixes that are settled together


class Assignment(NamedTuple):
    """Codes of N items, in the order of the items."""

    codes: Codes  # (N, L), all rows different
    nearest: Codes  # (N, L), before repair
    conflict: npt.NDArray[np.bool_]  # (N,), whether repair moved the item
    distance: npt.NDArray[np.float32]  # (N,), squared distances of its states to those rebuilt


def assign_codes(
    states: Tensor,
    item_ids: Sequence[str],
    quantizer: TreeQuantizer,
    published: Codes | None = None,
) -> Assignment:
    """Unique codes for N items.

    Args:
        states: (N, L, D), float32.
        item_ids: N distinct ids; they only settle ties.
        published: (M, L), codes already given away; they stay where they are.

    Raises:
        InputError: there are more items than codes.
    """
    sizes = (quantizer.config.root_size, *[quantizer.config.leaf_size] * (states.shape[1] - 1))
    taken_count = 0 if published is None else len(published)
    if len(states) + taken_count > np.prod(sizes, dtype=object):
        raise InputError(
            f"{len(states) + taken_count} items do not fit into codes of sizes {sizes}; "
            "train a tokenizer with larger codebooks or longer codes"
        )
    order = np.argsort(np.array(item_ids, dtype=object), kind="stable")
    ordered = states.float()[torch.from_numpy(order)]  # (N, L, D)
    with torch.no_grad():
        books = [quantizer.root.vectors.float()] + [quantizer.leaf.vectors.float()] * (
            states.shape[1] - 1
        )
        nearest = np.concatenate(
            [quantizer.nearest(part).numpy() for part in torch.split(ordered, CHUNK)]
            or [np.zeros((0, len(books)), np.int64)]
        )
        codes = _Repair(ordered, books, nearest, published).run()
        distance = code_distances(ordered, torch.from_numpy(codes), quantizer).numpy()
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Assignment(
        codes=codes[back].astype(np.int16),
        nearest=nearest[back].astype(np.int16),
        conflict=(codes != nearest).any(axis=1)[back],
        distance=distance[back].astype(np.float32),
    )


def code_distances(states: Tensor, codes: Tensor, quantizer: TreeQuantizer) -> Tensor:
    """Squared distances of states to those that codes rebuild. (N, L, D), (N, L) → (N,)"""
    found = [states.new_zeros(0, dtype=torch.float32)]
    for some, theirs in zip(torch.split(states, PORTION), torch.split(codes, PORTION), strict=True):
        rebuilt = quantizer.embed(theirs.long()).float().cumsum(dim=1)  # (n, L, D)
        found.append((some.float() - rebuilt).square().sum(dim=(1, 2)))
    return torch.cat(found)


class _Published:
    """Which leaves are given away already, looked up by prefix.

    Sorted once instead of kept in a dict: a live catalogue of a million items takes a handful of
    new ones in a second.
    """

    def __init__(self, codes: Codes | None, sizes: Sequence[int]) -> None:
        """`codes` (M, L) are those given away, `sizes` (L,) those of the codebooks."""
        self._sizes = sizes
        table = np.zeros((0, len(sizes)), np.int64) if codes is None else codes.astype(np.int64)
        keys = self.keys(table[:, :-1])  # (M,)
        order = np.argsort(keys, kind="stable")
        self._keys_in_order = keys[order]
        self._leaves = table[order, -1]

    def leaves(self, prefix: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """The leaves given away under a prefix."""
        if not len(self._leaves):
            return np.zeros(0, np.int64)
        key = self.keys(np.array([prefix], dtype=np.int64))
        first = np.searchsorted(self._keys_in_order, key, side="left")[0]
        last = np.searchsorted(self._keys_in_order, key, side="right")[0]
        leaves: npt.NDArray[np.int64] = self._leaves[first:last]
        return leaves

    def wanted(self, keys: npt.NDArray[Any], size: int) -> npt.NDArray[np.int64]:
        """Place of the prefix in sorted `keys` times `size` plus leaf, of all under these keys."""
        if not len(keys):
            return np.zeros(0, np.int64)
        place = np.searchsorted(keys, self._keys_in_order).clip(max=len(keys) - 1)
        known = keys[place] == self._keys_in_order
        found: npt.NDArray[np.int64] = (place * size + self._leaves)[known]
        return found

    def keys(self, prefixes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """One number per prefix; of any size, since long codes do not fit into 64 bits."""
        sizes = self._sizes[:-1]
        fits = bool(np.prod(sizes, dtype=object) < 2**63)
        keys = np.zeros(len(prefixes), dtype=np.int64 if fits else object)
        for column, size in zip(prefixes.T, sizes, strict=True):
            keys = keys * size + (column if fits else column.astype(object))
        return keys


class _Repair:
    """Moves items until no two share a code tuple. Items are in a canonical order here.

    Whether anybody has to move is found out for all prefixes at once, by sorting, and distances are
    computed for many prefixes together: a million items in seconds.
    """

    def __init__(
        self,
        states: Tensor,
        books: list[Tensor],
        nearest: npt.NDArray[np.int64],
        published: Codes | None,
    ) -> None:
        self.states = states  # (N, L, D)
        self.books = books
        self.nearest = nearest  # (N, L)
        self.published = _Published(published, [len(book) for book in books])
        self.alternatives: dict[int, Iterator[tuple[int, ...]]] = {}
        # Items by prefix: those of group g are order[starts[g] : starts[g + 1]], in their order.
        keys = self.published.keys(nearest[:, :-1])
        self.order = np.argsort(keys, kind="stable")
        self.keys, self.starts = np.unique(keys[self.order], return_index=True)
        self.starts = np.append(self.starts, len(keys))
        self.group = np.searchsorted(self.keys, keys)  # (N,)
        self.members: dict[tuple[int, ...], list[int]] = {}  # of prefixes where anybody moved

    def run(self) -> npt.NDArray[np.int64]:
        """The repaired codes, (N, L)."""
        codes = self.nearest.copy()
        crowded = self._crowded()
        first = self.nearest[self.order[self.starts[crowded]], :-1]  # (crowded, L - 1)
        dirty = [tuple(prefix) for prefix in first.tolist()]
        for prefix, group in zip(dirty, crowded.tolist(), strict=True):
            self.members[prefix] = self._of_group(group)
        while dirty:
            homeless: list[int] = []
            for some in self._portions(dirty):
                homeless += self._settle(some, codes)
            touched = set()
            for item in sorted(homeless):
                prefix = self._next_prefix(item)
                self.members[prefix] = [*self._members(prefix), item]
                touched.add(prefix)
            dirty = sorted(touched)
        return codes

    def _crowded(self) -> npt.NDArray[np.int64]:
        """Prefixes under which two items want one leaf, or one that is given away. (groups,)"""
        size = len(self.books[-1])
        wanted = self.group * size + self.nearest[:, -1]  # (N,)
        _, first, times = np.unique(wanted, return_index=True, return_counts=True)
        shared = self.group[first[times > 1]]
        given = self.group[np.isin(wanted, self.published.wanted(self.keys, size))]
        return np.union1d(shared, given)

    def _of_group(self, group: int) -> list[int]:
        items: list[int] = self.order[self.starts[group] : self.starts[group + 1]].tolist()
        return items

    def _members(self, prefix: tuple[int, ...]) -> list[int]:
        """Items that are, or want to be, under a prefix."""
        if prefix not in self.members:
            key = self.published.keys(np.array([prefix], dtype=np.int64))[0]
            group = int(np.searchsorted(self.keys, key))
            there = group < len(self.keys) and self.keys[group] == key
            self.members[prefix] = self._of_group(group) if there else []
        return self.members[prefix]

    def _portions(self, dirty: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """Prefixes with a few thousand items together."""
        some: list[tuple[int, ...]] = []
        count = 0
        for prefix in dirty:
            some.append(prefix)
            count += len(self._members(prefix))
            if count >= PORTION:
                yield some
                some, count = [], 0
        if some:
            yield some

    def _settle(self, prefixes: list[tuple[int, ...]], codes: npt.NDArray[np.int64]) -> list[int]:
        """Write who stays under some prefixes, with which leaf; who has to go on."""
        everyone = [sorted(self._members(prefix)) for prefix in prefixes]
        counts = np.array([len(items) for items in everyone])
        vectors = np.array(prefixes, dtype=np.int64)  # (prefixes, L - 1)
        above = sum(
            book[torch.from_numpy(column)]
            for book, column in zip(self.books, vectors.T, strict=False)
        )  # (prefixes, D)
        assert isinstance(above, Tensor)
        rows = torch.from_numpy(np.concatenate(everyone))
        owner = torch.repeat_interleave(torch.arange(len(prefixes)), torch.from_numpy(counts))
        left_over = self.states[rows, -1] - above[owner]  # (n, D)
        cost = squared_distances(left_over, self.books[-1]).double().numpy()  # (n, K)
        leaves = np.arange(len(self.books[-1]))
        homeless: list[int] = []
        start = 0
        for prefix, items in zip(prefixes, everyone, strict=True):
            mine = cost[start : start + len(items)]
            start += len(items)
            given = self.published.leaves(prefix)
            free = np.setdiff1d(leaves, given) if len(given) else leaves
            chosen, columns = linear_sum_assignment(mine[:, free] if len(given) else mine)
            placed = [items[row] for row in chosen]
            codes[placed, :-1] = prefix
            codes[placed, -1] = free[columns]
            self.members[prefix] = placed
            if len(placed) < len(items):
                homeless += sorted(set(items) - set(placed))
        return homeless

    def _next_prefix(self, item: int) -> tuple[int, ...]:
        """An item's next prefix: the last code of the prefix goes first through its ranking."""
        if item not in self.alternatives:
            rankings, rebuilt = [], torch.zeros_like(self.states[item, 0])
            for level, book in enumerate(self.books[:-1]):
                distances = squared_distances(self.states[item, level] - rebuilt, book)
                rankings.append(distances.argsort(stable=True).tolist())
                rebuilt = rebuilt + book[rankings[-1][0]]
            # Rounding or a tie may rank another prefix first than the one found nearest.
            first = tuple(self.nearest[item, :-1].tolist())
            self.alternatives[item] = (other for other in product(*rankings) if other != first)
        return next(self.alternatives[item])
