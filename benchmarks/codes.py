"""What do codes know of the pairs that people will take? Learned codes beside closed forms.

    python benchmarks/codes.py domains/beauty --learned runs/beauty/codes/beauty --work runs/codes

How often the two items of a pair share their first codes: pairs of neighbours in training
histories, and held-out pairs, the last training item and the validation item. The closed forms are
residual k-means on topics of the words, on company, and on both. With --recommend the recommender
of the recipe `tiny` is trained on each and measured on all validation and test items.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.neighbours import find_neighbours
from utgrec.data.split import Split, split_domain
from utgrec.evaluation.baselines import FitInput
from utgrec.evaluation.baselines.residual_codes import residual_kmeans
from utgrec.evaluation.baselines.text_vectors import topic_vectors
from utgrec.evaluation.baselines.tiger_codes import write_tiger_codes
from utgrec.evaluation.generative import (
    DecodingConfig,
    GenerativeSystem,
    ValidationConfig,
    make_validator,
)
from utgrec.evaluation.protocol import evaluate
from utgrec.recommender.train import read_recommender, tiny_recommender, train_recommender
from utgrec.tokenizer.codes import read_codes
from utgrec.tokenizer.company import CompanyConfig, company_directions

Codes = npt.NDArray[np.int16]


def agreement(codes: Codes, split: Split) -> dict[str, list[float]]:
    """Share of pairs that agree in their first code, and in their first two."""
    graph = find_neighbours(split, len(codes))
    first = np.repeat(np.arange(len(codes)), np.diff(graph.offsets))
    users = split.evaluated
    users = users[np.diff(split.offsets)[users] > 0]
    last = split.train[split.offsets[users + 1] - 1]

    def shared(one: Any, two: Any, weights: Any) -> list[float]:
        return [
            round(
                float(np.average((codes[one, :n] == codes[two, :n]).all(axis=1), weights=weights)),
                4,
            )
            for n in (1, 2)
        ]

    return {
        "training pairs": shared(first, graph.items, graph.counts),
        "held-out pairs": shared(last, split.valid[users], None),
    }


def closed_forms(given: FitInput) -> dict[str, Callable[[], npt.NDArray[np.float32]]]:
    """Vectors of all items by name."""
    known = np.unique(given.split.train)

    def topics() -> npt.NDArray[np.float32]:
        return topic_vectors(given.domain.catalog.texts, known, 128, given.seed)

    def company() -> npt.NDArray[np.float32]:
        directions = company_directions(given.split, given.item_count, CompanyConfig())
        return directions.astype(np.float32)

    return {
        "topics": topics,
        "company": company,
        "topics and company": lambda: np.concatenate([topics(), company()], axis=1),
    }


def recommend(domain: Domain, codes: Path, work: Path, seed: int) -> dict[str, float]:
    """Figures of the recipe's recommender on some codes."""
    split, config = split_domain(domain), tiny_recommender(seed)
    validator = make_validator(ValidationConfig(), max_items=config.max_items, exclude_seen=True)
    train_recommender([domain], [codes], config, work, validator=validator)
    model, vocabulary, _ = read_recommender(work)
    system = GenerativeSystem(
        model,
        vocabulary,
        domain.name,
        read_codes(codes).codes,
        max_items=config.max_items,
        decoding=DecodingConfig(),
    )
    figures = {}
    for part in ("valid", "test"):
        found = evaluate(
            system, split, part=part, item_count=len(domain.catalog), exclude_seen=True
        )
        figures |= {
            f"{part} {name}": round(found.mean(name), 5) for name in ("recall@10", "ndcg@10")
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain", type=Path)
    parser.add_argument("--learned", type=Path, required=True, help="a codes stage of the domain")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recommend", nargs="*", default=[], help="names of codes to train on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    domain = Domain.open(arguments.domain)
    split = split_domain(domain)
    given = FitInput(domain, split, True, arguments.seed, arguments.work)
    folders = {"learned": arguments.learned}
    for name, vectors in closed_forms(given).items():
        folder = arguments.work / name.replace(" ", "-")

        def quantize(known: Any, work: Path, make: Any = vectors) -> Any:
            return residual_kmeans(
                make(), known, size=256, levels=3, iterations=20, seed=arguments.seed
            )

        settings = {"vectors": name, "seed": arguments.seed}
        write_tiger_codes(folder, given, settings, 256, quantize)
        folders[name] = folder
    results = []
    for name, folder in folders.items():
        facts = storage.read_json(folder / "report.json")
        result: dict[str, Any] = {"codes": name, "conflict_rate": round(facts["conflict_rate"], 4)}
        result |= agreement(read_codes(folder).codes, split)
        if name in arguments.recommend:
            work = arguments.work / f"recommender-{folder.name}-{arguments.seed}"
            result |= recommend(domain, folder, work, arguments.seed)
        results.append(result)
        print(json.dumps(result), flush=True)
    out = Path(__file__).parent / "results" / f"codes_{domain.name}.json"
    storage.write_json(out, {"seed": arguments.seed, "results": results})


if __name__ == "__main__":
    main()
