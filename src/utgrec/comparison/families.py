"""Stand-in for `utgrec.evaluation.baselines`: the same names and signatures, two families."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from utgrec.catalog import Domain
from utgrec.config import to_dict
from utgrec.data.split import Split
from utgrec.errors import BadConfig
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import System, evaluate
from utgrec.progress import Progress, silent


class FitInput(NamedTuple):
    """What a family is given to learn from."""

    domain: Domain
    split: Split
    exclude_seen: bool
    seed: int
    work: Path  # scratch folder


class Family(Protocol):
    """A kind of system with settings of its own class."""

    @property
    def title(self) -> str:
        """Its name in tables."""
        ...

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[Any]:
        """At most `budget` settings; the first is the default."""
        ...

    def fit(self, given: FitInput, settings: Any, progress: Progress = silent) -> System:
        """Learn from the training part."""
        ...


class _Popularity:
    title = "Popularity"

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[Any]:
        return [None]

    def fit(self, given: FitInput, settings: Any, progress: Progress = silent) -> System:
        return Popularity.fit(given.split, len(given.domain.catalog))


class _ItemKNN:
    title = "ItemKNN"

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[Any]:
        pairs = itertools.product((0.0, 20.0), (1.0, 0.8, 0.6, 0.4))
        return [ItemKNNConfig(shrink=shrink, decay=decay) for shrink, decay in pairs][:budget]

    def fit(self, given: FitInput, settings: Any, progress: Progress = silent) -> System:
        return ItemKNN.fit(given.split, len(given.domain.catalog), settings)


FAMILIES: dict[str, Family] = {"popularity": _Popularity(), "itemknn": _ItemKNN()}


def find_family(name: str) -> Family:
    """The family of a name.

    Raises:
        BadConfig: there is no such family.
    """
    if name not in FAMILIES:
        raise BadConfig(f"there is no baseline {name!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


class Trial(NamedTuple):
    """One combination of settings and what it gave."""

    settings: Any
    ndcg: float
    seconds: float


class Tuning(NamedTuple):
    """All trials, and the best."""

    best: Trial
    trials: list[Trial]

    def to_json(self, *, seconds: bool = True) -> dict[str, Any]:
        """The record to keep."""
        trials = [
            {"settings": to_dict(trial.settings), "metrics": {"ndcg@10": trial.ndcg}}
            for trial in self.trials
        ]
        return {"best": trials[self.trials.index(self.best)], "trials": trials}


def tune(family: Family, given: FitInput, budget: int, *, progress: Progress = silent) -> Tuning:
    """The settings with the highest NDCG@10 on the validation part."""
    trials = []
    for settings in family.trials(budget, exclude_seen=given.exclude_seen):
        began = time.monotonic()
        evaluation = evaluate(
            family.fit(given, settings, progress),
            given.split,
            part="valid",
            item_count=len(given.domain.catalog),
            ks=(10,),
            exclude_seen=given.exclude_seen,
        )
        trials.append(Trial(settings, evaluation.mean("ndcg@10"), time.monotonic() - began))
    return Tuning(max(trials, key=lambda trial: trial.ndcg), trials)
