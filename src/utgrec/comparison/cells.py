"""Do one task of a comparison: tune a family on a domain, or measure one cell.

A cell's folder keeps `ranks.parquet`, one rank per user, and `figures.json`. What was measured in
seconds and MiB is in the manifest's `measured` part: it differs from run to run, all else does not.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST, Domain
from utgrec.comparison import systems
from utgrec.comparison.folder import ComparisonFolder, Resolved, Task
from utgrec.comparison.plan import ComparisonPlan, SystemPlan
from utgrec.config import to_dict
from utgrec.data.split import Split, split_domain, split_words
from utgrec.errors import CorruptFile
from utgrec.evaluation.protocol import KS, System, evaluate
from utgrec.evaluation.result import Evaluation
from utgrec.progress import Progress, silent
from utgrec.stages import StageResult, Workspace, run_stage

RANKS, FIGURES, TUNING_FILE = "ranks.parquet", "figures.json", "tuning.json"


class Origin(NamedTuple):
    """What a task's stage is made from; equal origins give equal stages."""

    config: dict[str, Any]
    inputs: dict[str, str]


class Ready(NamedTuple):
    """A system that can be measured."""

    system: System
    train_s: float
    train_peak_mib: float  # of earlier processes; 0 if this process did everything
    facts: dict[str, Any]  # beam, chosen settings


def find_system(plan: ComparisonPlan, name: str) -> SystemPlan:
    """The system of a name."""
    return next(system for system in plan.systems if system.name == name)


def needs_tuning(plan: ComparisonPlan, system: SystemPlan) -> bool:
    """Whether a system's settings are to be chosen."""
    family = system.family
    if family is None or not system.tuned:
        return False
    return systems.count_trials(family, plan.budget_of(family), exclude_seen=plan.exclude_seen) > 1


def origin(resolved: Resolved, domain: Domain, task: Task) -> Origin:
    """What a task's stage is made from; known before any work."""
    plan = resolved.plan
    inputs = {f"domain {domain.name}": domain.fingerprint}
    config: dict[str, Any] = {"exclude_seen": plan.exclude_seen, "seed": task.seed}
    if task.kind == "tuning":
        return Origin(
            {**config, "family": task.system, "budget": plan.budget_of(task.system)}, inputs
        )
    system = find_system(plan, task.system)
    config |= {"system": system.name, "ks": list(KS)}
    if system.family is not None:
        config |= {"family": system.family, "tuned": system.tuned}
        if needs_tuning(plan, system):
            config |= {"budget": plan.budget_of(system.family), "tuning_seed": plan.seeds[0]}
        return Origin(config, inputs)
    from utgrec.comparison.trained import fingerprints, recipe_of, runs_of

    if system.recipe is not None:
        config["recipe"] = to_dict(recipe_of(plan, system, task.seed))
        config["together"] = system.together
        if system.together:
            inputs |= {
                f"domain {name}": storage.read_manifest(path, "domain", DOMAIN_MANIFEST).fingerprint
                for name, path in resolved.domains.items()
            }
        return Origin(config, inputs)
    return Origin(config, inputs | fingerprints(runs_of(system, domain)[task.seed], domain))


def do_task(
    folder: ComparisonFolder, resolved: Resolved, task: Task, progress: Progress = silent
) -> storage.Manifest:
    """Make the stage folder of a task; a finished one is left as it is.

    Raises:
        SettingsMismatch: the folder was made from other things.
    """
    domain = Domain.open(resolved.domains[task.domain])
    made_from = origin(resolved, domain, task)

    def make(work: Workspace) -> StageResult:
        split = split_domain(domain)
        work.checkpoints.mkdir(parents=True, exist_ok=True)
        given = systems.FitInput(
            domain, split, resolved.plan.exclude_seen, task.seed, work.checkpoints
        )
        if task.kind == "tuning":
            chosen = systems.tune_family(
                task.system, given, resolved.plan.budget_of(task.system), progress
            )
            return _keep_tuning(work.folder, chosen)
        ready = _prepare(folder, resolved, task, given, progress)
        return _measure(work.folder, ready, resolved.plan, task, domain, split, progress)

    return run_stage(
        folder.stage(task),
        stage=task.kind,
        config=made_from.config,
        inputs=made_from.inputs,
        make=make,
    )


def read_tuning(folder: ComparisonFolder, task: Task) -> systems.Chosen:
    """What was chosen for a family on a domain.

    Raises:
        MissingStage, CorruptFile: not finished, or not as it was written.
    """
    where = folder.stage(task)
    manifest = storage.read_manifest(where, "tuning")
    values = storage.read_json(storage.check_file(where, manifest, TUNING_FILE))
    return systems.Chosen(
        values["place"], values["settings"], values["record"], manifest.measured["tuning_s"]
    )


def read_cell(folder: ComparisonFolder, task: Task) -> tuple[storage.Manifest, Evaluation]:
    """The manifest and the ranks of a finished cell.

    Raises:
        MissingStage, CorruptFile: not finished, or not as it was written.
    """
    where = folder.stage(task)
    manifest = storage.read_manifest(where, "cell")
    evaluation = Evaluation.from_table(pq.read_table(storage.check_file(where, manifest, RANKS)))
    if evaluation.system != task.system:
        raise CorruptFile(
            f"{where} holds the ranks of {evaluation.system!r}, not of {task.system!r}; remove "
            "this folder and compare again"
        )
    return manifest, evaluation


def tuning_task(plan: ComparisonPlan, domain: str, system: SystemPlan) -> Task:
    """The task that chooses the settings of a system's family."""
    return Task("tuning", domain, system.family or "", plan.seeds[0])


def _prepare(
    folder: ComparisonFolder,
    resolved: Resolved,
    task: Task,
    given: systems.FitInput,
    progress: Progress,
) -> Ready:
    """Train a system, or open one that was trained before."""
    plan, system = resolved.plan, find_system(resolved.plan, task.system)
    if system.family is not None:
        chosen = None
        if needs_tuning(plan, system):
            chosen = read_tuning(folder, tuning_task(plan, task.domain, system))
        began = time.perf_counter()
        fitted = systems.fit_family(
            system.family, given, chosen, plan.budget_of(system.family), progress
        )
        seconds = time.perf_counter() - began
        settings = None if chosen is None else chosen.settings
        return Ready(fitted, seconds, 0.0, {"settings": settings})
    from utgrec.comparison import trained

    if system.recipe is not None:
        run = trained.train_here(folder, resolved, system, task, progress)
    else:
        run = trained.runs_of(system, given.domain)[task.seed]
    names = list(resolved.domains) if system.together else [task.domain]
    cost = trained.cost_of(run, names)
    generative = trained.open_system(run, given.domain, task.system)
    return Ready(generative, cost.seconds, cost.peak_mib, {"beam": generative.decoding.beam})


def _measure(
    out: Path,
    ready: Ready,
    plan: ComparisonPlan,
    task: Task,
    domain: Domain,
    split: Split,
    progress: Progress,
) -> StageResult:
    """Rank the test items, and write what came out."""
    evaluation = evaluate(
        ready.system,
        split,
        part="test",
        item_count=len(domain.catalog),
        ks=KS,
        exclude_seen=plan.exclude_seen,
        progress=lambda done, total: progress(f"Evaluating {task.title}", done, total),
    )
    # The plan names a system; two of one family differ in their names there.
    evaluation = dataclasses.replace(evaluation, system=task.system)
    pq.write_table(evaluation.to_table(), out / RANKS)
    summary = evaluation.summary(resamples=plan.resamples)
    storage.write_json(out / FIGURES, summary)
    facts = {
        "domain": task.domain,
        **split_words(domain),
        "system": task.system,
        "seed": task.seed,
        **ready.facts,
        "metrics": {name: values["value"] for name, values in summary["metrics"].items()},
        "coverage": summary["coverage"],
    }
    measured = {
        "train_s": round(ready.train_s, 3),
        "train_peak_mib": ready.train_peak_mib,
        "ms_per_user": round(1000 * evaluation.seconds / len(evaluation.users), 4),
    }
    return StageResult(facts, measured=measured)


def _keep_tuning(out: Path, chosen: systems.Chosen) -> StageResult:
    storage.write_json(
        out / TUNING_FILE,
        {"place": chosen.place, "settings": chosen.settings, "record": chosen.record},
    )
    facts = {"settings": chosen.settings, "trials": len(chosen.record["trials"])}
    return StageResult(facts, measured={"tuning_s": round(chosen.seconds, 3)})
