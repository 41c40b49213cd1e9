"""Which items directly precede or follow one another in training histories."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from utgrec.data.split import Split


class Neighbours(NamedTuple):
    """A symmetric graph over N items in CSR form; no item neighbours itself."""

    offsets: npt.NDArray[np.int64]  # (N + 1,)
    items: npt.NDArray[np.int32]  # neighbours of item i at offsets[i] : offsets[i + 1], ascending
    counts: npt.NDArray[np.int32]  # how often the pair occurs, either way round

    def of(self, item: int) -> npt.NDArray[np.int32]:
        """The neighbours of one item."""
        return self.items[self.offsets[item] : self.offsets[item + 1]]

    def draw(
        self, items: npt.NDArray[np.integer], rng: np.random.Generator
    ) -> npt.NDArray[np.int32]:
        """One neighbour of each item, by how often the pair occurs; the item itself if it has none.

        Shapes: items (B,) → (B,).
        """
        totals = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        low = totals[self.offsets[items]]
        high = totals[self.offsets[items + 1]]
        ticket = low + np.floor(rng.random(len(items)) * (high - low)).astype(np.int64)
        place = np.searchsorted(totals, ticket, side="right") - 1
        alone = low == high
        place[alone] = 0
        drawn = self.items[place] if len(self.items) else np.zeros(len(items), np.int32)
        return np.where(alone, items, drawn).astype(np.int32)


def find_neighbours(split: Split, item_count: int) -> Neighbours:
    """Count the pairs of items that directly follow one another in a training history."""
    first, second = split.train[:-1], split.train[1:]
    same_user = np.ones(max(len(split.train) - 1, 0), dtype=bool)
    borders = split.offsets[1:-1]
    same_user[borders[(borders > 0) & (borders < len(split.train))] - 1] = False
    pairs = same_user & (first != second)
    ones = np.ones(int(pairs.sum()), dtype=np.int32)
    graph = sparse.csr_matrix(
        (ones, (first[pairs], second[pairs])), shape=(item_count, item_count), dtype=np.int32
    )
    graph = (graph + graph.T).tocsr()
    graph.sort_indices()
    return Neighbours(
        offsets=graph.indptr.astype(np.int64),
        items=graph.indices.astype(np.int32),
        counts=graph.data.astype(np.int32),
    )


def join(graphs: Sequence[Neighbours]) -> Neighbours:
    """One graph over the items of several domains, one domain after the other."""
    items, offsets = [], [np.zeros(1, dtype=np.int64)]
    before = pairs = 0
    for graph in graphs:
        items.append(graph.items + np.int32(before))
        offsets.append(graph.offsets[1:] + pairs)
        before += len(graph.offsets) - 1
        pairs += len(graph.items)
    return Neighbours(
        offsets=np.concatenate(offsets),
        items=np.concatenate(items),
        counts=np.concatenate([graph.counts for graph in graphs]),
    )
