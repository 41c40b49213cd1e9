"""What is order worth to companions? Finished runs whose log is counted anew, in four ways.

    python benchmarks/companions.py runs/compare/movies/runs/movies/UTGRec/seed-* \\
        --domain runs/domains/movies

The network of a run does not hang on its memories, so it stays; the companions are counted anew,
with and without weights for how far apart, and in which order, users took two items. Validation
then finds the mixture anew, as in training; measured is NDCG@10 of all validation and test items.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ablations import ndcg_of
from machine_facts import machine
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import split_domain
from utgrec.evaluation.calibration import make_calibrator
from utgrec.recommender.companions import CompanionsConfig, count_companions
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.train import read_memory, read_recommender
from utgrec.runs import RunFolder, read_plan
from utgrec.tokenizer.codes import read_codes

RESULTS = Path(__file__).parent / "results"
_WHOLE = 10**6  # places: longer than any history
VARIANTS = {
    "distance and direction": CompanionsConfig(),
    "distance": CompanionsConfig(backward=1.0),
    "direction": CompanionsConfig(distance=0.0, window=_WHOLE),
    "neither": CompanionsConfig(distance=0.0, backward=1.0, window=_WHOLE),
}


def measure(
    run: Path, domain: Domain, companions: CompanionsConfig, sample: int | None
) -> dict[str, Any]:
    """NDCG@10 of a run with its log counted in another way.

    `sample` draws the users by which the mixture is chosen; None draws those of the run.
    """
    folder = RunFolder(run)
    recipe, codes = read_plan(folder).recipe, folder.codes(domain.name)
    model, vocabulary, config = read_recommender(folder.recommender)
    coded = CodedDomain(domain.name, read_codes(codes).codes, split_domain(domain))
    memory = read_memory(folder.recommender)._replace(
        companions=count_companions([coded], vocabulary, companions)
    )
    validation = recipe.validation
    if sample is not None:
        validation = dataclasses.replace(validation, seed=sample)
    calibrate = make_calibrator(
        validation,
        recipe.decoding,
        max_items=config.max_items,
        exclude_seen=recipe.exclude_seen,
    )
    mixing = calibrate(model, vocabulary, [coded], memory)[domain.name]
    figures = ndcg_of(recipe, config, domain, codes, folder.recommender, mixing, memory)
    return {**figures, "mixing": dataclasses.asdict(mixing)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--domain", required=True, type=Path)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--sample", type=int, help="seed of the users who choose the mixture")
    arguments = parser.parse_args()
    domain, results = Domain.open(arguments.domain), []
    for run in arguments.runs:
        for name in arguments.variants:
            found = measure(run, domain, VARIANTS[name], arguments.sample)
            results.append({"run": run.name, "companions": name, **found})
            print(results[-1], flush=True)
    sample = "" if arguments.sample is None else f"_sample-{arguments.sample}"
    storage.write_json(
        RESULTS / f"companions_{domain.name}{sample}.json",
        {"metric": "ndcg@10", "machine": machine(), "results": results},
    )


if __name__ == "__main__":
    main()
