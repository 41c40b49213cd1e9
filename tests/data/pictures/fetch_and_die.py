"""A run that is killed: `fetch_and_die.py DOMAIN HOW NUMBER` fetches in a process of its own.

HOW is `notes` (killed at the NUMBER-th line of the journal), `renames` (before the NUMBER-th rename
or swap, after it if negative), `room` (no file may have more than NUMBER bytes: a disk that is full
half way; the error is printed) or `end` (to the end).
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from utgrec import exchange
from utgrec.data.pictures.fetch import fetch_images
from utgrec.data.pictures.journal import Workspace
from utgrec.data.pictures.options import ImageOptions


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def counted(call: Any, number: int, *, before: bool) -> Any:
    """`call`, but the process dies at its `number`-th use."""
    left = [number]

    def counting(*given: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and before:
            die()
        result = call(*given)
        if left[0] == 0:
            die()
        return result

    return counting


def main() -> None:
    folder, how, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if how == "notes":
        Workspace.note = counted(Workspace.note, number, before=False)  # type: ignore[method-assign]
    elif how == "renames":
        both = counted(lambda call, *given: call(*given), abs(number), before=number > 0)
        swap, replace = exchange.swap, os.replace
        exchange.swap = lambda one, other: both(swap, one, other)
        os.replace = lambda one, other: both(replace, one, other)
    elif how == "room":
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
    fetch_images(folder, ImageOptions(allow_private_addresses=True, workers=1, attempts=1))


if __name__ == "__main__":
    main()
