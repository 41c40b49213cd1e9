"""Do several identifiers for an item teach a recommender more? Codes alone, at equal steps.

    python benchmarks/identifiers.py runs/office --domain domains/office --work runs/identifiers

After MTGRec (Zheng et al. 2025, arXiv 2504.04400): histories are written in several sets of codes,
a recommender learns from all of them, and then from the one set that serves. Its sets are those of
neighbouring checkpoints of the tokenizer. Here they are codes of states that were moved at random,
by a share of their distance to the nearest code vectors, so that many items get another leaf and
few another root. Three ways are compared: learning once from the serving set, going on from there
for as many steps again, and the same with all sets in the first half. Finished trainings are
reused.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablations import ndcg_of
from machine_facts import machine
from transfer import chosen_recipe
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import split_domain
from utgrec.evaluation.generative import make_validator
from utgrec.recipes import Recipe
from utgrec.recommender.mixing import CODES_ALONE
from utgrec.recommender.train import RecommenderConfig, train_recommender
from utgrec.runs import RunFolder
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.assignment import Assignment, assign_codes
from utgrec.tokenizer.codes import STAGE, read_codes, write_codes
from utgrec.tokenizer.pretrained import ItemTokenizer

RESULTS = Path(__file__).parent / "results"


def copy_of(domain: Domain, number: int) -> Domain:
    """The same shop under another name, so that its histories can be written in other codes."""
    return Domain(
        name=f"{domain.name}-{number}",
        catalog=domain.catalog,
        user_ids=domain.user_ids,
        offsets=domain.offsets,
        items=domain.items,
        timestamps=domain.timestamps,
        folder=domain.folder,
        manifest=domain.manifest,
        split=domain.split,
    )


def moved_codes(run: RunFolder, domain: Domain, count: int, noise: float) -> list[Assignment]:
    """Codes of states that were moved, `count` sets of them."""
    tokenizer, catalog = ItemTokenizer.from_pretrained(run.tokenizer), domain.catalog
    items = tokenizer.add_company(
        tokenizer.read(catalog.texts, catalog.images), split_domain(domain)
    )
    states = tokenizer.states(items)  # (N, L, D)
    quantizer = tokenizer.model.quantizer
    distance = assign_codes(states, catalog.item_ids, quantizer).distance  # (N,)
    scale = torch.from_numpy(np.sqrt(distance / states[0].numel()))[:, None, None]
    found = []
    for number in range(1, count + 1):
        draw = torch.randn(states.shape, generator=torch.Generator().manual_seed(number))
        found.append(assign_codes(states + noise * scale * draw, catalog.item_ids, quantizer))
    return found


def keep_codes(own: storage.Manifest, domain: Domain, assigned: Assignment, out: Path) -> None:
    """Write a set of codes as a stage, as if it came from the tokenizer of the serving set."""

    def make(work: Workspace) -> StageResult:
        sizes = tuple(own.facts["sizes"])
        return write_codes(work.folder, domain, split_domain(domain), assigned, sizes)

    inputs = {f"domain {domain.name}": domain.fingerprint, "tokenizer": own.inputs["tokenizer"]}
    run_stage(out, stage=STAGE, config={"codes": assigned.codes.tolist()}, inputs=inputs, make=make)


def learn(
    recipe: Recipe,
    config: RecommenderConfig,
    domains: list[Domain],
    codes: list[Path],
    out: Path,
    start: Path | None = None,
) -> Path:
    """A recommender that learned from some sets of codes."""
    validator = make_validator(
        recipe.validation, max_items=config.max_items, exclude_seen=recipe.exclude_seen
    )
    train_recommender(domains, codes, config, out, validator=validator, start=start)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run with a tokenizer and codes")
    parser.add_argument("--domain", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--sets", type=int, default=2, help="sets of codes beside the serving one")
    parser.add_argument("--noise", type=float, default=0.5, help="share of the distance to codes")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    domain, run = Domain.open(arguments.domain), RunFolder(arguments.run)
    own = run.codes(domain.name)
    arguments.work.mkdir(parents=True, exist_ok=True)
    copies, others, changed = [], [], []
    for number, assigned in enumerate(
        moved_codes(run, domain, arguments.sets, arguments.noise), start=1
    ):
        copies.append(copy_of(domain, number))
        others.append(arguments.work / f"codes-{number}")
        keep_codes(storage.read_manifest(own, STAGE), copies[-1], assigned, others[-1])
        differ = assigned.codes != read_codes(own).codes
        changed.append([round(float(part.mean()), 4) for part in (differ[:, 0], differ.any(1))])
    print(f"share of items with another root, with other codes: {changed}", flush=True)
    results: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        recipe = chosen_recipe("tiny", seed, only_codes=True)
        config = recipe.recommender

        def place(name: str, seed: int = seed) -> Path:
            return arguments.work / f"{name}-{seed}"

        once = learn(recipe, config, [domain], [own], place("once"))
        # What one set has before the passes over it are too many is the length of all trainings.
        steps = storage.read_manifest(once, "recommender").facts["steps_done"]
        trainer = dataclasses.replace(config.trainer, steps=steps, patience=0)
        config = dataclasses.replace(config, trainer=trainer)
        half = learn(recipe, config, [domain], [own], place("one-first"))
        mixed = learn(recipe, config, [domain, *copies], [own, *others], place("all-first"))
        ways = {
            "once": once,
            "twice": learn(recipe, config, [domain], [own], place("one"), half),
            "all sets, then one": learn(recipe, config, [domain], [own], place("all"), mixed),
        }
        for name, trained in ways.items():
            measured = ndcg_of(recipe, config, domain, own, trained, CODES_ALONE)
            results.append({"way": name, "seed": seed, "steps": steps, **measured})
            print(results[-1], flush=True)
    storage.write_json(
        RESULTS / f"identifiers_{domain.name}.json",
        {
            "command": f"python benchmarks/identifiers.py RUN --domain {domain.name} --sets "
            f"{arguments.sets} --noise {arguments.noise:g} --seeds {arguments.seeds}",
            "what": "NDCG@10, codes alone; share of items with another root, with other codes",
            "machine": machine(),
            "changed": changed,
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
