"""Open what a report is made of: the stages of a run, and its domains if they are still there."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import Split, split_domain
from utgrec.errors import StorageError
from utgrec.evaluation.ranking import STAGE as RANKER
from utgrec.evaluation.result import Evaluation
from utgrec.evaluation.stage import STAGE as EVALUATION
from utgrec.recommender.train import STAGE as RECOMMENDER
from utgrec.runs import RunFolder, RunPlan, read_plan
from utgrec.tokenizer.codes import STAGE as CODES
from utgrec.tokenizer.codes import CodedCatalog, read_codes
from utgrec.tokenizer.pretrained import STAGE as TOKENIZER

log = logging.getLogger(__name__)


class DomainSource(NamedTuple):
    """What a run left behind about one domain."""

    name: str
    comparison: dict[str, Any]  # comparison.json
    evaluations: dict[str, Evaluation]  # by name of the system, in the order of the comparison
    coded: CodedCatalog
    codes: storage.Manifest
    evaluated: storage.Manifest
    domain: Domain | None  # None when the domain folder cannot be used any more
    split: Split | None
    missing: str  # why there is no domain; empty when there is one


class RunSource(NamedTuple):
    """A finished run."""

    folder: RunFolder
    plan: RunPlan
    tokenizer: storage.Manifest
    recommender: storage.Manifest
    ranker: storage.Manifest | None
    domains: list[DomainSource]


def open_run(run: Path) -> RunSource:
    """Open all stages of a run.

    Raises:
        MissingStage: not a run, or a stage is not finished.
        CorruptFile: a file is not the one its manifest names.
    """
    folder = RunFolder(run)
    plan = read_plan(folder)
    # The stages in the order they are made, so that the error names the first that is missing.
    tokenizer = storage.read_manifest(folder.tokenizer, TOKENIZER)
    for name in plan.domains:
        storage.read_manifest(folder.codes(name), CODES)
    recommender = storage.read_manifest(folder.recommender, RECOMMENDER)
    domains = [_open_domain(folder, name, path) for name, path in plan.domains.items()]
    ranker = storage.find_manifest(folder.ranker, RANKER)
    return RunSource(folder, plan, tokenizer, recommender, ranker, domains)


def read_losses(folder: Path, manifest: storage.Manifest) -> list[dict[str, Any]]:
    """The rows of `losses.jsonl`; none when the stage wrote no such file."""
    if "losses.jsonl" not in manifest.files:
        return []
    text = storage.check_file(folder, manifest, "losses.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def _open_domain(folder: RunFolder, name: str, path: Path) -> DomainSource:
    where = folder.evaluation(name)
    evaluated = storage.read_manifest(where, EVALUATION)
    comparison = storage.read_json(storage.check_file(where, evaluated, "comparison.json"))
    domain, missing = _find_domain(name, path, evaluated)
    return DomainSource(
        name=name,
        comparison=comparison,
        evaluations=_read_ranks(where, evaluated, comparison),
        coded=read_codes(folder.codes(name), path),
        codes=storage.read_manifest(folder.codes(name), CODES),
        evaluated=evaluated,
        domain=domain,
        split=None if domain is None else split_domain(domain),
        missing=missing,
    )


def _find_domain(name: str, path: Path, evaluated: storage.Manifest) -> tuple[Domain | None, str]:
    """The domain that was evaluated; without it a report has less to show, but still a story.

    Why it is not there is told to whoever writes the report; the report, which others read, names
    no folder.
    """
    try:
        domain = Domain.open(path)
    except StorageError as error:
        log.warning("the report of domain %s has less to show: %s", name, error)
        return None, "its domain folder is not there any more, or cannot be used"
    if domain.fingerprint != evaluated.inputs.get(f"domain {name}"):
        log.warning("%s holds another version of domain %s than the one evaluated", path, name)
        return None, "its domain folder holds another version of the domain than the one evaluated"
    return domain, ""


def _read_ranks(
    folder: Path, manifest: storage.Manifest, comparison: dict[str, Any]
) -> dict[str, Evaluation]:
    files = sorted(name for name in manifest.files if name.startswith("ranks/"))
    found = [
        Evaluation.from_table(pq.read_table(storage.check_file(folder, manifest, name)))
        for name in files
    ]
    by_name = {evaluation.system: evaluation for evaluation in found}
    systems = [row["system"] for row in comparison["rows"]]
    return {system: by_name[system] for system in systems if system in by_name}
