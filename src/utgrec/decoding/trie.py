"""The catalogue's codes as a trie in a few arrays, so that decoding can only reach real items.

Items are sorted by code, so every node of the trie, at every depth, covers one contiguous range of
sorted items, and the children of a node are neighbours in the next level. A level is three small
arrays; one million items of three codes take about 11 MB.

Shapes: N items · L codes per item · n nodes of a level · p nodes of the level above.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.errors import InputError


class Range(NamedTuple):
    """Neighbouring nodes, or sorted items: first … first + length - 1."""

    first: Tensor  # int64
    length: Tensor  # int64


class Level(NamedTuple):
    """All nodes of one depth, in code order.

    Where every node has exactly one node or item below it, the array that would only count
    0, 1, 2, … is None.
    """

    codes: Tensor  # (n,), int16 or int32, the code that leads to each node
    offsets: Tensor | None  # (p + 1,), int32, below parent i are the nodes offsets[i : i + 2]
    starts: Tensor | None  # (n + 1,), int32, below node i are the sorted items starts[i : i + 2]

    def children(self, parents: Tensor) -> Range:
        """The nodes of this level below nodes of the level above. Any shape, int64."""
        return _ranges(self.offsets, parents)

    def items(self, nodes: Tensor) -> Range:
        """The sorted items below nodes of this level. Any shape, int64."""
        return _ranges(self.starts, nodes)

    def node_of(self, positions: Tensor) -> Tensor:
        """The node above each sorted item; N (no item) gives n (no node). Any shape, int64."""
        if self.starts is None:
            return positions
        return torch.searchsorted(self.starts, positions.int(), right=True) - 1


class CodeTrie:
    """The code tuples of a catalogue. It is rebuilt from the codes, never saved."""

    def __init__(self, levels: tuple[Level, ...], order: Tensor, rank: Tensor) -> None:
        """Use `CodeTrie.build`."""
        self.levels = levels
        self.order = order  # (N,), int32, sorted position → item
        self.rank = rank  # (N,), int32, item → sorted position

    @classmethod
    def build(cls, codes: Tensor | npt.NDArray[np.integer[Any]]) -> "CodeTrie":
        """Build the trie of a catalogue. Item i is row i of `codes`.

        Shapes: codes (N, L), integers, each counted within its own codebook.

        Raises:
            InputError: no items, codes that are negative or too large, or two items with the same
                codes.
        """
        table = codes.cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
        _check(table)
        order = _sorted_order(table)  # (N,)
        narrow = table.astype(np.int16 if table.max() < 2**15 else np.int32, copy=False)

        levels: list[Level] = []
        differs = np.zeros(len(order) - 1, dtype=bool)  # whether a new node begins at i + 1
        above: Tensor | None = torch.tensor(
            [0, len(order)], dtype=torch.int32
        )  # starts of the root
        for column in narrow.T:
            column = column[order]
            differs |= column[1:] != column[:-1]
            firsts = np.concatenate([[0], np.flatnonzero(differs) + 1])  # (n,)
            if len(firsts) == len(order):
                level = Level(torch.from_numpy(column), above, None)
            else:
                starts = _as_int32(np.append(firsts, len(order)))
                # Where a parent's items begin is also where those of its first child begin.
                assert above is not None, "a level never has fewer nodes than the level above"
                offsets = torch.searchsorted(starts, above, out_int32=True)
                level = Level(torch.from_numpy(column[firsts]), offsets, starts)
            levels.append(level)
            above = level.starts
        if not differs.all():
            _refuse_duplicates(table, order, differs)
        rank = np.empty(len(order), dtype=np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return cls(tuple(levels), _as_int32(order), torch.from_numpy(rank))

    @property
    def item_count(self) -> int:
        """N, the number of items."""
        return len(self.order)

    @property
    def code_length(self) -> int:
        """L, the number of codes per item."""
        return len(self.levels)

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return self.order.device

    @functools.cached_property
    def starts(self) -> tuple[npt.NDArray[np.int32] | None, ...]:
        """Of each level where its nodes' items begin, and the end; None where a node is an item."""
        return tuple(
            None if level.starts is None else level.starts.cpu().numpy() for level in self.levels
        )

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, in bytes; an array that two levels share counts once."""
        return sum({array.data_ptr(): array.nbytes for array in self._arrays()}.values())

    @property
    def codes(self) -> Tensor:
        """The codes of every item, rebuilt from the trie: what `build` was given. (N, L), int64."""
        positions = self.rank.long()  # (N,)
        columns = [level.codes[level.node_of(positions)] for level in self.levels]
        return torch.stack(columns, dim=1).long()  # (N, L)

    def to(self, device: torch.device | str) -> "CodeTrie":
        """The same trie on another device."""
        moved = {array.data_ptr(): array.to(device) for array in self._arrays()}

        def move(array: Tensor | None) -> Tensor | None:
            return None if array is None else moved[array.data_ptr()]

        levels = tuple(
            Level(moved[level.codes.data_ptr()], move(level.offsets), move(level.starts))
            for level in self.levels
        )
        return CodeTrie(levels, moved[self.order.data_ptr()], moved[self.rank.data_ptr()])

    def _arrays(self) -> list[Tensor]:
        per_level = [array for level in self.levels for array in level if array is not None]
        return [self.order, self.rank, *per_level]


def look_up(values: Tensor, places: Tensor) -> Tensor:
    """`values[places]`, several times as fast. (n,), any shape, int64 → the same shape"""
    return values.index_select(0, places.flatten()).view(places.shape)


def _ranges(bounds: Tensor | None, rows: Tensor) -> Range:
    if bounds is None:
        return Range(rows, torch.ones_like(rows))
    first = look_up(bounds, rows).long()
    return Range(first, look_up(bounds, rows + 1).long() - first)


def _check(table: npt.NDArray[Any]) -> None:
    if table.ndim != 2 or 0 in table.shape or not np.issubdtype(table.dtype, np.integer):
        raise InputError(
            f"codes must be integers of shape (items, codes per item) with at least one of each, "
            f"got {table.dtype} of shape {table.shape}; pass the codes of the whole catalogue"
        )
    if table.min() < 0 or table.max() >= 2**31:
        raise InputError(
            f"codes must lie in 0 … {2**31 - 1}, got {table.min()} … {table.max()}; "
            "pass codes counted within their own codebook, not token ids or padding"
        )


def _sorted_order(table: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The items in the order of their codes, (N,)."""
    sizes = [int(size) + 1 for size in table.max(axis=0)]
    bits = sum(size.bit_length() for size in sizes)
    if bits > 63:
        return np.lexsort(table.T[::-1])
    # One integer per item sorts about five times faster than a key per column.
    key = np.zeros(len(table), dtype=np.int64)
    for column, size in zip(table.T, sizes, strict=True):
        key *= size
        key += column
    return np.argsort(key)


def _refuse_duplicates(
    table: npt.NDArray[Any], order: npt.NDArray[np.int64], differs: npt.NDArray[np.bool_]
) -> None:
    places = np.flatnonzero(~differs)
    named = "; ".join(
        f"items {sorted((int(order[i]), int(order[i + 1])))} both have {table[order[i]].tolist()}"
        for i in places[:3]
    )
    raise InputError(
        f"every item needs its own codes, but {len(places)} repeat another item's: {named}; "
        "assign codes again with conflict repair"
    )


def _as_int32(values: npt.NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(values.astype(np.int32))
