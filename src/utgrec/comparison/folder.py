"""Where a comparison keeps what it made.

OUT/plan.json                     the plan, and the domain folders behind its names
OUT/domains/NAME-cold/            domains derived with cold items
OUT/tuning/DOMAIN/FAMILY/         how the settings of a family were chosen
OUT/runs/DOMAIN/SYSTEM/seed-S/    run folders of recipes; RUN/_together/ for those on all domains
OUT/cells/DOMAIN/SYSTEM/seed-S/   one system on one domain with one seed: ranks and figures
OUT/logs/                         what the processes of failed tasks wrote to stderr
OUT/comparison.*                  the tables
"""

from pathlib import Path
from typing import NamedTuple

from utgrec import storage
from utgrec.comparison.plan import ComparisonPlan
from utgrec.config import from_dict, to_dict
from utgrec.errors import CorruptFile, FormatVersionError, InputError, MissingStage

PLAN_FILE = "plan.json"
FORMAT_VERSION = 1
TOGETHER = "_together"  # no domain's name begins so


class Task(NamedTuple):
    """One piece of work, which leaves one stage folder."""

    kind: str  # tuning or cell
    domain: str
    system: str  # tuning: the family
    seed: int

    @property
    def title(self) -> str:
        """For progress and messages."""
        if self.kind == "tuning":
            return f"tuning of {self.system} on {self.domain}"
        return f"{self.system} on {self.domain}, seed {self.seed}"


class Resolved(NamedTuple):
    """A plan whose domains are there."""

    plan: ComparisonPlan
    domains: dict[str, Path]  # name → domain folder, in the order of the plan


class ComparisonFolder:
    """The paths inside a comparison's folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def derived(self, domain: str) -> Path:
        """A domain with cold items."""
        return self.path / "domains" / domain

    def run(self, domain: str | None, system: str, seed: int) -> Path:
        """The run folder of a recipe; None is all domains together."""
        return self.path / "runs" / (domain or TOGETHER) / system / f"seed-{seed}"

    def stage(self, task: Task) -> Path:
        """The stage folder that a task leaves."""
        if task.kind == "tuning":
            return self.path / "tuning" / task.domain / task.system
        return self.path / "cells" / task.domain / task.system / f"seed-{task.seed}"

    def log(self, task: Task) -> Path:
        """What the process of a task wrote to stderr."""
        end = "" if task.kind == "tuning" else f"-seed-{task.seed}"
        return self.path / "logs" / f"{task.kind}-{task.domain}-{task.system}{end}.log"


def check_folder(folder: ComparisonFolder) -> None:
    """Refuse a folder that holds something that is no comparison.

    Raises:
        InputError: it is not empty and has no plan.
    """
    path = folder.path
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; choose a new or an empty folder for --out")
    if path.is_dir() and not (path / PLAN_FILE).is_file():
        # Derived domains come before the plan is written; hidden files are what a kill left.
        others = [p.name for p in path.iterdir() if not p.name.startswith(".")]
        if [name for name in others if name != "domains"]:
            raise InputError(
                f"{path} is not empty and is no comparison ({PLAN_FILE} is missing); "
                "choose a new or an empty folder for --out"
            )


def write_resolved(folder: ComparisonFolder, resolved: Resolved) -> None:
    """Write `plan.json`. A plan may grow: a finished cell says itself what it was made from."""
    folder.path.mkdir(parents=True, exist_ok=True)
    storage.write_json(
        folder.path / PLAN_FILE,
        {
            "format_version": FORMAT_VERSION,
            "plan": to_dict(resolved.plan),
            "domains": {name: str(path.resolve()) for name, path in resolved.domains.items()},
        },
    )


def read_resolved(folder: ComparisonFolder) -> Resolved:
    """Read `plan.json`.

    Raises:
        MissingStage: the folder is no comparison.
        FormatVersionError, CorruptFile: it cannot be used.
    """
    path = folder.path / PLAN_FILE
    if not path.is_file():
        raise MissingStage(
            f"{folder.path} is no comparison ({PLAN_FILE} is missing); check the path, or make one "
            "with `utgrec compare PLAN --out FOLDER`"
        )
    values = storage.read_json(path)
    if not isinstance(values, dict) or "plan" not in values:
        raise CorruptFile(f"{path} holds no plan; compare again")
    if values.get("format_version") != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path} has format version {values.get('format_version')!r}, this UTGRec reads "
            f"{FORMAT_VERSION}; compare again into another folder"
        )
    domains = {name: Path(where) for name, where in values["domains"].items()}
    return Resolved(from_dict(ComparisonPlan, values["plan"]), domains)
