"""Keep only users and items with at least k interactions each."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.errors import EmptyDomain


class KCore(NamedTuple):
    """What is left of n interactions."""

    keep: npt.NDArray[np.bool_]  # (n,)
    rounds: int  # passes over users and items until nothing more fell out


class Core(NamedTuple):
    """What is left of a log, with users and items numbered anew, in their order."""

    kept: npt.NDArray[np.int64]  # (n,), places in the log
    users: npt.NDArray[np.int32]  # (n,)
    items: npt.NDArray[np.int32]  # (n,)
    user_numbers: npt.NDArray[np.int64]  # (users left,), the numbers that they had before
    item_numbers: npt.NDArray[np.int64]  # (items left,)
    rounds: int


def require_core(
    users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], k: int, total: int
) -> Core:
    """The k-core of a log; `total` is how many interactions there were before, for the message.

    Raises:
        EmptyDomain: nothing is left.
    """
    core = k_core(users, items, k)
    if not core.keep.any():
        raise EmptyDomain(nothing_left(total, k))
    user_numbers, user = np.unique(users[core.keep], return_inverse=True)
    item_numbers, item = np.unique(items[core.keep], return_inverse=True)
    return Core(
        kept=np.flatnonzero(core.keep),
        users=user.astype(np.int32),
        items=item.astype(np.int32),
        user_numbers=user_numbers.astype(np.int64),
        item_numbers=item_numbers.astype(np.int64),
        rounds=core.rounds,
    )


def nothing_left(total: int, k: int) -> str:
    """What to say when a filter leaves nothing of so many interactions."""
    return (
        f"no interaction is left: {total:,} interactions hold no user and item with {k} "
        "interactions each; lower --k-core (1 = no filter)"
    )


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
