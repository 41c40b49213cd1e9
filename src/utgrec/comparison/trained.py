"""UTGRec in a comparison: trained here from a recipe, or taken from finished run folders."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.comparison.folder import ComparisonFolder, Resolved, Task
from utgrec.comparison.overrides import override
from utgrec.comparison.plan import ComparisonPlan, SystemPlan
from utgrec.errors import InputError
from utgrec.evaluation.generative import GenerativeSystem
from utgrec.evaluation.ranking import STAGE as RANKER
from utgrec.evaluation.ranking import ranker_input, read_ranker
from utgrec.progress import Progress
from utgrec.recipes import Recipe, find_recipe
from utgrec.recommender.train import STAGE as RECOMMENDER
from utgrec.recommender.train import read_memory, read_recommender
from utgrec.runs import RUN_FILE, RunFolder, RunPlan, read_plan, train_run, write_plan
from utgrec.tokenizer.codes import STAGE as CODES
from utgrec.tokenizer.codes import read_codes
from utgrec.tokenizer.pretrained import STAGE as TOKENIZER


class Cost(NamedTuple):
    """What it took to train a run."""

    seconds: float  # wall time of all its stages, interrupted attempts included
    peak_mib: float  # of the process that needed most


def recipe_of(plan: ComparisonPlan, system: SystemPlan, seed: int) -> Recipe:
    """The complete recipe of a system that is trained here.

    Raises:
        BadConfig: no such recipe, or an override that does not fit.
    """
    changes = {**plan.overrides, **system.overrides}
    recipe = override(find_recipe(system.recipe or "", seed), changes)
    return dataclasses.replace(recipe, exclude_seen=plan.exclude_seen)


class Begun(NamedTuple):
    """A run that is trained here."""

    out: Path
    recipe: Recipe
    domains: dict[str, Path]


def run_here(resolved: Resolved, folder: ComparisonFolder, system: SystemPlan, task: Task) -> Begun:
    """The run of a cell: on its domain, or on all domains of the plan."""
    domains = resolved.domains if system.together else {task.domain: resolved.domains[task.domain]}
    return Begun(
        folder.run(None if system.together else task.domain, system.name, task.seed),
        recipe_of(resolved.plan, system, task.seed),
        dict(domains),
    )


def train_here(
    folder: ComparisonFolder,
    resolved: Resolved,
    system: SystemPlan,
    task: Task,
    progress: Progress,
) -> Path:
    """Train the run of a cell; what is finished is skipped. Returns its folder."""
    run = run_here(resolved, folder, system, task)
    train_run(run.recipe, list(run.domains.values()), run.out, progress)
    return run.out


def check_begun_run(
    folder: ComparisonFolder, resolved: Resolved, system: SystemPlan, task: Task
) -> None:
    """Refuse a run folder that was begun with other things; do nothing where there is none.

    Raises:
        SettingsMismatch: it has another recipe or other domains.
    """
    run = run_here(resolved, folder, system, task)
    if (run.out / RUN_FILE).is_file():
        write_plan(RunFolder(run.out), RunPlan(run.recipe, run.domains))


def runs_of(system: SystemPlan, domain: Domain) -> dict[int, Path]:
    """Seed → the finished run of a system that learned a domain.

    Raises:
        InputError: no run learned this very domain, or two have the same seed.
        MissingStage: a run is not finished.
    """
    found: dict[int, Path] = {}
    learned: list[str] = []
    for path in map(Path, system.runs):
        plan = read_plan(RunFolder(path))
        learned.append(f"{path} ({', '.join(plan.domains)})")
        if not _learned(RunFolder(path), domain):
            continue
        # The seed of what was trained here: an adaptation has its own, beside that of its base.
        trained, adapt = plan.recipe.recommender.trainer, plan.recipe.adapt
        seed = trained.seed if plan.base is None else adapt.seed
        if seed in found:
            raise InputError(
                f"system {system.name!r} has two runs with seed {seed} on {domain.name}: "
                f"{found[seed]} and {path}; give runs with different seeds, or two systems"
            )
        found[seed] = path
    if not found:
        raise InputError(
            f"no run of system {system.name!r} was trained on {domain.name} in {domain.folder}: "
            f"{'; '.join(learned)}; give a run on this domain, or leave the domain out"
        )
    return found


def open_system(run: Path, domain: Domain, name: str) -> GenerativeSystem:
    """The recommender of a run over a domain's catalogue."""
    folder = RunFolder(run)
    model, vocabulary, config = read_recommender(folder.recommender)
    return GenerativeSystem(
        model,
        vocabulary,
        domain.name,
        read_codes(folder.codes(domain.name)).codes,
        max_items=config.max_items,
        decoding=read_plan(folder).recipe.decoding,
        memory=read_memory(folder.recommender),
        ranker=read_ranker(folder.ranker, domain.name),
        name=name,
    )


def fingerprints(run: Path, domain: Domain) -> dict[str, str]:
    """What a cell reads of a finished run."""
    folder = RunFolder(run)
    return {
        "codes": storage.read_manifest(folder.codes(domain.name), CODES).fingerprint,
        "recommender": storage.read_manifest(folder.recommender, RECOMMENDER).fingerprint,
        **ranker_input(folder.ranker),
    }


def cost_of(run: Path, domains: Sequence[str]) -> Cost:
    """What the stages of a run took."""
    folder = RunFolder(run)
    manifests = [
        storage.read_manifest(folder.tokenizer, TOKENIZER),
        *(storage.read_manifest(folder.codes(name), CODES) for name in domains),
        storage.read_manifest(folder.recommender, RECOMMENDER),
    ]
    if (ranker := storage.find_manifest(folder.ranker, RANKER)) is not None:
        manifests.append(ranker)
    return Cost(
        sum(manifest.measured.get("wall_s", 0.0) for manifest in manifests),
        max(manifest.measured.get("peak_memory_mib", 0.0) for manifest in manifests),
    )


def _learned(run: RunFolder, domain: Domain) -> bool:
    """Whether the recommender of a run saw this very version of a domain."""
    made = storage.read_manifest(run.recommender, RECOMMENDER)
    return made.inputs.get(f"domain {domain.name}") == domain.fingerprint
