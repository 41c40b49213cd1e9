"""Give every item of a catalogue a code tuple of its own.

Items whose nearest codes agree up to the last position compete for the last code: they get the
assignment with the smallest total squared distance over the whole leaf codebook. Where a prefix has
more items than leaves, those that fit worst go on to their next nearest prefix. Nothing depends on
the order of the items: ties are settled by item id.

Shapes: N items · L codes per item · D code dimension · K entries of the last codebook.
"""

from collections import defaultdict
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
CHUNK = 4096


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
    rebuilt = quantizer.embed(codes.long()).float().cumsum(dim=1)  # (N, L, D)
    return (states.float() - rebuilt).square().sum(dim=(1, 2))


class _Published:
    """Which leaves are given away already, looked up by prefix.

    Sorted once instead of kept in a dict: a live catalogue of a million items takes a handful of
    new ones in a second.
    """

    def __init__(self, codes: Codes | None, sizes: Sequence[int]) -> None:
        """`codes` (M, L) are those given away, `sizes` (L,) those of the codebooks."""
        self._sizes = sizes
        table = np.zeros((0, len(sizes)), np.int64) if codes is None else codes.astype(np.int64)
        keys = self._keys(table[:, :-1])  # (M,)
        order = np.argsort(keys, kind="stable")
        self._keys_in_order = keys[order]
        self._leaves = table[order, -1]

    def leaves(self, prefix: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """The leaves given away under a prefix."""
        key = self._keys(np.array([prefix], dtype=np.int64))
        first = np.searchsorted(self._keys_in_order, key, side="left")[0]
        last = np.searchsorted(self._keys_in_order, key, side="right")[0]
        leaves: npt.NDArray[np.int64] = self._leaves[first:last]
        return leaves

    def _keys(self, prefixes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """One number per prefix; of any size, since long codes do not fit into 64 bits."""
        sizes = self._sizes[:-1]
        fits = bool(np.prod(sizes, dtype=object) < 2**63)
        keys = np.zeros(len(prefixes), dtype=np.int64 if fits else object)
        for column, size in zip(prefixes.T, sizes, strict=True):
            keys = keys * size + (column if fits else column.astype(object))
        return keys


class _Repair:
    """Moves items until no two share a code tuple. Items are in a canonical order here."""

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

    def run(self) -> npt.NDArray[np.int64]:
        """The repaired codes, (N, L)."""
        codes = self.nearest.copy()
        members: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for item, row in enumerate(self.nearest[:, :-1].tolist()):
            members[tuple(row)].append(item)
        dirty = sorted(members)
        while dirty:
            homeless: list[int] = []
            for prefix in dirty:
                placed, leaves, left = self._settle(prefix, sorted(members[prefix]))
                codes[placed, :-1] = prefix
                codes[placed, -1] = leaves
                members[prefix] = placed
                homeless += left
            touched = set()
            for item in sorted(homeless):
                prefix = self._next_prefix(item)
                members[prefix].append(item)
                touched.add(prefix)
            dirty = sorted(touched)
        return codes

    def _settle(
        self, prefix: tuple[int, ...], items: list[int]
    ) -> tuple[list[int], list[int], list[int]]:
        """Who stays under a prefix, with which leaf, and who has to go on."""
        wanted = self.nearest[items, -1]
        at_home = (self.nearest[items, :-1] == np.array(prefix)).all()
        free = np.setdiff1d(np.arange(len(self.books[-1])), self.published.leaves(prefix))
        if at_home and len(np.unique(wanted)) == len(items) and np.isin(wanted, free).all():
            return items, wanted.tolist(), []
        above = sum(book[code] for book, code in zip(self.books, prefix, strict=False))  # (D,)
        left_over = self.states[items, -1] - above  # (n, D)
        cost = squared_distances(left_over, self.books[-1][free]).double().numpy()
        rows, columns = linear_sum_assignment(cost)
        placed = [items[row] for row in rows]
        left = sorted(set(items) - set(placed))
        return placed, free[columns].tolist(), left

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
