"""Keep only users and items with at least k interactions each."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class KCore(NamedTuple):
    """What is left of n interactions."""

    keep: npt.NDArray[np.bool_]  # (n,)
    rounds: int  # passes over users and items until nothing more fell out


def k_core(users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], k: int) -> KCore:
    """The largest part of a log in which every user and every item has at least k interactions.

    Removing an item can leave a user with too few, and the other way round, so it goes on until
    nothing changes. The result does not depend on the order of the rows. Repeated interactions
    count each time. Shapes: users, items (n,), ids 0 … ; k = 1 keeps everything.
    """
    left = np.arange(len(users))
    rounds = 0
    while k > 1 and len(left):
        enough = (np.bincount(users[left]) >= k)[users[left]]
        enough &= (np.bincount(items[left]) >= k)[items[left]]
        if enough.all():
            break
        left = left[enough]
        rounds += 1
    keep = np.zeros(len(users), dtype=bool)
    keep[left] = True
    return KCore(keep, rounds)
