"""What is each voice of a recommender worth? A finished run with voices left out.

    python benchmarks/voices.py runs/office --domain domains/office

Codes alone, vectors alone, counts alone, pairs, and the mixture that the run's validation items
found best, on all test items, seen items removed, with the run's own beam. The weights of the parts
are the mixture's own; a voice alone has no weight to choose.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from machine_facts import machine
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import split_domain
from utgrec.evaluation.generative import GenerativeSystem
from utgrec.evaluation.protocol import evaluate
from utgrec.recommender.mixing import CODES_ALONE, NETWORK_ALONE, Mixing
from utgrec.recommender.train import read_memory, read_recommender
from utgrec.runs import RunFolder, read_plan
from utgrec.tokenizer.codes import read_codes


def remembered(mixing: Mixing) -> Mixing:
    """Both memories in the proportion of a mixture, and next to nothing of the network."""
    both = (mixing.companions + mixing.contents) or 1.0
    shares = (0.999999 * one / both for one in (mixing.companions, mixing.contents))
    return dataclasses.replace(mixing, **dict(zip(("companions", "contents"), shares, strict=True)))


def measure(run: Path, domain: Domain) -> dict[str, dict[str, float]]:
    """Recall@10 and NDCG@10 of a run with some of its voices."""
    folder = RunFolder(run)
    plan, memory = read_plan(folder), read_memory(folder.recommender)
    model, vocabulary, config = read_recommender(folder.recommender)
    codes, found = read_codes(folder.codes(domain.name)).codes, memory.mixing_of(domain.name)
    change = dataclasses.replace
    mixtures = {
        "codes": CODES_ALONE,
        "vectors": change(NETWORK_ALONE, vectors=1e6),
        "counts": change(found, vectors=0.0, companions=1 - 1e-7, contents=0.0),
        "contents": change(found, vectors=0.0, companions=0.0, contents=1 - 1e-7),
        "codes and vectors": change(found, companions=0.0, contents=0.0),
        "counts and contents": remembered(found),
        "all but contents": change(found, contents=0.0),
        "all but counts": change(found, companions=0.0),
        "all four": found,
    }
    split, figures = split_domain(domain), {}
    for name, mixing in mixtures.items():
        system = GenerativeSystem(
            model,
            vocabulary,
            domain.name,
            codes,
            max_items=config.max_items,
            decoding=change(plan.recipe.decoding, mixing=mixing),
            memory=memory,
        )
        result = evaluate(
            system, split, part="test", item_count=len(codes), ks=(10,), exclude_seen=True
        )
        figures[name] = {metric: result.mean(metric) for metric in ("recall@10", "ndcg@10")}
        print(run, name, {k: round(v, 4) for k, v in figures[name].items()}, flush=True)
    return {**figures, "mixing": dataclasses.asdict(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--domain", required=True, type=Path)
    arguments = parser.parse_args()
    domain = Domain.open(arguments.domain)
    runs = [measure(run, domain) for run in arguments.runs]
    means = {
        name: {
            metric: {
                "mean": round(float(np.mean([run[name][metric] for run in runs])), 5),
                "spread": round(float(np.std([run[name][metric] for run in runs])), 5),
            }
            for metric in ("recall@10", "ndcg@10")
        }
        for name in runs[0]
        if name != "mixing"
    }
    out = Path(__file__).parent / "results" / f"voices_{domain.name}.json"
    storage.write_json(
        out,
        {
            "machine": machine(),
            "runs": len(runs),
            "voices": means,
            "mixing": [run["mixing"] for run in runs],
        },
    )


if __name__ == "__main__":
    main()
