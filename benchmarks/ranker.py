"""What is a ranker worth, and would it need the network? Finished runs, ranked in three ways.

    python benchmarks/ranker.py runs/compare/office/runs/office/UTGRec/seed-* \
        --domain runs/domains/office

`mixture`: the voices mixed, and nothing else. `ranker`: the best of the mixture put in order.
`ranker without the network`: candidates are the best of the two memories alone, the ranker hears
nothing of the network; so what it lacks beside `ranker` is what the network is worth. All rankers
learn anew from the validation items, with the settings of the run's recipe; measured are all test
items, and apart from them those that nobody took in training. Differences are of means over the
seeds, with 95 % intervals of bootstrapped users.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from machine_facts import machine
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import split_domain
from utgrec.evaluation.generative import GenerativeSystem
from utgrec.evaluation.intervals import paired_test
from utgrec.evaluation.metrics import ndcg_at, recall_at
from utgrec.evaluation.protocol import evaluate
from utgrec.evaluation.ranking import fit_rounds, learn_ranker, make_rounds
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.mixing import Mixing
from utgrec.recommender.ranker import Ranker
from utgrec.recommender.train import read_memory, read_recommender
from utgrec.runs import RunFolder, read_plan
from utgrec.tokenizer.codes import read_codes

RESULTS = Path(__file__).parent / "results"
MEMORIES = Mixing(vectors=0.0, companions=0.4, contents=0.599, decay=0.8)
WAYS = ("mixture", "ranker", "ranker without the network")
Ranks = npt.NDArray[np.int32]


def measure(run: Path, domain: Domain) -> dict[str, Ranks]:
    """Rank of each test user's item, in three ways."""
    folder = RunFolder(run)
    recipe, split = read_plan(folder).recipe, split_domain(domain)
    model, vocabulary, config = read_recommender(folder.recommender)
    memory = read_memory(folder.recommender)
    shop = CodedDomain(domain.name, read_codes(folder.codes(domain.name)).codes, split)
    alone = memory._replace(mixing={domain.name: MEMORIES})

    def system(remembered: Any, ranker: Ranker | None) -> GenerativeSystem:
        return GenerativeSystem(
            model,
            vocabulary,
            domain.name,
            shop.codes,
            max_items=config.max_items,
            decoding=recipe.decoding,
            memory=remembered,
            ranker=ranker,
        )

    learned = learn_ranker(
        system(memory, None), vocabulary, shop, recipe.ranker, recipe.exclude_seen
    )
    print(run, learned.facts, flush=True)
    deaf_system = system(alone, None)
    rounds = make_rounds(deaf_system, shop, recipe.ranker, recipe.exclude_seen)
    deaf, _ = fit_rounds([one.deaf() for one in rounds], vocabulary, shop, recipe.ranker)
    found = {}
    for way, one in zip(
        WAYS,
        (system(memory, None), system(memory, learned.ranker), system(alone, deaf)),
        strict=True,
    ):
        result = evaluate(
            one, split, part="test", item_count=len(shop.codes), exclude_seen=recipe.exclude_seen
        )
        found[way] = result.ranks
        print(run.name, way, round(result.mean("ndcg@10"), 5), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--domain", required=True, type=Path)
    arguments = parser.parse_args()
    domain = Domain.open(arguments.domain)
    runs = [measure(run, domain) for run in arguments.runs]
    gains = {way: np.mean([ndcg_at(run[way], 10) for run in runs], axis=0) for way in WAYS}
    split = split_domain(domain)
    new = ~np.isin(split.test[split.evaluated], split.train)  # (U,)
    figures = {
        group: {
            way: {
                name: [round(float(metric(run[way][users], 10).mean()), 5) for run in runs]
                for name, metric in (("recall@10", recall_at), ("ndcg@10", ndcg_at))
            }
            for way in WAYS
        }
        for group, users in (("all", np.ones_like(new)), ("taken by nobody", new))
        if users.any()
    }
    differences = {}
    for one, other in (("ranker", "mixture"), ("ranker", "ranker without the network")):
        tested = paired_test(gains[one], gains[other])
        differences[f"{one} - {other}"] = {
            **{name: round(value, 5) for name, value in tested.difference._asdict().items()},
            "p": tested.p_value,
        }
    print(figures, differences)
    storage.write_json(
        RESULTS / f"ranker_{domain.name}.json",
        {
            "machine": machine(),
            "runs": [run.name for run in arguments.runs],
            "users": {"all": len(new), "taken by nobody": int(new.sum())},
            "figures": figures,
            "differences": differences,
            "memories": dataclasses.asdict(MEMORIES),
        },
    )


if __name__ == "__main__":
    main()
