"""Do several identifiers for an item teach a recommender more? Codes alone, at equal steps.

    python benchmarks/identifiers.py runs/office --domain domains/office --work runs/identifiers

After MTGRec (Zheng et al. 2025, arXiv 2504.04400): histories are written in several sets of codes,
a recommender learns from all of them, and then from the one set that serves. Its sets are those of
neighbouring checkpoints of the tokenizer. Here they are codes of states that were moved at random
by a share of their distance to the nearest code vectors, so most keep their root and many get
another leaf. The other way learns from the serving codes all the time. Finished trainings are
reused.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablations import measure
from machine_facts import machine
from transfer import chosen_recipe
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import split_domain
from utgrec.evaluation.generative import make_validator
from utgrec.recipes import Recipe
from utgrec.recommender.train import RecommenderConfig, train_recommender
from utgrec.runs import RunFolder
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.assignment import assign_codes
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


def write_sets(run: RunFolder, domain: Domain, count: int, noise: float, work: Path) -> list[float]:
    """Codes of states that were moved; the share of items with other codes, for each set."""
    tokenizer = ItemTokenizer.from_pretrained(run.tokenizer)
    catalog, split = domain.catalog, split_domain(domain)
    items = tokenizer.read(catalog.texts, catalog.images)
    states = tokenizer.states(tokenizer.add_company(items, split))  # (N, L, D)
    quantizer = tokenizer.model.quantizer
    distance = assign_codes(states, catalog.item_ids, quantizer).distance  # (N,)
    scale = torch.from_numpy(np.sqrt(distance / states[0].numel()))[:, None, None]
    own, changed = read_codes(run.codes(domain.name)).codes, []
    for number in range(1, count + 1):
        draw = torch.randn(states.shape, generator=torch.Generator().manual_seed(number))
        moved = assign_codes(states + noise * scale * draw, catalog.item_ids, quantizer)
        changed.append(round(float((moved.codes != own).any(axis=1).mean()), 4))
        copied, sizes = copy_of(domain, number), quantizer.config.code_sizes

        def make(
            stage: Workspace, copied: Any = copied, moved: Any = moved, sizes: Any = sizes
        ) -> StageResult:
            return write_codes(stage.folder, copied, split, moved, sizes)

        made_from = {"noise": noise, "number": number}
        out = work / f"codes-{number}"
        run_stage(out, stage=STAGE, config=made_from, inputs={"run": str(run.path)}, make=make)
    return changed


def train_on(
    recipe: Recipe,
    config: RecommenderConfig,
    domains: list[Domain],
    codes: list[Path],
    out: Path,
) -> Path:
    """A recommender that learned from some sets."""
    validator = make_validator(
        recipe.validation, max_items=config.max_items, exclude_seen=recipe.exclude_seen
    )
    train_recommender(domains, codes, config, out, validator=validator)
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
    arguments.work.mkdir(parents=True, exist_ok=True)
    changed = write_sets(run, domain, arguments.sets, arguments.noise, arguments.work)
    print(f"share of items with other codes: {changed}", flush=True)
    copies = [copy_of(domain, number) for number in range(1, arguments.sets + 1)]
    others = [arguments.work / f"codes-{number}" for number in range(1, arguments.sets + 1)]
    own, results = run.codes(domain.name), []
    for seed in range(arguments.seeds):
        recipe = chosen_recipe("tiny", seed, only_codes=True)
        config = recipe.recommender
        ways = {"one set": ([domain], [own]), "several": ([domain, *copies], [own, *others])}
        samples = int(np.diff(split_domain(domain).offsets).clip(min=1).sum())
        steps = min(config.trainer.steps, config.most_epochs * -(-samples // config.batch_size))
        first = dataclasses.replace(
            config, trainer=dataclasses.replace(config.trainer, steps=steps)
        )
        for name, (domains, codes) in ways.items():
            place = arguments.work / f"{name.replace(' ', '-')}-{seed}"
            start = train_on(recipe, first, domains, codes, Path(f"{place}-first"))
            figures = measure(recipe, config, domain, own, place, start=start)
            results.append({"way": name, "seed": seed, **figures})
            print(results[-1], flush=True)
    storage.write_json(
        RESULTS / f"identifiers_{domain.name}.json",
        {
            "command": f"python benchmarks/identifiers.py RUN --domain {domain.name} --sets "
            f"{arguments.sets} --noise {arguments.noise:g} --seeds {arguments.seeds}",
            "what": "NDCG@10, codes alone",
            "machine": machine(),
            "changed": changed,
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
