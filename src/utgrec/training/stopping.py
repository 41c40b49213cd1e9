"""Stop where a run can go on: SIGTERM and SIGINT end training after the step they come in.

Schedulers and `docker stop` send SIGTERM and kill soon after. The handler only takes a note; the
loop writes a checkpoint and raises `Stopped`. A second Ctrl-C stops at once.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether somebody asked to stop, and with which signal."""

    def __init__(self) -> None:
        self.signal = 0
        """Number of the signal; 0 as long as none came."""


@contextlib.contextmanager
def listening() -> Iterator[StopRequest]:
    """Note signals instead of dying by them; outside the main thread nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)

    for number in SIGNALS:
        # One that is ignored, as nohup does, stays so.
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
