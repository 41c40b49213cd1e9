"""Fit families of baselines on a domain with their default settings, and collect their figures.

    python benchmarks/baselines.py domains/beauty sasrec als --work runs/baselines

Each training goes on where it was interrupted. A budget above 1 tunes the settings first.
"""

import argparse
import dataclasses
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from utgrec.catalog import Domain
from utgrec.config import to_dict
from utgrec.data.split import split_domain
from utgrec.evaluation import evaluate
from utgrec.evaluation.baselines import FitInput, find_family, tune

METRICS = ("recall@5", "recall@10", "ndcg@10")


def measure(given: FitInput, name: str, budget: int, changed: dict[str, Any]) -> dict[str, Any]:
    """Settings, seconds and figures of one family."""
    family = find_family(name)
    record: dict[str, Any] = {"family": name}
    settings = dataclasses.replace(family.trials(1)[0], **changed)
    if budget > 1:
        tuning = tune(family, given, budget)
        settings, record["tuning"] = tuning.best.settings, tuning.to_json()
    wall, processor = time.monotonic(), time.process_time()
    system = family.fit(given, settings)
    record["fit_wall_s"] = round(time.monotonic() - wall, 1)
    record["fit_processor_s"] = round(time.process_time() - processor, 1)
    record["settings"] = to_dict(settings)
    for part in ("valid", "test"):
        result = evaluate(
            system,
            given.split,
            part=part,
            item_count=given.item_count,
            exclude_seen=given.exclude_seen,
        )
        record[part] = {metric: round(result.mean(metric), 4) for metric in METRICS}
    return record


def main() -> None:
    """One JSON document on stdout, one record for each family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain", type=Path, help="a prepared domain folder")
    parser.add_argument("families", nargs="+", help="names of families")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    parser.add_argument("--budget", type=int, default=1, help="settings to try")
    parser.add_argument("--set", type=json.loads, default={}, help='JSON, such as {"epochs": 3}')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-seen", action="store_true", help="seen items can be recommended")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    domain = Domain.open(options.domain)
    given = FitInput(
        domain, split_domain(domain), not options.keep_seen, options.seed, options.work
    )
    records = [measure(given, name, options.budget, options.set) for name in options.families]
    json.dump(records, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
