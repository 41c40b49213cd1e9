"""Rows of numbers that belong to items, in memory or mapped from files, read item by item.

A catalogue's picture features can be larger than memory, so they stay in the files of the cache
and only the rows of a batch are ever copied.

Shapes: N items · M rows · F width of a row.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]


# Linux maps at most 65,530 files at once, and torch and Python need some of them.
MAPPED = 4096


class Parts:
    """Tensors of rows; files are mapped when they are read, and those read last stay mapped."""

    def __init__(self, found: Sequence[Tensor | Callable[[], Tensor]]) -> None:
        """Tensors, or what maps one: (rows, F) each; the first is a tensor."""
        self._found = list(found)
        self._mapped = lru_cache(MAPPED)(_call)

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, number: int) -> Tensor:
        """One of them: (rows, F)."""
        found = self._found[number]
        return found if isinstance(found, Tensor) else self._mapped(found)

    def plus(self, others: "Parts") -> "Parts":
        """These and then others."""
        return Parts([*self._found, *others._found])


def _call(make: Callable[[], Tensor]) -> Tensor:
    return make()


class ItemRows:
    """Some rows for each of N items, many or none."""

    def __init__(self, parts: Parts, part: Ints, start: Ints, counts: Ints) -> None:
        """Item i has `counts[i]` rows of `parts[part[i]]`, from row `start[i]` on.

        `parts` are (rows, F), at least one.
        """
        self.parts = parts
        self.part, self.start, self.counts = part, start, counts

    @classmethod
    def in_order(cls, rows: Tensor, counts: Ints) -> "ItemRows":
        """Rows in memory, one item after the other. Shapes: (M, F), (N,)."""
        start = np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.int64)
        return cls(Parts([rows]), np.zeros(len(counts), dtype=np.int64), start, counts)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def width(self) -> int:
        """Numbers in a row, F."""
        return int(self.parts[0].shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self.parts[0].dtype

    def take(self, items: Ints) -> Tensor:
        """The rows of some items, one after the other: (M, F)."""
        pieces = [
            self.parts[self.part[item]][self.start[item] : self.start[item] + self.counts[item]]
            for item in items
        ]
        return torch.cat([self.parts[0][:0], *pieces])

    def means(self, items: Ints, width: int) -> Tensor:
        """The mean row of some items, cut to `width`; zeros for one without: (n, width)."""
        counts = torch.from_numpy(self.counts[items])
        owner = torch.repeat_interleave(torch.arange(len(items)), counts)
        rows = self.take(items)[:, :width].float()
        sums = torch.zeros(len(items), width).index_add_(0, owner, rows)
        return sums / counts.clamp(min=1)[:, None]


class Latents:
    """Picture latents: a block of G × C numbers for each of some pictures, picked by number."""

    def __init__(self, rows: ItemRows, grid: int) -> None:
        """`rows` has G rows of width C for every picture."""
        self.rows = rows
        self.grid = grid

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(pictures, G, C)."""
        return len(self), self.grid, self.rows.width

    def __getitem__(self, pictures: Ints | int) -> Tensor:
        """Latents of some pictures, float32. Shapes: (n,) → (n, G, C), or one → (G, C)."""
        numbers = np.asarray(pictures, dtype=np.int64)
        if numbers.ndim == 0:
            return self[numbers[None]][0]
        return self.rows.take(numbers).float().view(len(numbers), self.grid, self.rows.width)
