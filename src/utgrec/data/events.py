"""Events of several kinds and weights: which ones count as interactions, and with what weight.

A log may hold views, carts and purchases. Named kinds count, each with its weight; a column of
weights (a rating, a number of pieces, seconds) multiplies. Events below the smallest weight are
left out. All of it is counted, and what is left reaches `interactions.parquet` as two further
columns, `event` and `weight`. Training takes every interaction that is there alike.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from utgrec.config import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventOptions:
    """Which events count."""

    types: dict[str, float] = dataclasses.field(default_factory=dict)
    """Kind of event → its weight; kinds that are not named are left out. Empty = all count."""
    min_weight: float = 0.0
    """Events with a smaller weight are left out."""

    def __post_init__(self) -> None:
        numbers = [*self.types.values(), self.min_weight]
        require(
            all(
                isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n)
                for n in numbers
            )
            and min(numbers) >= 0,
            f"weights of events are numbers of 0 or more, got {self.types}, {self.min_weight}",
        )


class Events(NamedTuple):
    """What the events of n rows come to."""

    problem: pl.Series  # (n,), why a row cannot be used, or null
    counts: pl.Series  # (n,), whether the event counts
    columns: dict[str, pl.Series]  # further columns of interactions.parquet, each (n,)


class EventScale:
    """Weighs the events of a log, part by part, and counts what it leaves out."""

    def __init__(self, names: Mapping[str, str], options: EventOptions) -> None:
        """`names` is role (event, weight) → name of its column; roles without one are absent."""
        self._names, self._options = names, options
        self._read: Counter[str] = Counter()
        self._left: Counter[str] = Counter()
        self._left_out = 0

    def weigh(self, columns: Mapping[str, pl.Series], count: int) -> Events:
        """Weigh n events; `columns` is role → values as text (n,)."""
        problem = pl.repeat(None, count, dtype=pl.String, eager=True)
        weight = pl.repeat(1.0, count, dtype=pl.Float64, eager=True)
        counts = pl.repeat(True, count, dtype=pl.Boolean, eager=True)
        kept: dict[str, pl.Series] = {}
        types = self._options.types
        if "event" in columns:
            kind = columns["event"].str.strip_chars()
            kind = kind.set(kind.eq("").fill_null(False), None)
            if types:
                problem = problem.set(kind.is_null(), "missing event")
                weight = kind.replace_strict(
                    list(types), list(types.values()), default=None, return_dtype=pl.Float64
                )
                counts = weight.is_not_null()
                weight = weight.fill_null(0.0)
            kept["event"] = kind
        if "weight" in columns:
            given = columns["weight"].str.strip_chars().cast(pl.Float64, strict=False)
            wrong = given.is_null() | ~given.is_finite().fill_null(False)
            problem = problem.set(wrong & problem.is_null(), "unreadable weight")
            negative = (given < 0).fill_null(False) & ~wrong
            problem = problem.set(negative & problem.is_null(), "negative weight")
            weight = weight * given.fill_null(0.0).fill_nan(0.0)
        counts &= weight >= self._options.min_weight
        if self._names:
            kept["weight"] = weight.cast(pl.Float32)
        if "event" in kept:
            self._count(kept["event"], counts & problem.is_null())
        self._left_out += int((~counts & problem.is_null()).sum())
        return Events(problem, counts, kept)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records."""
        types = self._options.types
        return {
            "columns": dict(self._names),
            "min_weight": self._options.min_weight,
            "kinds": {
                name: {
                    "weight": types.get(name) if types else 1.0,
                    "read": self._read[name],
                    "left_out": self._read[name] - self._left[name],
                }
                for name in sorted(self._read)
            },
            "left_out": self._left_out,
            "stored": [name for name in ("event", "weight") if name in (*self._names, "weight")],
        }

    def _count(self, kinds: pl.Series, left: pl.Series) -> None:
        counted = pl.DataFrame({"kind": kinds, "left": left}).drop_nulls("kind")
        for name, read, kept in counted.group_by("kind").agg(pl.len(), pl.sum("left")).iter_rows():
            self._read[name] += read
            self._left[name] += kept
