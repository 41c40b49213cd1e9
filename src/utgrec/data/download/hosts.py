"""Politeness towards hosts: few connections at a time, and a pause when one asks for it."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator


class Hosts:
    """What all downloads of a process know about the hosts they talk to; safe for threads."""

    def __init__(
        self,
        per_host: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`per_host` connections to one host at the same time."""
        self._clock, self.sleep = clock, sleep
        self._slots: dict[str, threading.Semaphore] = defaultdict(
            lambda: threading.Semaphore(per_host)
        )
        self._free_at: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """Wait until this host may be asked, and hold one of its connections."""
        with self._lock:
            slot = self._slots[host]
        with slot:
            while (wait := self._free_at.get(host, 0.0) - self._clock()) > 0:
                self.sleep(wait)
            yield

    def pause(self, host: str, seconds: float) -> None:
        """Nobody asks this host again for so long."""
        with self._lock:
            until = self._clock() + seconds
            self._free_at[host] = max(self._free_at.get(host, 0.0), until)
