"""The baseline families that a plan can name: the one file that knows how baselines are made."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from utgrec.catalog import Domain
from utgrec.config import require, to_dict
from utgrec.data.split import Split
from utgrec.evaluation.itemknn import ItemKNN
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import System
from utgrec.evaluation.tuning import ItemKNNGrid, tune_itemknn
from utgrec.progress import Progress

FAMILIES = ("popularity", "itemknn")


class FitInput(NamedTuple):
    """What a family may learn from."""

    domain: Domain
    split: Split
    exclude_seen: bool
    seed: int
    work: Path  # private scratch folder


class Chosen(NamedTuple):
    """The settings of a family on a domain, and how they came about."""

    place: int  # among the family's trials
    record: dict[str, Any]  # JSON values: every trial with its settings and its result


def check_family(name: str) -> None:
    """Refuse a family that there is not.

    Raises:
        BadConfig: names those that there are.
    """
    require(name in FAMILIES, f"there is no family {name!r}; there are {', '.join(FAMILIES)}")


def can_be_tuned(name: str, budget: int) -> bool:
    """Whether there is anything to choose."""
    return len(_trials(name, budget)) > 1


def tune_family(name: str, given: FitInput, budget: int, progress: Progress) -> Chosen:
    """Choose among the trials of a family by the validation items."""
    began = time.perf_counter()
    tuning = tune_itemknn(
        given.split,
        len(given.domain.catalog),
        exclude_seen=given.exclude_seen,
        grid=_grid(budget),
        seed=given.seed,
    )
    best = tuning.trials.index(tuning.best)
    progress(f"Tuning {name}", len(tuning.trials), len(tuning.trials))
    return Chosen(best, {**tuning.to_json(), "seconds": time.perf_counter() - began})


def fit_family(
    name: str, given: FitInput, chosen: Chosen | None, budget: int, progress: Progress
) -> System:
    """Train a family with the chosen settings, or with its defaults."""
    count = len(given.domain.catalog)
    if name == "popularity":
        return Popularity.fit(given.split, count)
    if chosen is None:
        return ItemKNN.fit(given.split, count)
    from utgrec.config import from_dict
    from utgrec.evaluation.itemknn import ItemKNNConfig

    return ItemKNN.fit(given.split, count, from_dict(ItemKNNConfig, chosen.record["best"]))


def _grid(budget: int) -> ItemKNNGrid:
    return ItemKNNGrid(neighbours=(100,), shrink=(0.0, 20.0), decay=(1.0, 0.8, 0.6, 0.4)[:budget])


def _trials(name: str, budget: int) -> list[Any]:
    grid = to_dict(_grid(budget))
    return [None] if name == "popularity" else list(grid["decay"]) * len(grid["shrink"])
