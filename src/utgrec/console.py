"""What a person sees while a command works: progress and log lines, all of it on stderr."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

LINE_EVERY_S = 30.0
BARS_PER_SECOND = 4  # every redraw takes time from training on a small machine
STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


@dataclasses.dataclass(kw_only=True)
class _Work:
    """The work that goes on now."""

    name: str
    first: int  # units that were done when it was first heard of: an interrupted run goes on
    started: float  # s
    spoke: float  # s, when its last line was written
    done: int
    total: int
    note: str

    def figures(self, now: float) -> str:
        """Where it stands: count, rate, remaining time, note."""
        parts = [f"{self.done:,} of {self.total:,}"]
        rate = (self.done - self.first) / max(now - self.started, 1e-9)
        if rate > 0:
            parts.append(f"{rate:,.1f}/s" if rate >= 1 else f"{1 / rate:,.1f} s each")
            parts.append(f"{clock_text((self.total - self.done) / rate)} left")
        return ", ".join([*parts, self.note] if self.note else parts)

    def ending(self, now: float) -> str:
        """What it came to."""
        reached = (
            f"{self.done:,}" if self.done >= self.total else f"{self.done:,} of {self.total:,}"
        )
        note = f", {self.note}" if self.note else ""
        return f"{self.name}: {reached} in {clock_text(now - self.started)}{note}"


class ConsoleProgress:
    """Progress as a bar on a terminal, and as a line now and then anywhere else (CI logs).

    It is a `utgrec.progress.Progress`. Works come one after the other: each has its own bar, and
    the next one ends the one before, which may have stopped early. Use it as a context manager.
    """

    def __init__(
        self,
        console: Console,
        *,
        every_s: float = LINE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`every_s` is the time between two lines where there are no bars (s)."""
        self._console = console
        self._every_s = every_s
        self._clock = clock
        self._work: _Work | None = None
        self._bars: Progress | None = None
        self._bar: TaskID | None = None

    def __enter__(self) -> "ConsoleProgress":
        if self._console.is_terminal and not self._console.quiet:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=self._console,
                transient=True,
                redirect_stdout=False,
                refresh_per_second=BARS_PER_SECOND,
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, work: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `work` are finished."""
        now = self._clock()
        current = self._work
        if current is None or current.name != work or done < current.done:
            self._end()
            current = self._begin(work, done, total, now)
        current.done, current.total, current.note = done, total, note
        if done >= total:
            self._end()
        elif self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=done, total=total, figures=current.figures(now))
        elif now - current.spoke >= self._every_s:
            current.spoke = now
            self._line(f"{work}: {current.figures(now)}")

    def _begin(self, name: str, done: int, total: int, now: float) -> _Work:
        work = _Work(name=name, first=done, started=now, spoke=now, done=done, total=total, note="")
        self._work = work
        if self._bars is not None:
            self._bar = self._bars.add_task(name, total=total, completed=done, figures="")
        return work

    def _end(self) -> None:
        """Take the bar away and leave a line of what was done."""
        if self._work is None:
            return
        if self._bars is not None and self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None
        self._line(self._work.ending(self._clock()))
        self._work = None

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def clock_text(seconds: float) -> str:
    """A duration as M:SS or H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _LogLines(logging.Handler):
    """Log records as lines above the progress bars."""

    def __init__(self, console: Console, own: int, others: int) -> None:
        super().__init__()
        self._console = console
        self._own, self._others = own, others

    def emit(self, record: logging.LogRecord) -> None:
        own = record.name.partition(".")[0] == "utgrec"
        if record.levelno < (self._own if own else self._others):
            return
        text = self.format(record)
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        self._console.print(Text(text, STYLES.get(record.levelno, "")), soft_wrap=True)


@contextlib.contextmanager
def log_lines(console: Console, *, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Show log records on `console` while the block runs; leave logging as it was afterwards.

    By default warnings of UTGRec and errors of everybody are shown; `verbose` adds what UTGRec
    reports as it goes and the warnings of other libraries, `quiet` leaves errors only.
    """
    own, others = logging.WARNING, logging.ERROR
    if verbose:
        own, others = logging.INFO, logging.WARNING
    if quiet:
        own = others = logging.ERROR
    handler = _LogLines(console, own, others)
    root, package = logging.getLogger(), logging.getLogger("utgrec")
    level = package.level
    package.setLevel(own)
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        package.setLevel(level)
