"""The processes behind one port: each says which generation it serves, so that others can wait.

A change is answered once all processes serve it, so a caller who then asks any of them sees it.
Each writes its own small file, named by its process id; a file whose process is gone is ignored.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from utgrec import processes

log = logging.getLogger(__name__)
LONGEST_WAIT_S = 10.0
LOOK_S = 0.01


class Peers:
    """This process among those that serve the same catalogue."""

    def __init__(self, folder: Path, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        """`folder` belongs to the processes of one server alone."""
        self._folder = folder
        self._longest_wait_s = longest_wait_s

    def announce(self, number: int) -> None:
        """Say which generation this process serves."""
        partial = self._folder / f".{os.getpid()}.partial"
        partial.write_text(str(number), encoding="utf-8")
        os.replace(partial, self._folder / str(os.getpid()))

    def leave(self) -> None:
        """Say that this process serves nothing any more."""
        (self._folder / str(os.getpid())).unlink(missing_ok=True)

    def wait(self, current: Callable[[], int]) -> bool:
        """Wait until all others serve the current generation, which may change meanwhile.

        Returns:
            Whether they do; False after the longest wait, for instance if one cannot read it.
        """
        until = time.monotonic() + self._longest_wait_s
        while behind := self._behind(current()):
            if time.monotonic() > until:
                log.warning("%d processes do not serve the current generation yet", len(behind))
                return False
            time.sleep(LOOK_S)
        return True

    def _behind(self, number: int) -> list[int]:
        found = []
        for path in self._folder.iterdir():
            if not path.name.isdigit() or int(path.name) == os.getpid():
                continue
            if not processes.is_alive(int(path.name)):
                path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.read_text(encoding="utf-8") != str(number):
                    found.append(int(path.name))
        return found
