"""A run folder: all stages of one recipe on some domains, each skipped when it is done.

RUN/run.json                 recipe and domains, and the base of an adapted run
RUN/tokenizer/               the tokenizer stage
RUN/codes/DOMAIN/            the codes of each domain
RUN/recommender/             the recommender stage
RUN/ranker/                  the ranker stage
RUN/evaluation/DOMAIN/       figures of each domain, all systems side by side
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utgrec import processes, storage
from utgrec.catalog import Domain
from utgrec.config import from_dict, require, to_dict
from utgrec.data.derived import check_unrelated
from utgrec.data.split import check_one_split
from utgrec.errors import InputError, MissingStage, SettingsMismatch
from utgrec.evaluation.calibration import make_calibrator
from utgrec.evaluation.generative import make_validator
from utgrec.evaluation.ranking import STAGE as RANKER
from utgrec.evaluation.ranking import ranker_input, train_ranker
from utgrec.evaluation.stage import STAGE as EVALUATION
from utgrec.evaluation.stage import evaluate_domain
from utgrec.progress import Progress, silent
from utgrec.recipes import Recipe
from utgrec.recommender.train import train_recommender
from utgrec.tokenizer.codes import assign_domain
from utgrec.tokenizer.train import train_tokenizer

RUN_FILE = "run.json"
FORMAT_VERSION = 1


class RunFolder:
    """Where the stages of a run are."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def tokenizer(self) -> Path:
        """The tokenizer stage."""
        return self.path / "tokenizer"

    @property
    def recommender(self) -> Path:
        """The recommender stage."""
        return self.path / "recommender"

    def codes(self, domain: str) -> Path:
        """The codes stage of a domain."""
        return self.path / "codes" / domain

    @property
    def ranker(self) -> Path:
        """The ranker stage; there is none in a run that looked at no validation item."""
        return self.path / "ranker"

    def evaluation(self, domain: str) -> Path:
        """The evaluation stage of a domain."""
        return self.path / "evaluation" / domain

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.path / "report.html"


class Base(NamedTuple):
    """The run that another one was adapted from."""

    path: Path
    fingerprint: str  # of its tokenizer and its recommender
    domains: dict[str, str]  # name → fingerprint of every domain met so far, its own bases' too


class RunPlan(NamedTuple):
    """What a run folder was made from."""

    recipe: Recipe
    domains: dict[str, Path]  # name → domain folder
    base: Base | None = None  # None for a run that started as new


def run_recipe(
    recipe: Recipe, domains: Sequence[Path], out: Path, progress: Progress = silent
) -> dict[str, storage.Manifest]:
    """Do all stages of a recipe; finished ones are skipped, interrupted ones continued.

    Returns:
        The manifest of every stage by its path in the run folder.

    Raises:
        SettingsMismatch: `out` holds a run with another recipe or other domains.
    """
    done = train_run(recipe, domains, out, progress)
    return done | evaluate_run(out, progress)


def train_run(
    recipe: Recipe, domains: Sequence[Path], out: Path, progress: Progress = silent
) -> dict[str, storage.Manifest]:
    """All stages of a recipe but the evaluation; otherwise like `run_recipe`."""
    opened = [Domain.open(folder) for folder in domains]
    check_names(opened)
    check_one_split(opened)
    check_unrelated(opened)
    folder = RunFolder(out)
    write_plan(folder, RunPlan(recipe, {d.name: f for d, f in zip(opened, domains, strict=True)}))
    done = {"tokenizer": train_tokenizer(opened, recipe.tokenizer, folder.tokenizer, progress)}
    for domain in opened:
        made = assign_domain(folder.tokenizer, domain, folder.codes(domain.name), progress)
        done[f"codes/{domain.name}"] = made
    validator = make_validator(
        recipe.validation,
        max_items=recipe.recommender.max_items,
        exclude_seen=recipe.exclude_seen,
    )
    calibrator = make_calibrator(
        recipe.validation,
        recipe.decoding,
        max_items=recipe.recommender.max_items,
        exclude_seen=recipe.exclude_seen,
    )
    done["recommender"] = train_recommender(
        opened,
        [folder.codes(domain.name) for domain in opened],
        recipe.recommender,
        folder.recommender,
        validator=validator,
        calibrator=calibrator,
        progress=progress,
    )
    done["ranker"] = train_run_ranker(folder, recipe, opened, progress)
    return done


def train_run_ranker(
    folder: RunFolder, recipe: Recipe, domains: Sequence[Domain], progress: Progress = silent
) -> storage.Manifest:
    """The ranker stage of a run."""
    return train_ranker(
        domains,
        [folder.codes(domain.name) for domain in domains],
        folder.recommender,
        recipe.ranker,
        folder.ranker,
        decoding=recipe.decoding,
        exclude_seen=recipe.exclude_seen,
        progress=progress,
    )


def stale_evaluations(folder: RunFolder, names: Sequence[str]) -> list[Path]:
    """Evaluations of some domains that were made with another ranker than the run has now."""
    now = ranker_input(folder.ranker)
    out = []
    for name in names:
        found = storage.find_manifest(folder.evaluation(name), EVALUATION)
        if found is not None and found.inputs.get(RANKER) != now.get(RANKER):
            out.append(folder.evaluation(name))
    return out


def evaluate_run(out: Path, progress: Progress = silent) -> dict[str, storage.Manifest]:
    """Evaluate every domain of a run whose recommender is trained."""
    folder = RunFolder(out)
    plan = read_plan(folder)
    opened = [Domain.open(path) for path in plan.domains.values()]
    return {
        f"evaluation/{domain.name}": evaluate_run_domain(folder, plan.recipe, domain, progress)
        for domain in opened
    }


def evaluate_run_domain(
    folder: RunFolder, recipe: Recipe, domain: Domain, progress: Progress = silent
) -> storage.Manifest:
    """The evaluation stage of one domain of a run."""
    return evaluate_domain(
        domain,
        codes=folder.codes(domain.name),
        recommender=folder.recommender,
        ranker=folder.ranker,
        decoding=recipe.decoding,
        exclude_seen=recipe.exclude_seen,
        out=folder.evaluation(domain.name),
        progress=progress,
    )


def write_plan(folder: RunFolder, plan: RunPlan) -> None:
    """Write `run.json`, or check that the one there says the same.

    Raises:
        SettingsMismatch: the folder belongs to another recipe or other domains.
        InputError: the folder holds something that is no run.
    """
    path = folder.path / RUN_FILE
    values: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "recipe": to_dict(plan.recipe),
        "domains": {name: str(Path(where).resolve()) for name, where in plan.domains.items()},
    }
    if plan.base is not None:
        values["base"] = {**plan.base._asdict(), "path": str(plan.base.path.resolve())}
    if not processes.is_first():
        processes.wait_for(lambda: path.is_file() or None, str(path))
    if path.is_file():
        found = storage.read_json(path)
        if found != values:
            differs = [key for key in {**values, **found} if found.get(key) != values.get(key)]
            raise SettingsMismatch(
                f"{folder.path} is a run with another {' and other '.join(differs)}; "
                "choose another output folder, or remove this one to start anew"
            )
        return
    # A run killed while it wrote run.json leaves a hidden partial file.
    if folder.path.is_dir() and any(not p.name.startswith(".") for p in folder.path.iterdir()):
        raise InputError(
            f"{folder.path} is not empty and is no run ({RUN_FILE} is missing); "
            "choose a new or an empty folder"
        )
    folder.path.mkdir(parents=True, exist_ok=True)
    storage.write_json(path, values)


def read_plan(folder: RunFolder) -> RunPlan:
    """What a run was made from.

    Raises:
        MissingStage: the folder is no run.
    """
    path = folder.path / RUN_FILE
    if not path.is_file():
        raise MissingStage(
            f"{folder.path} is no run ({RUN_FILE} is missing); check the path, or make one with "
            "`utgrec run RECIPE DOMAIN --out RUN`"
        )
    values = storage.read_json(path)
    if values.get("format_version") != FORMAT_VERSION:
        raise SettingsMismatch(
            f"{path} has format version {values.get('format_version')!r}, this UTGRec reads "
            f"{FORMAT_VERSION}; make the run again"
        )
    domains = {name: Path(where) for name, where in values["domains"].items()}
    base = values.get("base")
    return RunPlan(
        from_dict(Recipe, values["recipe"]),
        domains,
        None if base is None else Base(Path(base["path"]), base["fingerprint"], base["domains"]),
    )


def check_names(domains: Sequence[Domain]) -> None:
    """Domain names become folder names and domain tokens: they must be plain and different."""
    names = [domain.name for domain in domains]
    require(len(names) > 0, "a run needs at least one domain, got none")
    require(len(set(names)) == len(names), f"domains need different names, got {', '.join(names)}")
    for name in names:
        require(
            re.fullmatch(r"[\w][\w.-]{0,99}", name) is not None,
            f"domain name {name!r} must be letters, digits, '.', '_' or '-'; prepare the domain "
            "again with another --name",
        )
