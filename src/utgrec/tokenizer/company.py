"""The company an item keeps: which items of a shop people take one soon after the other.

A shop's training histories make a graph of items. Its leading directions hold together what is
taken together, also where two items never met but share neighbours.

Shapes: N items · R directions.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy import sparse

from utgrec.config import require
from utgrec.data.split import Split
from utgrec.tokenizer.spectral import leading_directions

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompanyConfig:
    """How the log helps to tell what an item is."""

    rank: int = 128
    """Directions of each shop's graph that are kept; 0 leaves company out."""
    window: int = 5
    """Items of a training history at most so far apart keep company, with weight 1 / distance."""
    dropout: float = 0.1
    """Share of items that are shown without company in training, as new items always are."""

    def __post_init__(self) -> None:
        require(self.rank >= 0, f"rank must be at least 0, got {self.rank}")
        require(self.window >= 1, f"window must be at least 1, got {self.window}")
        require(0 <= self.dropout < 1, f"dropout is in [0, 1), got {self.dropout}")


def company_directions(split: Split, item_count: int, config: CompanyConfig) -> Floats:
    """Leading directions of a shop's graph: (N, R), or fewer columns where there are fewer.

    Rows of items without company are zero, all others have length 1: what a rare item is taken with
    counts as much as what a popular one is taken with.
    """
    graph = sparse.csr_matrix((item_count, item_count))
    user = np.repeat(np.arange(len(split.offsets) - 1), np.diff(split.offsets))
    for distance in range(1, config.window + 1):
        first, second = split.train[:-distance], split.train[distance:]
        pairs = (user[:-distance] == user[distance:]) & (first != second)
        weights = np.full(int(pairs.sum()), 1 / distance)
        graph = graph + sparse.csr_matrix(
            (weights, (first[pairs], second[pairs])), shape=graph.shape
        )
    graph = graph + graph.T
    degree = np.asarray(graph.sum(axis=1)).ravel()  # (N,)
    # One more than the degree: items taken once or twice do not make directions of their own.
    scale = sparse.diags(1 / np.sqrt(degree + 1))
    rank = min(config.rank, max(int((degree > 0).sum()) - 1, 0))
    if rank == 0:
        return np.zeros((item_count, 0))
    # Shifted by one, so that the leading directions are those along which neighbours agree; those
    # along which they differ have eigenvalues below zero.
    shifted = scale @ graph @ scale + sparse.eye(item_count)
    directions, strengths = leading_directions(shifted.tocsr(), rank)
    # The root of the strengths: weak directions are mostly chance, but not all alike.
    weights = np.sqrt(np.maximum(strengths - 1, 0))
    directions = (directions * weights)[:, weights > 1e-3] * (degree > 0)[:, None]
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    unit: Floats = directions / np.maximum(lengths, 1e-12) * (lengths > 1e-12)
    return unit
