"""What is shown on stderr while a command works."""

import logging
import warnings
from io import StringIO

import pytest
from rich.console import Console

from utgrec.console import ConsoleProgress, clock_text, log_lines


class Clock:
    """A clock that is set by hand (s)."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(progress_calls, *, terminal: bool = False, every_s: float = 30.0) -> list[str]:
    """The lines after calls (second, work, done, total, note), the last of which ends the block."""
    out, clock = StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
    with ConsoleProgress(console, every_s=every_s, clock=clock) as progress:
        for second, *call in progress_calls:
            clock.now = second
            progress(*call)
    return out.getvalue().splitlines()


def test_without_a_terminal_there_is_a_line_every_30_seconds():
    calls = [(second, "Training", 2 * second, 100, "loss 3.2") for second in range(0, 50)]
    assert shown(calls) == [
        "Training: 60 of 100, 2.0/s, 0:20 left, loss 3.2",
        "Training: 98 of 100 in 0:49, loss 3.2",
    ]


def test_a_slow_unit_is_given_in_seconds():
    assert shown([(0, "Reading", 0, 10), (40, "Reading", 2, 10), (200, "Reading", 10, 10)]) == [
        "Reading: 2 of 10, 20.0 s each, 2:40 left",
        "Reading: 10 in 3:20",
    ]


def test_a_continued_work_counts_its_own_units_only():
    calls = [(0, "Training", 900, 1000), (30, "Training", 930, 1000)]
    assert shown(calls)[0] == "Training: 930 of 1,000, 1.0/s, 1:10 left"


def test_the_next_work_ends_one_that_stopped_early():
    calls = [(0, "Training", 0, 100), (9, "Training", 40, 100), (10, "Encoding", 5, 5)]
    assert shown(calls) == ["Training: 40 of 100 in 0:10", "Encoding: 5 in 0:00"]


def test_the_same_work_done_twice_has_two_lines():
    calls = [(0, "Encoding", 0, 8), (3, "Encoding", 8, 8), (4, "Encoding", 0, 9)]
    calls += [(6, "Encoding", 9, 9)]
    assert shown(calls) == ["Encoding: 8 in 0:03", "Encoding: 9 in 0:02"]


def test_a_work_that_starts_anew_before_its_end_has_two_lines():
    calls = [(0, "Encoding", 0, 8), (3, "Encoding", 4, 8), (5, "Encoding", 0, 8)]
    calls += [(6, "Encoding", 8, 8)]
    assert shown(calls) == ["Encoding: 4 of 8 in 0:05", "Encoding: 8 in 0:01"]


def test_a_terminal_has_a_bar_with_rate_and_remaining_time():
    calls = [(0, "Training", 0, 100, ""), (10, "Training", 20, 100, "loss [red]3"), (11, "E", 1, 1)]
    text = "\n".join(shown(calls, terminal=True))
    assert "━" in text
    assert "Training: 20 of 100 in 0:11, loss [red]3" in text  # brackets are no markup
    assert "E: 1 in 0:00" in text


def test_the_bar_shows_the_figures_while_it_stands():
    out, clock = StringIO(), Clock()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with ConsoleProgress(console, clock=clock) as progress:
        progress("Training", 0, 100)
        clock.now = 10
        progress("Training", 20, 100, "loss [red]3")
        assert progress._bars is not None
        progress._bars.refresh()
        assert "20 of 100, 2.0/s, 0:40 left, loss [red]3" in out.getvalue()


def test_an_error_still_ends_the_work():
    out = StringIO()
    with (
        pytest.raises(ValueError, match="boom"),
        ConsoleProgress(Console(file=out), clock=Clock()) as progress,
    ):
        progress("Training", 3, 10)
        raise ValueError("boom")
    assert out.getvalue() == "Training: 3 of 10 in 0:00\n"


def test_a_quiet_console_shows_nothing():
    out = StringIO()
    with ConsoleProgress(Console(file=out, quiet=True, force_terminal=True)) as progress:
        progress("Training", 0, 10)
        progress("Training", 10, 10)
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3725, "1:02:05")]
)
def test_durations(seconds, text):
    assert clock_text(seconds) == text


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ({}, ["warning: own warning [x]", "error: own error", "error: other error"]),
        ({"quiet": True}, ["error: own error", "error: other error"]),
        (
            {"verbose": True},
            [
                "own info",
                "warning: own warning [x]",
                "error: own error",
                "warning: other warning",
                "error: other error",
            ],
        ),
    ],
)
def test_which_log_records_are_shown(flags, seen):
    out = StringIO()
    own, other = logging.getLogger("utgrec.somewhere"), logging.getLogger("elsewhere")
    with log_lines(Console(file=out, width=20), **flags):  # long lines are not broken
        own.info("own info")
        own.warning("own %s [x]", "warning")
        own.error("own error")
        other.warning("other warning")
        other.error("other error")
    assert out.getvalue().splitlines() == seen


def test_logging_is_left_as_it_was():
    root, package = logging.getLogger(), logging.getLogger("utgrec")
    before = (list(root.handlers), root.level, package.level, warnings.showwarning)
    with pytest.raises(ValueError, match="boom"), log_lines(Console(file=StringIO())):
        assert root.handlers != before[0]
        raise ValueError("boom")
    assert (list(root.handlers), root.level, package.level, warnings.showwarning) == before


def test_warnings_are_shown_with_verbose_only():
    shown_by = {}
    for verbose in (False, True):
        out = StringIO()
        with (
            warnings.catch_warnings(),
            log_lines(Console(file=out), verbose=verbose),
        ):
            warnings.simplefilter("always")
            warnings.warn("something will be removed", FutureWarning, stacklevel=1)
        shown_by[verbose] = out.getvalue()
    assert shown_by[False] == ""
    assert "something will be removed" in shown_by[True]
