"""What can be known to go wrong before any work starts.

The domains are opened here, and those with cold items derived, since all checks need them.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.comparison import systems
from utgrec.comparison.cells import find_system, needs_tuning, origin, tuning_task
from utgrec.comparison.folder import ComparisonFolder, Resolved, Task
from utgrec.comparison.grouping import check_groups
from utgrec.comparison.plan import ComparisonPlan
from utgrec.config import require
from utgrec.data.cold import SUFFIX, hold_out_items
from utgrec.data.derived import check_unrelated
from utgrec.data.split import check_one_split, split_domain
from utgrec.errors import EmptyDomain, SettingsMismatch
from utgrec.evaluation.metrics import metric_table
from utgrec.evaluation.protocol import KS

_NO_RANKS = np.zeros(0, dtype=np.int64)


class Work:
    """A checked plan: its domains and its tasks, in the order in which they are done."""

    def __init__(self, resolved: Resolved, tasks: Sequence[Task], finished: int) -> None:
        self.resolved = resolved
        self.tasks = tuple(tasks)
        self.finished = finished  # tasks that were done before


def check_plan(plan: ComparisonPlan) -> None:
    """Check the systems and the metric; nothing is read.

    Raises:
        BadConfig: an unknown family, recipe, setting or metric.
    """
    metrics = metric_table(_NO_RANKS, KS).names
    require(
        plan.metric in metrics,
        f"there is no metric {plan.metric!r}; there are {', '.join(metrics)}",
    )
    for system in plan.systems:
        if system.family is not None:
            systems.check_family(system.family)
        if system.recipe is not None:
            from utgrec.comparison.trained import recipe_of

            for seed in plan.seeds:
                recipe_of(plan, system, seed)


def open_domains(plan: ComparisonPlan, folder: ComparisonFolder) -> Resolved:
    """Open every domain, and derive those with cold items.

    Raises:
        BadConfig: two domains of the same name, or one whose name is no folder name.
        MissingStage, CorruptFile, FormatVersionError: a domain folder cannot be used.
    """
    opened = [Domain.open(domain.folder) for domain in plan.domains]
    names = [
        domain.name + (SUFFIX if wanted.cold_share else "")
        for domain, wanted in zip(opened, plan.domains, strict=True)
    ]
    for name, wanted in zip(names, plan.domains, strict=True):
        require(
            re.fullmatch(r"\w[\w.-]{0,99}", name) is not None and name[0] != "_",
            f"the domain in {wanted.folder} is named {name!r}; a name must be letters, digits, "
            "'.', '_' or '-' and start with a letter or digit: prepare it again with --name",
        )
        same = [
            other.folder
            for found, other in zip(names, plan.domains, strict=True)
            if found.casefold() == name.casefold()
        ]
        require(
            len(same) == 1,
            f"the domains in {' and '.join(same)} are both named {name}; prepare one of them "
            "again with another --name, or remove it from the plan",
        )
    found: dict[str, Path] = {}
    for name, wanted in zip(names, plan.domains, strict=True):
        found[name] = Path(wanted.folder)
        if wanted.cold_share:
            found[name] = folder.derived(name)
            hold_out_items(Path(wanted.folder), wanted.cold_share, plan.cold_seed, found[name])
    return Resolved(plan, found)


def plan_work(folder: ComparisonFolder, resolved: Resolved) -> Work:
    """All tasks, after every check that needs the domains.

    Raises:
        BadConfig: a system learns domains together that hold the same log or differ in their split.
        EmptyDomain: a domain has nobody to evaluate.
        InputError: too few users for a group that is asked for; a run trained on other domains.
        SettingsMismatch: a finished task was made from other things.
    """
    plan, tasks = resolved.plan, []
    finished = 0
    if any(system.together for system in plan.systems):
        learned = [Domain.open(path) for path in resolved.domains.values()]
        check_one_split(learned)
        check_unrelated(learned)
    for name, path in resolved.domains.items():
        domain = Domain.open(path)
        split = split_domain(domain)
        if len(split.evaluated) == 0:
            raise EmptyDomain(
                f"no user of {name} in {path} has a test item ({domain.split.words}), so nobody "
                "can be evaluated; leave this domain out"
            )
        check_groups(plan, domain, split)
        for task in _tasks(plan, domain):
            tasks.append(task)
            made_from = origin(resolved, domain, task)
            found = storage.find_manifest(folder.stage(task), task.kind)
            if found is None:
                _check_run(folder, resolved, task)
                continue
            if (found.config, found.inputs) != (made_from.config, made_from.inputs):
                raise SettingsMismatch(
                    f"{folder.stage(task)} holds the {task.title} made with other settings or from "
                    f"other input ({_difference(found, made_from.config, made_from.inputs)}); "
                    "compare into another folder, or remove this one to make it anew"
                )
            finished += 1
    return Work(resolved, tasks, finished)


def _check_run(folder: ComparisonFolder, resolved: Resolved, task: Task) -> None:
    """Refuse a run that an earlier plan began with another recipe or on other domains."""
    if task.kind == "cell" and (system := find_system(resolved.plan, task.system)).recipe:
        from utgrec.comparison.trained import check_begun_run

        check_begun_run(folder, resolved, system, task)


def _tasks(plan: ComparisonPlan, domain: Domain) -> list[Task]:
    """Tuning before what needs it, once for each family."""
    tasks: dict[Task, None] = {}
    for system in plan.systems:
        if needs_tuning(plan, system):
            tasks[tuning_task(plan, domain.name, system)] = None
        seeds: Sequence[int] = plan.seeds
        if system.runs:
            from utgrec.comparison.trained import runs_of

            seeds = sorted(runs_of(system, domain))
        tasks |= dict.fromkeys(Task("cell", domain.name, system.name, seed) for seed in seeds)
    return list(tasks)


def _difference(found: storage.Manifest, config: dict[str, object], inputs: dict[str, str]) -> str:
    names = [
        f"setting {key}"
        for key in {*found.config, *config}
        if found.config.get(key) != config.get(key)
    ]
    names += [
        f"input {key}"
        for key in {*found.inputs, *inputs}
        if found.inputs.get(key) != inputs.get(key)
    ]
    return ", ".join(sorted(names))
