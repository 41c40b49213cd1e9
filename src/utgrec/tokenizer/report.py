"""What codes look like before any recommender is trained on them.

Shapes: N items · L codes per item · K entries of a codebook.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from utgrec.data.neighbours import Neighbours
from utgrec.tokenizer.assignment import Assignment


@dataclasses.dataclass(frozen=True, kw_only=True)
class LevelUsage:
    """How evenly the codes of one position are used, before repair."""

    size: int
    """Entries of the codebook."""
    used: float
    """Share of entries that at least one item has."""
    dead: int
    """Entries that no item has."""
    perplexity: float
    """Exponential of the entropy: how many entries an even use would need."""
    gini: float
    """0 where all entries have as many items, near 1 where one has all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeReport:
    """Quality of the codes of one catalogue."""

    items: int
    """Number of items."""
    conflict_rate: float
    """Share of items that shared their nearest code tuple with another item, before repair."""
    moved_rate: float
    """Share of items that repair gave other codes than their nearest."""
    levels: tuple[LevelUsage, ...]
    """Usage of each codebook position."""
    root_used: float
    """Share of root entries in use."""
    leaf_used: float
    """Share of leaf entries in use at any later position."""
    neighbour_agreement: tuple[float, ...]
    """Share of co-taken pairs that agree in their first 1 … L-1 codes."""
    chance_agreement: tuple[float, ...]
    """The same share if the codes were dealt to the items at random."""

    @property
    def agreement_lift(self) -> float:
        """How many times more often than by chance co-taken items share their first code."""
        return self.neighbour_agreement[0] / max(self.chance_agreement[0], 1e-12)


def report_codes(
    assignment: Assignment, neighbours: Neighbours, sizes: tuple[int, ...]
) -> CodeReport:
    """Measure the codes of a catalogue. `sizes` are the codebook sizes by position, (L,)."""
    nearest = assignment.nearest.astype(np.int64)
    count = len(nearest)
    _, place, multiplicity = np.unique(nearest, axis=0, return_inverse=True, return_counts=True)
    levels = tuple(_usage(nearest[:, level], size) for level, size in enumerate(sizes))
    agreement, chance = _agreement(assignment.codes.astype(np.int64), neighbours)
    return CodeReport(
        items=count,
        conflict_rate=float((multiplicity[place.ravel()] > 1).mean()) if count else 0.0,
        moved_rate=float(assignment.conflict.mean()) if count else 0.0,
        levels=levels,
        root_used=levels[0].used,
        leaf_used=len(np.unique(nearest[:, 1:])) / sizes[1],
        neighbour_agreement=agreement,
        chance_agreement=chance,
    )


def _usage(codes: npt.NDArray[np.int64], size: int) -> LevelUsage:
    counts = np.bincount(codes, minlength=size).astype(np.float64)
    share = counts / max(counts.sum(), 1)
    present = share[share > 0]
    ranked = np.sort(share)
    gini = 1 - 2 * float((np.cumsum(ranked) - ranked / 2).sum()) / size if counts.any() else 0.0
    return LevelUsage(
        size=size,
        used=float((counts > 0).mean()),
        dead=int((counts == 0).sum()),
        perplexity=float(np.exp(-(present * np.log(present)).sum())),
        gini=gini,
    )


def _agreement(
    codes: npt.NDArray[np.int64], neighbours: Neighbours
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Agreement of co-taken pairs by prefix length, and what chance would give.

    Chance: the two ends of a pair, drawn independently by how often items occur in pairs.
    """
    first = np.repeat(np.arange(len(codes)), np.diff(neighbours.offsets))
    second = neighbours.items
    weight = neighbours.counts.astype(np.float64)
    total = weight.sum()
    agreement, chance = [], []
    for length in range(1, codes.shape[1]):
        _, prefix = np.unique(codes[:, :length], axis=0, return_inverse=True)
        prefix = prefix.ravel()
        same = prefix[first] == prefix[second]
        share = np.bincount(prefix[first], weights=weight) / max(total, 1)
        agreement.append(float(weight[same].sum() / max(total, 1)))
        chance.append(float((share**2).sum()))
    return tuple(agreement), tuple(chance)
