"""The evaluation stage: one domain, all systems side by side, everything kept.

`comparison.json` holds the figures, `comparison.md` the table to read, `groups.md` the figures by
group, and `ranks/SYSTEM.parquet` the rank of every user's target, from which all else follows.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import to_dict
from utgrec.data.marketplace import Oracle
from utgrec.data.split import split_domain, split_words
from utgrec.evaluation.baselines.counting import ItemKNNFamily
from utgrec.evaluation.baselines.family import FitInput
from utgrec.evaluation.baselines.tuning import Tuning, tune
from utgrec.evaluation.generative import DecodingConfig, GenerativeSystem
from utgrec.evaluation.groups import group_sheet, standard_groupings
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig
from utgrec.evaluation.oracle import OracleSystem
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import System, evaluate
from utgrec.evaluation.ranking import ranker_input, read_ranker
from utgrec.evaluation.result import Evaluation
from utgrec.evaluation.table import Comparison, comparison
from utgrec.progress import Progress, silent
from utgrec.recommender.train import STAGE as RECOMMENDER
from utgrec.recommender.train import read_memory, read_recommender
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.codes import STAGE as CODES
from utgrec.tokenizer.codes import read_codes

STAGE = "evaluation"


def evaluate_domain(
    domain: Domain,
    *,
    codes: Path,
    recommender: Path,
    ranker: Path | None = None,
    decoding: DecodingConfig,
    exclude_seen: bool,
    out: Path,
    progress: Progress = silent,
) -> storage.Manifest:
    """Measure the recommender and the baselines on the test items of a domain."""
    config = {"decoding": to_dict(decoding), "exclude_seen": exclude_seen}
    inputs = {
        "codes": storage.read_manifest(codes, CODES).fingerprint,
        "recommender": storage.read_manifest(recommender, RECOMMENDER).fingerprint,
        f"domain {domain.name}": domain.fingerprint,
    }
    if ranker is not None:
        inputs |= ranker_input(ranker)

    def make(work: Workspace) -> StageResult:
        split = split_domain(domain)
        count = len(domain.catalog)
        family = ItemKNNFamily()
        given = FitInput(domain, split, exclude_seen, seed=0, work=work.checkpoints / "baselines")
        # The whole grid: a trial costs less than a second where the next baseline takes minutes.
        tuning = tune(family, given, len(family.trials(10**6, exclude_seen=exclude_seen)))
        model, vocabulary, settings = read_recommender(recommender)
        systems: list[System] = [
            Popularity.fit(split, count),
            ItemKNN.fit(split, count, ItemKNNConfig()),
            _named(family.fit(given, tuning.best.settings), "ItemKNN, tuned"),
            GenerativeSystem(
                model,
                vocabulary,
                domain.name,
                read_codes(codes).codes,
                max_items=settings.max_items,
                decoding=decoding,
                memory=read_memory(recommender),
                ranker=None if ranker is None else read_ranker(ranker, domain.name),
            ),
        ]
        oracle = _oracle(domain)
        evaluations = []
        for system in [*systems, *([oracle] if oracle is not None else [])]:

            def show(done: int, total: int, name: str = system.name) -> None:
                progress(f"Evaluating {name}", done, total)

            evaluations.append(
                evaluate(
                    system,
                    split,
                    part="test",
                    item_count=count,
                    exclude_seen=exclude_seen,
                    progress=show,
                )
            )
        truth = evaluations.pop() if oracle is not None else None
        compared = comparison(evaluations, truth, reference="UTGRec")
        _write(work.folder, domain, compared, evaluations, truth, tuning)
        milliseconds = {
            f"ms_per_user {one.system}": round(1000 * one.seconds / len(one.users), 3)
            for one in evaluations
        }
        return StageResult(_facts(domain, compared, decoding), measured=milliseconds)

    return run_stage(out, stage=STAGE, config=config, inputs=inputs, make=make)


def _named(system: ItemKNN, name: str) -> ItemKNN:
    system.name = name
    return system


def _oracle(domain: Domain) -> OracleSystem | None:
    """The oracle of a simulated domain; a real one has none."""
    if domain.folder is None or not (domain.folder / "oracle").is_dir():
        return None
    return OracleSystem(Oracle.open(domain.folder))


def _write(
    folder: Path,
    domain: Domain,
    compared: Comparison,
    evaluations: list[Evaluation],
    truth: Evaluation | None,
    tuning: Tuning,
) -> None:
    storage.write_json(
        folder / "comparison.json",
        # Without times: equal runs write equal files.
        {
            **compared.to_json(),
            **split_words(domain),
            "itemknn_tuning": tuning.to_json(seconds=False),
        },
    )
    storage.write_text(
        folder / "comparison.md",
        f"{compared.sheet().to_markdown()}\nSplit: {domain.split.words}.\n",
    )
    has_image = np.array([image is not None for image in domain.catalog.images], dtype=np.bool_)
    groupings = standard_groupings(evaluations[0], split_domain(domain), has_image)
    everyone = [*evaluations, *([truth] if truth is not None else [])]
    groups = group_sheet(everyone, groupings)
    storage.write_text(folder / "groups.md", groups.to_markdown() + "\n")
    (folder / "ranks").mkdir()
    for evaluation in everyone:
        name = "".join(c if c.isalnum() else "_" for c in evaluation.system.lower())
        pq.write_table(evaluation.to_table(), folder / "ranks" / f"{name}.parquet")


def _facts(domain: Domain, compared: Comparison, decoding: DecodingConfig) -> dict[str, Any]:
    """Recall@10 and NDCG@10 of every system, for a glance."""
    return {
        "domain": domain.name,
        **split_words(domain),
        "users": compared.users,
        "beam": decoding.beam,
        "systems": {
            row.system: {
                name: round(row.metrics[name].value, 5) for name in ("recall@10", "ndcg@10")
            }
            for row in compared.rows
        },
    }
