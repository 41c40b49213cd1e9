"""Training histories as windows of items, in batches of like lengths.

Nothing of a long history is thrown away: it is cut into windows from its end. Rows are padded on
the right to the longest of the batch, which comes from a pool sorted by length, so that little is
computed on padding.

Shapes: B windows of a batch · T items of the longest · W windows.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.data.split import Split
from utgrec.errors import EmptyDomain

# Batches of a shuffled epoch are sorted by length within pools of this many batches.
_POOL = 16


class Windows(NamedTuple):
    """Pieces of histories: `items[start:end]` is one window."""

    items: npt.NDArray[np.int32]  # (training interactions,)
    starts: npt.NDArray[np.int64]  # (W,)
    ends: npt.NDArray[np.int64]  # (W,)


def cut_windows(split: Split, width: int, *, overlap: int) -> Windows:
    """Windows of 2 to `width` items, cut from the end of each training history.

    Neighbouring windows share `overlap` items: with 1, every item but the first of a history is
    the successor of another one in exactly one window.

    Raises:
        EmptyDomain: no user has two training items.
    """
    starts: list[npt.NDArray[np.int64]] = []
    ends: list[npt.NDArray[np.int64]] = []
    first, end = split.offsets[:-1], split.offsets[1:]
    while len(end):
        start = np.maximum(first, end - width)
        starts.append(start[end - start >= 2])
        ends.append(end[end - start >= 2])
        more = start > first
        first, end = first[more], start[more] + overlap
    windows = Windows(split.train, np.concatenate(starts), np.concatenate(ends))
    if len(windows.starts) == 0:
        raise EmptyDomain(
            "no user has two training items to learn an order from; by leave-one-out users need at "
            "least 4 interactions, by a global-time split 2 before its first date"
        )
    return windows


class WindowBatches:
    """Step → batch of windows, a function of the seed and the step alone.

    Batches hold about equally many items, not windows: the loss is a mean over a batch, and items
    of short histories would weigh more than those of long ones.
    """

    def __init__(self, windows: Windows, *, batch_items: int, padding: int, seed: int) -> None:
        """`batch_items`: items per batch at least, no fewer than the longest window has."""
        self.windows = windows
        self.padding = padding
        self.seed = seed
        self.lengths = windows.ends - windows.starts  # (W,)
        self.per_epoch = max(1, int(self.lengths.sum()) // batch_items)
        self._epoch = -1
        self._batches: list[npt.NDArray[np.int64]] = []

    def __call__(self, step: int) -> Tensor:
        """The windows of one step, padded on the right. Shapes: (B, T), int64."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffle(epoch)
        chosen = self._batches[place]
        windows = self.windows
        return pad_right(
            [windows.items[windows.starts[row] : windows.ends[row]] for row in chosen],
            self.padding,
        )

    def _shuffle(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 4, epoch])
        order = rng.permutation(len(self.lengths))
        pool = _POOL * -(-len(order) // self.per_epoch)
        for begin in range(0, len(order), pool):
            part = order[begin : begin + pool]
            order[begin : begin + pool] = part[np.argsort(self.lengths[part], kind="stable")]
        lengths = self.lengths[order]
        middles = np.cumsum(lengths) - lengths / 2
        # No window is longer than a batch, so every batch holds the middle of one.
        batch = (middles / lengths.sum() * self.per_epoch).astype(np.int64)  # (W,), ascending
        batches = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
        return [batches[place] for place in rng.permutation(len(batches))]


def pad_right(rows: list[npt.NDArray[np.integer]], padding: int) -> Tensor:
    """Rows of items in one rectangle; at least one column. Shapes: B rows → (B, T), int64."""
    longest = max([1, *map(len, rows)])
    tokens = np.full((len(rows), longest), padding, dtype=np.int64)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    return torch.from_numpy(tokens)
