"""Kill a change of a catalogue at every moment at which it touches the disk.

Started as a program with a folder: it makes a run there, then changes copies of it in processes of
their own, and kills the n-th at its n-th file operation, until one comes through. It prints one
JSON line per process. Changes are forked from one process, since most of the time is imports.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from small_shops import FakeCoder, make_run, png

WRITES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def main() -> None:
    """Make the run, and kill one change after the other."""
    from utgrec.serving.changes import CatalogEditor
    from utgrec.serving.generations import GenerationStore

    base = Path(sys.argv[1])
    start = make_run(base / "start", [f"i{number}" for number in range(6)])
    coder = FakeCoder()
    CatalogEditor(GenerationStore(start), coder).add([{"item_id": "old", "title": "old"}])
    picture = png(base / "new.png")
    for moment in range(1, 200):
        run = base / f"run{moment}"
        shutil.copytree(start, run)
        child = os.fork()
        if child == 0:
            store = GenerationStore(run)
            die_at(moment)
            made = CatalogEditor(store, coder).add(
                [{"item_id": "new", "title": "new"}], {"new": picture}
            )
            (base / f"acknowledged{moment}").write_text(str(made.generation))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"run": str(run), "killed": os.WIFSIGNALED(status)}), flush=True)
        if not os.WIFSIGNALED(status):
            break


def die_at(moment: int) -> None:
    """Kill this process right before its n-th operation that changes a file."""
    left = [moment]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        writing = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | 2)
        if event in WRITES or writing:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    main()
