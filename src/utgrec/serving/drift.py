"""How far a live catalogue has moved from the one its codes were made for.

Codes are assigned over a whole catalogue; items that come later take what is left. The report says
what that costs, and when assigning all codes anew, which moves every item, would pay.

Shapes: N items · L codes per item.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Domain
from utgrec.errors import UTGRecError
from utgrec.serving.generations import GenerationStore
from utgrec.serving.rows import FIRST, Rows

# Rules of thumb, not measurements: beyond them a report recommends to assign codes anew.
MOST_NEW = 0.3
ENOUGH_NEW = 0.02  # a few odd items say nothing about the catalogue
MOST_FARTHER = 1.5
MORE_FULL = 0.1
NEARLY_FULL = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftReport:
    """What has changed since the codes of a catalogue were assigned."""

    live: int
    """Items that can be recommended."""
    new: int
    """Those of them that came after the first generation."""
    removed: int
    """Items that were published once and cannot be recommended any more."""
    new_share: float
    """Share of the live items that are new."""
    first_conflicts: float
    """Share of the first generation's items that did not get their nearest codes."""
    new_conflicts: float | None
    """The same share of the new items: the pressure on codes. None without new items."""
    first_distance: float
    """Median squared distance of the first generation's items to their codes."""
    new_distance: float | None
    """The same of the new items: farther means that codes say less about them."""
    fullest_prefix: float
    """Largest share of leaves taken under one prefix of L - 1 codes; removed items count."""
    full_prefixes: float
    """Share of the prefixes in use that have at least 90 % of their leaves taken."""
    first_full_prefixes: float
    """The same share in the first generation."""
    histories_with_removed: float | None
    """Share of users with a removed item among their newest; None without the domain folder."""
    reasons: tuple[str, ...]
    """Why assigning all codes anew would pay; empty while it would not."""


def report_drift(
    rows: Rows, sizes: tuple[int, ...], histories_with_removed: float | None
) -> DriftReport:
    """Compare new items with those of the first generation. `sizes` are those of codebooks, (L,)"""
    new = rows.live & (rows.since > FIRST)
    first = rows.since == FIRST
    live = int(rows.live.sum())
    new_share = float(new.sum() / max(live, 1))
    fullness = _fullness(rows.codes, sizes[-1])
    first_distance, new_distance = _median(rows.distance[first]), _median(rows.distance[new])
    full = float((fullness >= NEARLY_FULL).mean())
    first_full = float((_fullness(rows.codes[first], sizes[-1]) >= NEARLY_FULL).mean())
    reasons = []
    if new_share > MOST_NEW:
        reasons.append(f"{new_share:.0%} of the items are new (more than {MOST_NEW:.0%})")
    limit = MOST_FARTHER * (first_distance or 0.0)
    if new_distance is not None and new_distance > limit and new_share >= ENOUGH_NEW:
        reasons.append(
            f"new items are {new_distance:.3g} away from their codes, the first ones "
            f"{first_distance or 0.0:.3g} (more than {MOST_FARTHER} times as far)"
        )
    if full > first_full + MORE_FULL:
        reasons.append(
            f"{full:.0%} of the prefixes are nearly full, at first {first_full:.0%} were "
            f"(more than {MORE_FULL:.0%} more)"
        )
    return DriftReport(
        live=live,
        new=int(new.sum()),
        removed=int((~rows.live).sum()),
        new_share=new_share,
        first_conflicts=float(rows.conflict[first].mean()) if first.any() else 0.0,
        new_conflicts=float(rows.conflict[new].mean()) if new.any() else None,
        first_distance=first_distance or 0.0,
        new_distance=new_distance,
        fullest_prefix=float(fullness.max(initial=0.0)),
        full_prefixes=full,
        first_full_prefixes=first_full,
        histories_with_removed=histories_with_removed,
        reasons=tuple(reasons),
    )


class Histories:
    """The newest items of every user of a run's domain, read once."""

    def __init__(self, store: GenerationStore, max_items: int = 20) -> None:
        """`max_items` of a history are what the recommender reads."""
        self._store = store
        self._max_items = max_items
        self._newest: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
        self._missing = False

    def share_with(self, removed: npt.NDArray[np.bool_]) -> float | None:
        """Share of users with one of these items in their history; None if there are no users.

        The domain's items are the first rows of every generation. Shape: removed (N,).
        """
        if not removed.any():
            return 0.0
        if self._newest is None and not self._missing:
            self._read()
        if self._newest is None:
            return None
        users, items = self._newest
        hit = np.zeros(int(users.max(initial=-1)) + 1, dtype=np.bool_)
        np.logical_or.at(hit, users, removed[items])
        return float(hit.mean()) if len(hit) else None

    def _read(self) -> None:
        try:
            domain = Domain.open(self._store.domain_folder)
        except (UTGRecError, OSError):
            self._missing = True  # a run can be served without the domain it was trained on
            return
        lengths = np.diff(domain.offsets)
        users = np.repeat(np.arange(domain.user_count), lengths)
        from_end = np.repeat(domain.offsets[1:], lengths) - np.arange(len(users))
        newest = from_end <= self._max_items
        self._newest = (users[newest], domain.items[newest])


def _fullness(codes: npt.NDArray[np.int16], leaves: int) -> npt.NDArray[np.float64]:
    """Share of leaves taken under every prefix in use. (N, L) → (prefixes,)"""
    in_order = codes[np.lexsort(codes[:, :-1].T)][:, :-1]
    begins = np.flatnonzero((in_order[1:] != in_order[:-1]).any(axis=1)) + 1
    counts = np.diff(np.concatenate([[0], begins, [len(codes)]]))
    return np.asarray(counts / leaves, dtype=np.float64)


def _median(values: npt.NDArray[np.float32]) -> float | None:
    return float(np.median(values)) if len(values) else None
