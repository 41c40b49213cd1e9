"""The process of one task: `python -m utgrec.comparison.worker`, started by `isolate`.

The first line of stdin is the task, a JSON object; stdin then stays open, and its end means that
whoever started this process is gone. Each line of stdout is a JSON list: ["progress", work, done,
total, note], at last ["done"] or ["error", class, message]. All other output goes to stderr.
"""

import json
import os
import sys
import threading
import traceback
from typing import TextIO

from utgrec.comparison.cells import do_task
from utgrec.comparison.folder import ComparisonFolder, Task, read_resolved
from utgrec.errors import UTGRecError

ORPHANED = 3  # exit code of a process whose parent is gone


class _Lines:
    """JSON lines to the parent process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, *values: object) -> None:
        self._stream.write(json.dumps(values) + "\n")
        self._stream.flush()

    def progress(self, work: str, done: int, total: int, note: str = "") -> None:
        """A `utgrec.progress.Progress`."""
        self.send("progress", work, done, total, note)


def main() -> int:
    """Do the task on stdin; the exit code."""
    order = json.loads(sys.stdin.readline())
    # Libraries that print must not write between the lines.
    lines = _Lines(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    folder = ComparisonFolder(order["folder"])
    try:
        do_task(folder, read_resolved(folder), Task(*order["task"]), lines.progress)
    except UTGRecError as error:
        lines.send("error", type(error).__name__, str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        lines.send("error", type(error).__name__, str(error))
        return 1
    lines.send("done")
    return 0


def _leave_with_parent() -> None:
    """A task without a parent would write beside the one that a new comparison starts."""
    while os.read(0, 4096):  # not sys.stdin: Python cannot end while a thread holds its lock
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main())
