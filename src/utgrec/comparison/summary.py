"""From finished cells to figures: averages, intervals, tests, groups and cost, as JSON values.

The tables, the page and `comparison.json` are all made from these values. Seconds and MiB are under
`measured`, apart from the rest: they alone differ between two runs of the same plan.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from utgrec.catalog import Domain
from utgrec.comparison.cells import find_system, needs_tuning, read_cell, read_tuning, tuning_task
from utgrec.comparison.folder import ComparisonFolder, Resolved, Task
from utgrec.comparison.grouping import shown_groups
from utgrec.comparison.plan import ComparisonPlan
from utgrec.config import to_dict
from utgrec.data.split import Split, split_domain, split_words
from utgrec.evaluation.chance import chances
from utgrec.evaluation.groups import Grouping, group_figures
from utgrec.evaluation.intervals import PairedTest, holm, mean_intervals, paired_test
from utgrec.evaluation.metrics import MetricTable, to_json_float
from utgrec.evaluation.result import Evaluation, check_comparable
from utgrec.evaluation.seeds import SeedAverage, average_seeds
from utgrec.storage import Manifest

JSON = dict[str, Any]


class Cell(NamedTuple):
    """One system on one domain with one seed."""

    task: Task
    manifest: Manifest
    evaluation: Evaluation


class DomainCells(NamedTuple):
    """All cells of one domain."""

    domain: Domain
    split: Split
    cells: dict[str, list[Cell]]  # system → one for each seed, in the order of the plan
    averages: list[SeedAverage]


def read_cells(folder: ComparisonFolder, resolved: Resolved, tasks: Sequence[Task]) -> list[Cell]:
    """Every finished cell.

    Raises:
        MissingStage, CorruptFile: a cell is not there, or not as it was written.
    """
    return [Cell(task, *read_cell(folder, task)) for task in tasks if task.kind == "cell"]


def summarise(folder: ComparisonFolder, resolved: Resolved, cells: Sequence[Cell]) -> JSON:
    """The whole comparison as JSON values."""
    plan = resolved.plan
    domains = [
        _gather(Domain.open(path), [cell for cell in cells if cell.task.domain == name])
        for name, path in resolved.domains.items()
    ]
    tests = {
        (gathered.domain.name, average.system): test
        for gathered in domains
        for average, test in _tests(plan, gathered)
    }
    corrected = holm([test.p_value for test in tests.values()])
    p_values = dict(zip(tests, corrected, strict=True))
    described = []
    for gathered in domains:
        name = gathered.domain.name
        described.append(
            {
                **_describe(gathered),
                "systems": [
                    {
                        **_system(plan, gathered, average),
                        "reference_minus_system": _test(
                            tests.get((name, average.system)), p_values.get((name, average.system))
                        ),
                    }
                    for average in gathered.averages
                ],
                "groups": _groups(plan, gathered),
                "tuning": _tuning(folder, plan, name),
            }
        )
    return {
        "title": plan.title,
        "reference": plan.reference,
        "metric": plan.metric,
        "seeds": list(plan.seeds),
        "exclude_seen": plan.exclude_seen,
        "part": "test",
        "budget": plan.budget,
        "budgets": plan.budgets,
        "resamples": plan.resamples,
        "group_users": plan.group_users,
        "tests": len(tests),
        "domains": described,
        "plan": to_dict(plan),
        "measured": {
            gathered.domain.name: {
                system: _cost(folder, plan, gathered.domain.name, system, found)
                for system, found in gathered.cells.items()
            }
            for gathered in domains
        },
    }


def cell_rows(cells: Sequence[Cell]) -> list[JSON]:
    """One row per domain, system, seed and metric; also coverage, seconds and MiB."""
    rows = []
    for cell in cells:
        evaluation, measured = cell.evaluation, cell.manifest.measured
        values = {name: evaluation.mean(name) for name in evaluation.metrics.names}
        for k, share in zip(evaluation.ks, evaluation.coverage, strict=True):
            values[f"coverage@{k}"] = share
        values["train_s"] = measured["train_s"]
        values["peak_memory_mib"] = _peak(cell)
        values["ms_per_user"] = measured["ms_per_user"]
        rows += [
            {
                "domain": cell.task.domain,
                "system": cell.task.system,
                "seed": cell.task.seed,
                "metric": name,
                "value": float(value),
            }
            for name, value in values.items()
        ]
    return rows


def _gather(domain: Domain, cells: Sequence[Cell]) -> DomainCells:
    by_system: dict[str, list[Cell]] = {}
    for cell in cells:
        by_system.setdefault(cell.task.system, []).append(cell)
    averages = [
        average_seeds([cell.evaluation for cell in found], system=system)
        for system, found in by_system.items()
    ]
    check_comparable(averages)
    return DomainCells(domain, split_domain(domain), by_system, averages)


def _tests(plan: ComparisonPlan, gathered: DomainCells) -> list[tuple[SeedAverage, PairedTest]]:
    """The reference against every other system of a domain."""
    named = {average.system: average for average in gathered.averages}
    own = named[plan.reference].metrics.column(plan.metric)
    return [
        (
            average,
            paired_test(own, average.metrics.column(plan.metric), resamples=plan.resamples),
        )
        for average in gathered.averages
        if average.system != plan.reference
    ]


def _describe(gathered: DomainCells) -> JSON:
    domain, first = gathered.domain, gathered.averages[0].evaluations[0]
    facts = domain.manifest.facts if domain.manifest is not None else {}
    return {
        "name": domain.name,
        "fingerprint": domain.fingerprint,
        "users": len(first.users),
        "items": first.item_count,
        "interactions": domain.interaction_count,
        **split_words(domain),
        "targets_in_history": int(first.repeats.sum()),
        "cold": facts.get("cold"),
    }


def _system(plan: ComparisonPlan, gathered: DomainCells, average: SeedAverage) -> JSON:
    """The figures of one system on one domain."""
    cells = gathered.cells[average.system]
    intervals = mean_intervals(average.metrics.values, resamples=plan.resamples)
    spread = average.spread
    wanted = find_system(plan, average.system)
    kinds = {"family": wanted.family, "recipe": wanted.recipe, "runs": wanted.runs}
    return {
        "system": average.system,
        "kind": next(kind for kind, given in kinds.items() if given),
        "seeds": [cell.task.seed for cell in cells],
        "beam": cells[0].manifest.facts.get("beam"),
        "settings": cells[0].manifest.facts.get("settings"),
        "seed_values": [
            to_json_float(evaluation.mean(plan.metric)) for evaluation in average.evaluations
        ],
        "metrics": {
            name: {
                **interval.rounded(),
                "sd": None if spread is None else to_json_float(spread[name]),
            }
            for name, interval in zip(average.metrics.names, intervals, strict=True)
        },
        "coverage": {
            str(k): to_json_float(share)
            for k, share in zip(average.ks, average.coverage, strict=True)
        },
    }


def _test(test: PairedTest | None, p_corrected: float | None) -> JSON | None:
    if test is None or p_corrected is None:
        return None
    return {
        "difference": test.difference.rounded(),
        "p_value": to_json_float(test.p_value),
        "p_corrected": to_json_float(p_corrected),
        "reference_better": test.better,
        "reference_worse": test.worse,
    }


def _groups(plan: ComparisonPlan, gathered: DomainCells) -> list[JSON]:
    """The tested metric of every group that is large enough, and what chance would reach there."""
    luck = chances(gathered.averages[0].evaluations[0], gathered.split)
    rows = []
    for shown in shown_groups(plan, gathered.domain, gathered.split):
        figures = {
            average.system: group_figures(
                average, shown.grouping, plan.metric, resamples=plan.resamples
            )
            for average in gathered.averages
        }
        for place, label in enumerate(shown.grouping.labels):
            own = next(iter(figures.values()))[place]
            if own.users == 0:
                continue
            large = shown.large[place]
            rows.append(
                {
                    "key": shown.key,
                    "grouping": shown.grouping.name,
                    "group": label,
                    "users": own.users,
                    "systems": {
                        system: found[place].interval.rounded()  # type: ignore[union-attr]
                        for system, found in figures.items()
                    }
                    if large
                    else None,
                    "chance": _mean(luck.uniform, plan.metric, shown.grouping, place),
                    "chance_by_popularity": _mean(
                        luck.by_popularity, plan.metric, shown.grouping, place
                    ),
                }
            )
    return rows


def _mean(table: MetricTable, metric: str, grouping: Grouping, place: int) -> float:
    """The mean of a metric over one group."""
    return to_json_float(table.column(metric)[grouping.members == place].mean())


def _tuning(folder: ComparisonFolder, plan: ComparisonPlan, domain: str) -> JSON:
    """Family → what was tried on a domain, without the seconds."""
    records = {}
    for system in plan.systems:
        if system.family is not None and needs_tuning(plan, system):
            chosen = read_tuning(folder, tuning_task(plan, domain, system))
            records[system.family] = {"settings": chosen.settings, **chosen.record}
    return records


def _cost(
    folder: ComparisonFolder, plan: ComparisonPlan, domain: str, system: str, cells: list[Cell]
) -> JSON:
    """Seconds and MiB of one system on one domain: means over the seeds, and the highest peak."""
    wanted = find_system(plan, system)
    tuning = None
    if needs_tuning(plan, wanted):
        tuning = read_tuning(folder, tuning_task(plan, domain, wanted)).seconds
    return {
        "train_s": round(float(np.mean([c.manifest.measured["train_s"] for c in cells])), 3),
        "tuning_s": tuning,
        "peak_memory_mib": max(_peak(cell) for cell in cells),
        "ms_per_user": round(
            float(np.mean([c.manifest.measured["ms_per_user"] for c in cells])), 4
        ),
    }


def _peak(cell: Cell) -> float:
    measured = cell.manifest.measured
    return float(max(measured["peak_memory_mib"], measured["train_peak_mib"]))
