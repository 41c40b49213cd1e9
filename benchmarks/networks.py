"""Decoder-only or encoder-decoder: which recommends better after the same time of training?

    python benchmarks/networks.py DOMAIN CODES --seconds 200 --seeds 3

Both are trained on the same codes for about the same time, one after the other in one process, and
measured on the validation items. Steps are set from a short trial, so that each network's learning
rate comes down to zero when its time is up.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from machine_facts import machine
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.evaluation.generative import ValidationConfig, make_validator
from utgrec.recipes import tiny
from utgrec.recommender.causal import CausalSizes
from utgrec.recommender.t5 import T5Sizes
from utgrec.recommender.train import RecommenderConfig, train_recommender

BATCH = {"causal": 1024, "t5": 256}
SIZES = {"causal": CausalSizes(), "t5": T5Sizes()}
TRIAL_STEPS = 40


def configure(network: str, steps: int, seed: int, validations: int) -> RecommenderConfig:
    """The recipe's recommender with another network, validated `validations` times."""
    base = tiny(seed).recommender
    every = max(1, steps // validations) if validations else 0
    trainer = dataclasses.replace(base.trainer, steps=steps, validate_every=every, patience=0)
    return dataclasses.replace(
        base, sizes=SIZES[network], batch_size=BATCH[network], trainer=trainer
    )


def measure(domain: Domain, codes: Path, network: str, seconds: float, seed: int) -> dict[str, Any]:
    """Train one network for about `seconds` and give its best validation figure."""
    validator = make_validator(ValidationConfig(users=5000), max_items=20, exclude_seen=True)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trial = configure(network, TRIAL_STEPS, seed, 0)
        train_recommender([domain], [codes], trial, Path(folder) / "trial", validator=validator)
        per_step = (time.perf_counter() - began) / TRIAL_STEPS
        steps = max(TRIAL_STEPS, int(seconds / per_step))
        out = Path(folder) / "trained"
        config = configure(network, steps, seed, 4)
        manifest = train_recommender([domain], [codes], config, out, validator=validator)
        lines = (out / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    figures = [json.loads(line) for line in lines]
    best = max(row["ndcg@10"] for row in figures if row["kind"] == "validation")
    return {
        "network": network,
        "seed": seed,
        "steps": steps,
        "epochs": manifest.facts["epochs"],
        "parameters": manifest.facts["parameters"],
        "seconds_with_validation": round(manifest.measured["wall_s"], 1),
        "valid_ndcg@10": round(best, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain", type=Path)
    parser.add_argument("codes", type=Path, help="a codes stage of the domain")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    domain = Domain.open(arguments.domain)
    results = []
    for seed in range(arguments.seeds):
        for network in SIZES:
            one = measure(domain, arguments.codes, network, arguments.seconds, seed)
            results.append(one)
            print(one, flush=True)
    storage.write_json(
        Path(__file__).parent / "results" / f"networks_{domain.name}.json",
        {
            "command": f"python benchmarks/networks.py {domain.name} CODES "
            f"--seconds {arguments.seconds:g} --seeds {arguments.seeds}",
            "machine": machine(),
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
