"""Kill a change of a catalogue at every moment at which it touches the disk.

Started as a program with a folder: it makes a run there, then changes copies of it in processes of
their own, and kills the n-th at its n-th file operation, until one comes through; so for every kind
of change. It prints one JSON line per process. Changes are forked from one process, since most of
the time is imports.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_shops import FakeCoder, make_run, png

WRITES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def main() -> None:
    """Make the run, and kill one change after the other."""
    from utgrec.serving.changes import CatalogEditor
    from utgrec.serving.generations import GenerationStore
    from utgrec.serving.pruning import prune

    base = Path(sys.argv[1])
    start = make_run(base / "start", [f"i{number}" for number in range(6)])
    coder = FakeCoder()
    editor = CatalogEditor(GenerationStore(start), coder)
    for item_id in ("older", "old"):
        editor.add([{"item_id": item_id, "title": item_id}])
    editor.replace([{"item_id": "older", "title": "changed"}])
    picture = png(base / "new.png")
    changes: dict[str, Callable[[GenerationStore], object]] = {
        "add": lambda store: CatalogEditor(store, coder).add(
            [{"item_id": "new", "title": "new"}], {"new": picture}
        ),
        "replace": lambda store: CatalogEditor(store, coder).replace(
            [{"item_id": "old", "title": "another"}]
        ),
        "remove": lambda store: CatalogEditor(store, coder).remove(["old"]),
        "activate": lambda store: store.activate(1),
        "rollback": lambda store: store.rollback(),
        "prune": lambda store: prune(store, 1),
    }
    for name, change in changes.items():
        for moment in range(1, 200):
            run = base / f"{name}{moment}"
            shutil.copytree(start, run)
            child = os.fork()
            if child == 0:
                store = GenerationStore(run)
                die_at(moment)
                change(store)
                (base / f"acknowledged-{name}{moment}").touch()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            killed = os.WIFSIGNALED(status)
            print(json.dumps({"change": name, "run": str(run), "killed": killed}), flush=True)
            if not killed:
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
