"""Which of several processes this is: who writes, who waits.

`accelerate launch` and `torchrun` start the same program several times and number the processes by
the variables RANK and WORLD_SIZE. A stage that trains is worked on by all of them together; all
else is done by the first one while the others wait for its files. Only the first one writes.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from utgrec.errors import StorageError

T = TypeVar("T")
# A launcher ends all processes when one fails, so this only bounds what nobody is looking at.
LONGEST_WAIT_S = 14 * 24 * 3600.0


def number() -> int:
    """The number of this process among those started together; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return number() == 0


def is_alive(process: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def wait_for(find: Callable[[], T | None], what: str, every_s: float = 0.2) -> T:
    """What `find` gives once it is there; the first process is making it meanwhile.

    It looks at files instead of waiting in a collective call, which gives up after minutes.

    Raises:
        StorageError: it did not come in two weeks.
    """
    end = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < end:
        found = find()
        if found is not None:
            return found
        time.sleep(every_s)
    raise StorageError(
        f"process {number()} waited {LONGEST_WAIT_S:.0f} s for {what}; look at the first process, "
        "and check that all of them see the same folders"
    )
