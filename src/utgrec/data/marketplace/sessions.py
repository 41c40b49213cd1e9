"""When people take their items: in sessions, mostly in the evening, never two at the same time."""

import numpy as np

from utgrec.data.marketplace.world import Floats, Integers

MINUTE = 60_000  # milliseconds
DAY = 24 * 60 * MINUTE
OPENING = 1_704_067_200_000  # 1 January 2024, 00:00 UTC, in milliseconds since 1970

_NEW_SESSION = 0.4  # chance that the next item is taken on another day
_SEASON = 180  # days after the opening within which people come for the first time


def draw_times(lengths: Integers, rng: np.random.Generator) -> Integers:
    """Time of each event of each user, strictly increasing within a user.

    Shapes: lengths (U,) → (U, T), milliseconds since 1970; what lies past a user's length is to be
    ignored.
    """
    shape = (len(lengths), int(lengths.max()))
    new_session = rng.random(shape) < _NEW_SESSION
    new_session[:, 0] = True
    pauses = 1 + np.floor(rng.exponential(9.0, size=shape)).astype(np.int64)  # days
    pauses[:, 0] = rng.integers(_SEASON, size=len(lengths))
    days = np.cumsum(np.where(new_session, pauses, 0), axis=1)  # (U, T)
    starts = (_hours(shape, rng) * 60 * MINUTE).astype(np.int64)  # of a session begun at this event
    gaps = 5_000 + np.floor(rng.exponential(2.0 * MINUTE, size=shape)).astype(np.int64)
    times = np.empty(shape, dtype=np.int64)
    for event in range(shape[1]):
        fresh = OPENING + days[:, event] * DAY + starts[:, event]
        if event == 0:
            times[:, event] = fresh
            continue
        later = times[:, event - 1] + gaps[:, event]
        times[:, event] = np.where(new_session[:, event], np.maximum(fresh, later), later)
    return times


def _hours(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Hours of the day: one peak at lunch time, a higher one in the evening. Shapes: → `shape`."""
    evening = rng.random(shape) < 0.65
    hours = np.where(evening, rng.normal(20.0, 1.6, shape), rng.normal(12.5, 2.0, shape))
    clipped: Floats = np.clip(hours, 0.0, 23.5)
    return clipped
