"""Choose the settings of a baseline on the validation part, so that the baseline is an honest one.

A baseline left at its defaults flatters whatever is compared with it: on beauty, decay and shrink
together take ItemKNN's Recall@10 of the test item from .066 to .083 (fitted on training and
validation items). Every setting that was tried is kept with its result.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec import storage
from utgrec.config import fingerprint, require
from utgrec.errors import InputError
from utgrec.evaluation.baselines.family import (
    Family,
    FitInput,
    scratch,
    settings_key,
)
from utgrec.progress import Progress, silent

METRIC = "ndcg@10"


class Trial(NamedTuple):
    """One combination of settings and what it gave."""

    settings: Any  # the family's own class
    metrics: dict[str, float]  # means over the validation users, among them METRIC
    seconds: float  # to fit (s); small where an earlier trial had done a part of the work

    @property
    def ndcg(self) -> float:
        """What is compared: NDCG@10 on the validation part."""
        return self.metrics[METRIC]

    def to_json(self, *, seconds: bool = True) -> dict[str, Any]:
        """JSON values; without the seconds they are the same in every run."""
        values = {"settings": settings_key(self.settings), "metrics": self.metrics}
        return {**values, "seconds": self.seconds} if seconds else values


class Tuning(NamedTuple):
    """All trials of a family on a domain, and the best."""

    family: str  # name of the family
    best: Trial
    trials: list[Trial]
    users: int  # validation users that each trial was measured on

    def to_json(self, *, seconds: bool = True) -> dict[str, Any]:
        """The record to keep with the figures of the baseline."""
        return {
            "family": self.family,
            "metric": f"{METRIC} on valid",
            "users": self.users,
            "best": self.best.to_json(seconds=seconds),
            "trials": [trial.to_json(seconds=seconds) for trial in self.trials],
        }


def tune(
    family: Family[Any],
    given: FitInput,
    budget: int,
    *,
    max_users: int = 2000,
    progress: Progress = silent,
) -> Tuning:
    """The settings with the highest NDCG@10 on the validation part; the first among equals.

    Finished trials are kept in `given.work`, so that an interrupted search goes on where it was.
    The best settings have to be fitted again; families that keep their work there are quick at it.

    Raises:
        BadConfig: the budget is below 1.
        InputError: nobody has a validation item.
    """
    require(max_users >= 1, f"max_users must be at least 1, got {max_users}")
    users = given.validation_users(max_users)
    if len(users) == 0:
        raise InputError(
            f"domain {given.domain.name!r} has no user with a validation item "
            f"({given.domain.split.words}) to choose settings by; take the default settings instead"
        )
    candidates = family.trials(budget, exclude_seen=given.exclude_seen)
    trials = []
    for place, settings in enumerate(candidates):
        trials.append(_try(family, given, settings, users, progress))
        progress(f"Tuning {family.title}", place + 1, len(candidates), f"{trials[-1].ndcg:.4f}")
    return Tuning(family.name, max(trials, key=lambda trial: trial.ndcg), trials, len(users))


def _try(
    family: Family[Any],
    given: FitInput,
    settings: Any,
    users: npt.NDArray[np.int64],
    progress: Progress,
) -> Trial:
    made_from = {
        "family": family.name,
        "settings": settings_key(settings),
        "users": fingerprint(users.tolist()),
    }
    path = scratch(given, "trial", made_from).with_suffix(".json")
    if path.is_file():
        kept = storage.read_json(path)
        return Trial(settings, kept["metrics"], kept["seconds"])
    started = time.monotonic()
    system = family.fit(given, settings, progress)
    seconds = time.monotonic() - started
    evaluation = given.validate(system, users)
    metrics = {name: evaluation.mean(name) for name in ("recall@10", METRIC)}
    trial = Trial(settings, metrics, round(seconds, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_json(path, trial.to_json())
    return trial
