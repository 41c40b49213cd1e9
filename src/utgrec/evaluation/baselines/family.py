"""What every family of baselines fulfils: settings to try, and a system fitted with one of them.

A family learns from `split.train` alone. `split.valid` may only stop training early or choose
settings; the test items are for `evaluate` and nobody else.
"""

import dataclasses
import hashlib
import importlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Domain
from utgrec.config import fingerprint, require, to_dict
from utgrec.data.split import Split
from utgrec.errors import MissingDependency
from utgrec.evaluation.protocol import System, evaluate, sample_users
from utgrec.evaluation.result import Evaluation
from utgrec.progress import Progress, silent

S = TypeVar("S")


class FitInput(NamedTuple):
    """What a family is given to learn from."""

    domain: Domain  # its catalogue; the interactions are those of `split`
    split: Split  # of that domain, as it says itself
    exclude_seen: bool  # whether seen items can be recommended where settings are judged
    seed: int  # of everything random
    work: Path  # scratch folder; fits with other settings or seeds may share it

    @property
    def item_count(self) -> int:
        """Items of the catalogue, N."""
        return len(self.domain.catalog)

    def validation_users(self, most: int) -> npt.NDArray[np.int64]:
        """Users to measure on while settings are chosen or training is stopped."""
        return sample_users(self.split, most, (self.seed, 3))

    def validate(self, system: System, users: npt.NDArray[np.int64]) -> Evaluation:
        """How well a system guesses the validation items of some users, at 10."""
        return evaluate(
            system,
            self.split,
            part="valid",
            item_count=self.item_count,
            ks=(10,),
            exclude_seen=self.exclude_seen,
            users=users,
        )


class Family(Protocol[S]):
    """A kind of system with settings of its own class, a frozen dataclass."""

    @property
    def name(self) -> str:
        """Its name in plans and commands, such as "sasrec"."""
        ...

    @property
    def title(self) -> str:
        """Its name in tables, such as "SASRec"; also the name of the fitted system."""
        ...

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[S]:
        """At most `budget` different settings to try; the first is the sensible default."""
        ...

    def fit(self, given: FitInput, settings: S, progress: Progress = silent) -> System:
        """Learn from the training part. The same input gives the same system.

        Raises:
            MissingDependency: a library of the extra `baselines` is not installed.
        """
        ...


def grid_trials(default: S, grid: Mapping[str, Sequence[Any]], budget: int) -> list[S]:
    """The default, then other combinations of a grid in a random but fixed order.

    A random order spreads a small budget over all settings; it is the same for every family, so
    that the same budget means the same care.

    Raises:
        BadConfig: the budget is below 1.
    """
    require(budget >= 1, f"budget must be at least 1 trial, got {budget}")
    combinations = [
        dataclasses.replace(default, **dict(zip(grid, values, strict=True)))  # type: ignore[type-var]
        for values in itertools.product(*grid.values())
    ]
    order = np.random.default_rng(0).permutation(len(combinations))
    shuffled = (combinations[place] for place in order)
    return [default, *(settings for settings in shuffled if settings != default)][:budget]


def scratch(given: FitInput, name: str, made_from: Any) -> Path:
    """The path in `given.work` of what is made from these settings and this training input.

    The test items have no part in the name: what is kept there must not depend on them.
    """
    parts = {
        "made_from": made_from,
        "seed": given.seed,
        "exclude_seen": given.exclude_seen,
        "items": given.item_count,
        "split": _hash(given.split.offsets, given.split.train, given.split.valid),
    }
    return given.work / f"{name}-{fingerprint(parts)[:16]}"


def settings_key(settings: Any) -> dict[str, Any]:
    """Settings as JSON values, with the name of their class."""
    return {"class": type(settings).__name__, **to_dict(settings)}


def import_optional(module: str, family: str) -> Any:
    """A module that only some baselines need.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise MissingDependency(
            f"the baseline {family!r} needs the package {missing.partition('.')[0]!r}, which is "
            "not installed; install it with: pip install 'utgrec[baselines]'"
        ) from error


def _hash(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
