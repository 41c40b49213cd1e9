"""How long work tells that it goes on: one callable, given by whoever wants to see it."""

from typing import Protocol


class Progress(Protocol):
    """Called now and then by anything that takes long."""

    def __call__(self, work: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `work` are finished; `note` is a figure such as a loss."""


def silent(work: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""


def quiet_transformers() -> None:
    """Keep transformers' own progress bars and warnings off the terminal, in this process."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
