"""Events of several kinds and weights: which ones count as interactions, and with what weight.

A log may hold views, carts and purchases. Named kinds count, each with its weight; a column of
weights (a rating, a number of pieces, seconds) multiplies. Events below the smallest weight are
left out. All of it is counted, and what is left reaches `interactions.parquet` as two further
columns, `event` and `weight`. Training takes every interaction that is there alike.
"""

import dataclasses
import math
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
    facts: dict[str, Any]


def read_events(
    columns: Mapping[str, pl.Series], names: Mapping[str, str], options: EventOptions, count: int
) -> Events:
    """Weigh the events of n rows.

    Args:
        columns: role (event, weight) → values as text (n,); roles without a column are absent.
        names: role → name of its column, for the manifest.
    """
    problem = pl.repeat(None, count, dtype=pl.String, eager=True)
    weight = pl.repeat(1.0, count, dtype=pl.Float64, eager=True)
    counts = pl.repeat(True, count, dtype=pl.Boolean, eager=True)
    kept: dict[str, pl.Series] = {}
    by_kind: dict[str, dict[str, Any]] = {}
    if "event" in columns:
        kind = columns["event"].str.strip_chars()
        kind = kind.set(kind.eq("").fill_null(False), None)
        if options.types:
            missing = kind.is_null()
            problem = problem.set(missing, "missing event")
            weight = kind.replace_strict(
                list(options.types),
                list(options.types.values()),
                default=None,
                return_dtype=pl.Float64,
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
    counts &= weight >= options.min_weight
    if kept or "weight" in columns:
        kept["weight"] = weight.cast(pl.Float32)
    if "event" in kept:
        table = pl.DataFrame({"kind": kept["event"], "left": counts & problem.is_null()})
        for name, read, left in (
            table.drop_nulls("kind")
            .group_by("kind")
            .agg(pl.len(), pl.col("left").sum().alias("left"))
            .sort("kind")
            .iter_rows()
        ):
            by_kind[name] = {
                "weight": options.types.get(name) if options.types else 1.0,
                "read": read,
                "left_out": read - left,
            }
    return Events(
        problem,
        counts,
        kept,
        {
            "columns": dict(names),
            "min_weight": options.min_weight,
            "kinds": by_kind,
            "left_out": int((~counts & problem.is_null()).sum()),
            "stored": list(kept),
        },
    )
