"""What does each setting of the recommender do? One thing changed at a time, on the same codes.

    python benchmarks/ablations.py runs/office --domain domains/office --work runs/ablations

Takes the codes of a finished run and trains its recommender anew with one setting changed, for
every seed. Kept are NDCG@10 of all validation and test items, with the mixture that validation
found ("mixed") and with the network alone. Finished trainings are reused,
and variants that were measured before stay in the result.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from machine_facts import machine
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import split_domain
from utgrec.evaluation.calibration import make_calibrator
from utgrec.evaluation.generative import GenerativeSystem, make_validator
from utgrec.evaluation.protocol import evaluate
from utgrec.recipes import Recipe
from utgrec.recommender.mixing import NETWORK_ALONE, Mixing
from utgrec.recommender.train import (
    Memory,
    RecommenderConfig,
    read_memory,
    read_recommender,
    train_recommender,
)
from utgrec.runs import RunFolder, read_plan
from utgrec.tokenizer.codes import read_codes

Change = Callable[[RecommenderConfig], RecommenderConfig]


def setting(**values: Any) -> Change:
    """Other values of the recommender's own settings."""
    return lambda config: dataclasses.replace(config, **values)


def nested(part: str, **values: Any) -> Change:
    """Other values of one of its parts."""

    def change(config: RecommenderConfig) -> RecommenderConfig:
        return dataclasses.replace(
            config, **{part: dataclasses.replace(getattr(config, part), **values)}
        )

    return change


VARIANTS: dict[str, Change] = {
    "as it is": lambda config: config,
    "no item vectors": nested("sizes", item_vectors=False),
    "own vectors never hidden": nested("ranking", hidden_share=0.0),
    "ranking weight 0.3": nested("ranking", weight=0.3),
    "ranking weight 3": nested("ranking", weight=3.0),
    "dropout 0.1": nested("sizes", dropout=0.1),
    "dropout 0.5": nested("sizes", dropout=0.5),
    "width 256": nested("sizes", width=256, feed_forward=1024),
    "four trunk layers": nested("sizes", trunk_layers=4),
    "label smoothing 0.1": setting(label_smoothing=0.1),
    "averaged over 50 steps": nested("trainer", averaged_steps=50),
    "histories of 10": setting(max_items=10),
    "histories of 50": setting(max_items=50),
    "companions without shrinkage": nested("companions", shrink=0.0),
    "no words in vectors": nested("sizes", item_words=0),
    "48 words": nested("sizes", item_words=48),
    "words never left out": nested("ranking", dropped_words=0.0),
    "no contents, no words": nested("contents", neighbours=0),
    "contents with common words": nested("contents", most_common=0.5),
}


def measure(
    recipe: Recipe, config: RecommenderConfig, domain: Domain, codes: Path, out: Path
) -> dict[str, float]:
    """Train, calibrate and evaluate one variant."""
    most, seen = config.max_items, recipe.exclude_seen
    train_recommender(
        [domain],
        [codes],
        config,
        out,
        validator=make_validator(recipe.validation, max_items=most, exclude_seen=seen),
        calibrator=make_calibrator(
            recipe.validation, recipe.decoding, max_items=most, exclude_seen=seen
        ),
    )
    return {
        f"{part} {name}": figure
        for name, mixing in (("mixed", None), ("network", NETWORK_ALONE))
        for part, figure in ndcg_of(recipe, config, domain, codes, out, mixing).items()
    }


def ndcg_of(
    recipe: Recipe,
    config: RecommenderConfig,
    domain: Domain,
    codes: Path,
    trained: Path,
    mixing: Mixing | None = None,
    memory: Memory | None = None,
) -> dict[str, float]:
    """NDCG@10 of all validation and test items; None is the mixture and the memory of the run."""
    model, vocabulary, _ = read_recommender(trained)
    coded = read_codes(codes).codes
    system = GenerativeSystem(
        model,
        vocabulary,
        domain.name,
        coded,
        max_items=config.max_items,
        decoding=dataclasses.replace(recipe.decoding, mixing=mixing),
        memory=memory or read_memory(trained),
    )
    return {
        part: evaluate(
            system,
            split_domain(domain),
            part=part,
            item_count=len(coded),
            ks=(10,),
            exclude_seen=recipe.exclude_seen,
        ).mean("ndcg@10")
        for part in ("valid", "test")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--domain", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    domain, folder = Domain.open(arguments.domain), RunFolder(arguments.run)
    recipe = read_plan(folder).recipe
    result = Path(__file__).parent / "results" / f"ablations_{domain.name}.json"
    found: dict[str, Any] = storage.read_json(result) if result.is_file() else {}
    found |= {"machine": machine(), "metric": "ndcg@10"}
    for name in arguments.variants:
        runs = []
        for seed in range(arguments.seeds):
            config = VARIANTS[name](recipe.recommender)
            trainer = dataclasses.replace(config.trainer, seed=seed)
            out = arguments.work / domain.name / f"{name.replace(' ', '-')}-{seed}"
            config = dataclasses.replace(config, trainer=trainer)
            runs.append(measure(recipe, config, domain, folder.codes(domain.name), out))
        figures = {
            key: {
                "mean": round(float(np.mean([run[key] for run in runs])), 5),
                "spread": round(float(np.std([run[key] for run in runs])), 5),
            }
            for key in runs[0]
        }
        found[name] = {"seeds": arguments.seeds, **figures}
        print(name, found[name], flush=True)
        storage.write_json(result, found)


if __name__ == "__main__":
    main()
