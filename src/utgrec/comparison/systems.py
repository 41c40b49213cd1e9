"""The baseline families that a plan can name: the one file that knows how baselines are made."""

from typing import Any, NamedTuple

from utgrec.evaluation.baselines import FitInput, find_family, tune
from utgrec.evaluation.protocol import System
from utgrec.progress import Progress

__all__ = ["Chosen", "FitInput", "check_family", "count_trials", "fit_family", "tune_family"]


class Chosen(NamedTuple):
    """The settings of a family on a domain, and how they came about."""

    place: int  # among the family's trials
    settings: dict[str, Any]  # as JSON values
    record: dict[str, Any]  # JSON values: every trial with its settings and its result
    seconds: float  # that the search took (s)


def check_family(name: str) -> None:
    """Refuse a family that there is not.

    Raises:
        BadConfig: names those that there are.
    """
    find_family(name)


def count_trials(name: str, budget: int, *, exclude_seen: bool) -> int:
    """How many settings of a family would be tried; with one there is nothing to choose."""
    return len(find_family(name).trials(budget, exclude_seen=exclude_seen))


def tune_family(name: str, given: FitInput, budget: int, progress: Progress) -> Chosen:
    """Choose among the settings of a family by the validation items."""
    tuning = tune(find_family(name), given, budget, progress=progress)
    record = tuning.to_json(seconds=False)
    settings = dict(record["best"]["settings"])
    settings.pop("class", None)
    seconds = sum(trial.seconds for trial in tuning.trials)
    return Chosen(tuning.trials.index(tuning.best), settings, record, seconds)


def fit_family(
    name: str, given: FitInput, chosen: Chosen | None, budget: int, progress: Progress
) -> System:
    """Train a family with the chosen settings, or with its defaults."""
    family = find_family(name)
    place = 0 if chosen is None else chosen.place
    return family.fit(
        given, family.trials(budget, exclude_seen=given.exclude_seen)[place], progress
    )
