"""Suspicious interactions: repetitions, bursts within a second, users too fast to be people.

Shapes: I interactions, sorted by user, then time, as in a domain · U users.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SECOND = 1_000  # ms
HOUR = 3_600_000  # ms

Mask = npt.NDArray[np.bool_]


class Events(NamedTuple):
    """The interactions of a domain."""

    users: npt.NDArray[np.int64]  # (I,)
    items: npt.NDArray[np.int32]  # (I,)
    times: npt.NDArray[np.int64]  # (I,), ms


def repeated(events: Events) -> Mask:
    """Interactions that repeat an earlier one: same user, item and time. (I,)"""
    # Stable, so that the first of equal ones is the first in the log.
    order = np.lexsort((events.times, events.items, events.users))
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for column in events:
        same &= np.diff(column[order]) == 0
    found = np.zeros(len(order), dtype=np.bool_)
    found[order[1:]] = same
    return found


def in_bursts(events: Events, smallest: int) -> Mask:
    """Interactions that one user made in one second with at least `smallest` of them. (I,)"""
    if not len(events.users):
        return np.zeros(0, dtype=np.bool_)
    seconds = events.times // SECOND
    starts = np.flatnonzero((np.diff(events.users) != 0) | (np.diff(seconds) != 0)) + 1
    sizes = np.diff(np.concatenate([[0], starts, [len(seconds)]]))
    return np.repeat(sizes >= smallest, sizes)


def of_fast_users(events: Events, most_per_hour: int) -> Mask:
    """Interactions of users who, at some time, made more than `most_per_hour` in an hour. (I,)"""
    fast = np.zeros(len(events.users), dtype=np.bool_)
    if len(fast) > most_per_hour:
        first, last = slice(None, -most_per_hour), slice(most_per_hour, None)
        close = events.times[last] - events.times[first] < HOUR
        fast[first] = close & (events.users[last] == events.users[first])
    return np.isin(events.users, np.unique(events.users[fast]))


def backwards(events: Events) -> int:
    """Steps within histories that go back in time; none in a domain that is sorted."""
    same = np.diff(events.users) == 0
    return int((same & (np.diff(events.times) < 0)).sum())
