"""What was measured, for people: the headline of a domain, the systems side by side, the groups."""

from typing import Any, NamedTuple

import numpy as np

from utgrec.catalog import LEAVE_ONE_OUT
from utgrec.evaluation.groups import group_figures, standard_groupings
from utgrec.evaluation.intervals import Interval
from utgrec.report.source import DomainSource

HEADLINE = "ndcg@10"


class MetricCell(NamedTuple):
    """One figure of one system."""

    interval: Interval
    best: bool  # the best of its column; the oracle does not compete


class SystemRow(NamedTuple):
    """One line of the comparison."""

    system: str
    role: str  # reference, baseline or oracle
    cells: list[MetricCell]
    coverage: float  # share of the catalogue, at the deepest cut
    share: Interval | None  # of the oracle
    difference: Interval | None  # the reference minus this system
    p_value: float | None  # corrected for the number of systems
    better: int | None  # users for whom the reference is better than this system
    worse: int | None
    milliseconds: float | None  # per user
    low: float  # left end of the headline metric's interval, in % of the widest
    middle: float
    high: float


class Headline(NamedTuple):
    """The result of a domain in one sentence."""

    reference: str
    value: Interval
    baseline: str | None  # the best one; None when there is no baseline
    baseline_value: Interval | None
    difference: Interval | None
    p_value: float | None
    share: Interval | None
    verdict: str  # ahead, behind or level


class Results(NamedTuple):
    """The comparison of one domain."""

    domain: str
    headline: Headline
    metrics: list[str]
    rows: list[SystemRow]
    metric: str  # of the paired tests and of the oracle's share
    reference: str
    depth: int  # deepest cut
    users: int
    items: int
    beam: int | None
    exclude_seen: bool
    split: str
    repeats: int | None  # targets in the user's own history
    part: str
    scale: float  # value at the right end of the drawn intervals


class GroupRow(NamedTuple):
    """One group of users."""

    grouping: str  # empty when it is that of the row above
    label: str
    users: int
    cells: list[tuple[Interval, bool]]  # one per system, and whether it is the best


class Groups(NamedTuple):
    """One metric by group; no rows when the domain is not there any more."""

    systems: list[str]
    rows: list[GroupRow]
    scale: float  # largest figure
    missing: str


def results(source: DomainSource) -> Results:
    """The comparison of one domain, from its `comparison.json`."""
    found = source.comparison
    reference, metric = found["reference"], found["metric"]
    rows = found["rows"]
    metrics = list(rows[0]["metrics"])
    roles = {row["system"]: _role(row, reference) for row in rows}
    own = [row for row in rows if roles[row["system"]] != "oracle"]
    top = {name: max(row["metrics"][name]["value"] for row in own) for name in metrics}
    depth = max(int(k) for k in rows[0]["coverage"])
    scale = max(row["metrics"][HEADLINE]["high"] for row in rows) or 1.0
    milliseconds = source.evaluated.measured
    lines = []
    for row in rows:
        test = row["reference_minus_system"]
        drawn = Interval(**row["metrics"][HEADLINE])
        lines.append(
            SystemRow(
                system=row["system"],
                role=roles[row["system"]],
                cells=[
                    MetricCell(
                        interval=Interval(**row["metrics"][name]),
                        best=roles[row["system"]] != "oracle"
                        and row["metrics"][name]["value"] == top[name] > 0,
                    )
                    for name in metrics
                ],
                coverage=row["coverage"][str(depth)],
                share=_interval(row["oracle_share"]),
                difference=_interval(test and test["difference"]),
                p_value=test and test["p_corrected"],
                better=test and test["reference_better"],
                worse=test and test["reference_worse"],
                milliseconds=milliseconds.get(f"ms_per_user {row['system']}"),
                low=100 * drawn.low / scale,
                middle=100 * drawn.value / scale,
                high=100 * drawn.high / scale,
            )
        )
    evaluation = source.evaluations.get(reference)
    return Results(
        domain=source.name,
        headline=_headline(rows, roles, reference),
        metrics=metrics,
        rows=lines,
        metric=metric,
        reference=reference,
        depth=depth,
        users=found["users"],
        items=found["items"],
        beam=source.evaluated.facts.get("beam"),
        exclude_seen=found["exclude_seen"],
        split=found.get("split", LEAVE_ONE_OUT.words),
        repeats=None if evaluation is None else int(evaluation.repeats.sum()),
        part=found["part"],
        scale=scale,
    )


def groups(source: DomainSource) -> Groups:
    """NDCG@10 by popularity of the target, history length, image and cold items."""
    evaluations = list(source.evaluations.values())
    if source.domain is None or source.split is None or not evaluations:
        return Groups([], [], 1.0, source.missing or "the ranks of the users are not there")
    oracles = {row["system"] for row in source.comparison["rows"] if _is_oracle(source, row)}
    has_image = np.array([image is not None for image in source.domain.catalog.images], np.bool_)
    # Where no item has a picture, or every one, there is nothing to compare.
    shown = has_image if 0 < has_image.sum() < len(has_image) else None
    rows, scale = [], 0.0
    for grouping in standard_groupings(evaluations[0], source.split, shown):
        columns = [group_figures(evaluation, grouping, HEADLINE) for evaluation in evaluations]
        title = grouping.name
        for place, label in enumerate(grouping.labels):
            cells = [figures[place].interval for figures in columns]
            present = [cell for cell in cells if cell is not None]
            if len(present) < len(cells):
                continue
            top = max(
                cell.value
                for cell, evaluation in zip(present, evaluations, strict=True)
                if evaluation.system not in oracles
            )
            scale = max(scale, *(cell.value for cell in present))
            marked = [
                (cell, evaluation.system not in oracles and cell.value == top > 0)
                for cell, evaluation in zip(present, evaluations, strict=True)
            ]
            rows.append(GroupRow(title, label, columns[0][place].users, marked))
            title = ""
    return Groups([evaluation.system for evaluation in evaluations], rows, scale or 1.0, "")


def _headline(rows: list[dict[str, Any]], roles: dict[str, str], reference: str) -> Headline:
    own = next(row for row in rows if row["system"] == reference)
    baselines = [row for row in rows if roles[row["system"]] == "baseline"]
    value = Interval(**own["metrics"][HEADLINE])
    share = _interval(own["oracle_share"])
    if not baselines:
        return Headline(reference, value, None, None, None, None, share, "level")
    best = max(baselines, key=lambda row: float(row["metrics"][HEADLINE]["value"]))
    test = best["reference_minus_system"]
    difference = Interval(**test["difference"])
    verdict = "ahead" if difference.low > 0 else "behind" if difference.high < 0 else "level"
    return Headline(
        reference=reference,
        value=value,
        baseline=best["system"],
        baseline_value=Interval(**best["metrics"][HEADLINE]),
        difference=difference,
        p_value=test["p_corrected"],
        share=share,
        verdict=verdict,
    )


def _role(row: dict[str, Any], reference: str) -> str:
    """The oracle is the one that the reference is not tested against."""
    if row["system"] == reference:
        return "reference"
    return "oracle" if row["reference_minus_system"] is None else "baseline"


def _is_oracle(source: DomainSource, row: dict[str, Any]) -> bool:
    return _role(row, source.comparison["reference"]) == "oracle"


def _interval(values: dict[str, float] | None) -> Interval | None:
    return None if values is None else Interval(**values)
