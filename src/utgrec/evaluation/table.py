"""Systems side by side: figures with intervals, share of the oracle, and paired tests.

The interval of a system says how sure its figure is. Whether two systems differ is said by the
paired test alone: both saw the same users, so their intervals may overlap and they still differ.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from utgrec.errors import InputError
from utgrec.evaluation.intervals import (
    Interval,
    PairedTest,
    holm,
    mean_intervals,
    paired_test,
    statistic_intervals,
)
from utgrec.evaluation.metrics import Floats, to_json_float
from utgrec.evaluation.result import Measured, check_comparable
from utgrec.evaluation.sheet import Sheet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One system of a comparison."""

    system: str
    """Name of the system."""
    metrics: dict[str, Interval]
    """Every metric with its interval."""
    coverage: dict[int, float]
    """k → share of the catalogue recommended to somebody."""
    oracle_share: Interval | None
    """This system's value of the tested metric divided by the oracle's; None without an oracle."""
    test: PairedTest | None
    """The reference against this system; None for the reference itself and for the oracle."""
    p_corrected: float | None
    """P-value of `test`, corrected for the number of systems tested (Holm)."""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        test = None
        if self.test is not None and self.p_corrected is not None:
            test = {
                "difference": self.test.difference.rounded(),
                "p_value": to_json_float(self.test.p_value),
                "p_corrected": to_json_float(self.p_corrected),
                "reference_better": self.test.better,
                "reference_worse": self.test.worse,
            }
        return {
            "system": self.system,
            "metrics": {name: interval.rounded() for name, interval in self.metrics.items()},
            "coverage": {str(k): to_json_float(share) for k, share in self.coverage.items()},
            "oracle_share": None if self.oracle_share is None else self.oracle_share.rounded(),
            "reference_minus_system": test,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several systems on the same users."""

    part: str
    """valid or test."""
    exclude_seen: bool
    """Whether items of the user's own history could not be recommended."""
    users: int
    """Evaluated users."""
    items: int
    """Items of the catalogue."""
    metric: str
    """The metric of the paired tests and of the oracle's share."""
    reference: str | None
    """The system that all others are tested against."""
    rows: tuple[Row, ...]
    """Systems in the given order, the oracle last."""

    def to_json(self) -> dict[str, Any]:
        """JSON values, everything."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "rows": [row.to_json() for row in self.rows]}

    def sheet(self) -> Sheet:
        """A table to read: `.to_markdown()` or `.to_rich()`."""
        seen = "removed" if self.exclude_seen else "kept"
        names = list(self.rows[0].metrics)
        depth = max(self.rows[0].coverage)
        header = ["system", *names, f"coverage@{depth}"]
        with_share = any(row.oracle_share is not None for row in self.rows)
        header += [f"share of oracle's {self.metric}"] if with_share else []
        header += [f"{self.reference} − it, {self.metric}", "p"] if self.reference else []
        lines = []
        for row in self.rows:
            line = [row.system, *(row.metrics[name].text for name in names)]
            line.append(f"{row.coverage[depth]:.1%}")
            if with_share:
                line.append("" if row.oracle_share is None else f"{row.oracle_share.value:.1%}")
            if self.reference:
                line += _test_cells(row)
            lines.append(line)
        return Sheet(
            title=f"{self.part}: {self.users:,} users, {self.items:,} items, seen items {seen}",
            header=header,
            lines=lines,
        )


def comparison(
    evaluations: Sequence[Measured],
    oracle: Measured | None = None,
    reference: str | None = "UTGRec",
    *,
    metric: str = "ndcg@10",
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Put systems side by side; test the reference against every other one on `metric`.

    Raises:
        InputError: not the same users, targets and settings; a name twice; no such reference.
    """
    _check_names_and_rules([*evaluations, *([oracle] if oracle is not None else [])])
    named = {evaluation.system: evaluation for evaluation in evaluations}
    if reference is not None and reference not in named:
        raise InputError(
            f"the reference {reference!r} is not among the systems {', '.join(named)}; "
            "name one of them, or pass reference=None for no tests"
        )
    tests: dict[str, PairedTest] = {}
    if reference is not None:
        own = named[reference].metrics.column(metric)
        tests = {
            name: paired_test(own, evaluation.metrics.column(metric), seed=seed)
            for name, evaluation in named.items()
            if name != reference
        }
    corrected = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    rows = []
    for evaluation in [*evaluations, *([oracle] if oracle is not None else [])]:
        table = evaluation.metrics
        intervals = mean_intervals(table.values, resamples=resamples, seed=seed)
        share = None
        if oracle is not None:
            share = _share(table.column(metric), oracle.metrics.column(metric), resamples, seed)
        rows.append(
            Row(
                system=evaluation.system,
                metrics=dict(zip(table.names, intervals, strict=True)),
                coverage=dict(zip(evaluation.ks, evaluation.coverage, strict=True)),
                oracle_share=share,
                test=tests.get(evaluation.system),
                p_corrected=corrected.get(evaluation.system),
            )
        )
    first = evaluations[0]
    return Comparison(
        part=first.part,
        exclude_seen=first.exclude_seen,
        users=len(first.users),
        items=first.item_count,
        metric=metric,
        reference=reference,
        rows=tuple(rows),
    )


def _share(own: Floats, best: Floats, resamples: int, seed: int) -> Interval | None:
    """Ratio of two means on the same users; None where the oracle never hits."""
    if best.mean() == 0:
        return None

    def ratio(means: Floats) -> Floats:
        # A resample in which the oracle never hits has no ratio; it is as bad as it can be.
        top, bottom = means[:, 0], means[:, 1]
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)[:, None]

    return statistic_intervals(np.stack([own, best], 1), ratio, resamples=resamples, seed=seed)[0]


def _check_names_and_rules(evaluations: Sequence[Measured]) -> None:
    if not evaluations:
        raise InputError("a comparison needs at least 1 evaluation, got 0")
    names = [evaluation.system for evaluation in evaluations]
    if len(set(names)) != len(names):
        raise InputError(f"systems must have different names, got {', '.join(names)}")
    check_comparable(evaluations)


def _test_cells(row: Row) -> list[str]:
    if row.test is None or row.p_corrected is None:
        return ["", ""]
    difference = row.test.difference
    text = f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    return [text, f"{row.p_corrected:.4f}"]
