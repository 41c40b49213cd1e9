"""Should a memory weigh by how much it remembers? Two ways to mix the voices of a recommender.

    python benchmarks/mixtures.py runs/ablations/office/as-it-is-* \
        --codes runs/office/codes/office --domain domains/office

`shares`, as it is: each memory's sums of similarities become shares of a user's total, so who took
one rare item hears the memories as loudly as who took twenty known ones. `sums`: they are added to
the network's shares as they are, so little evidence weighs little. Of each way the mixture that is
best on all validation items is measured on all test items; the second figure is the mean of the 20
best by validation, which chance moves less. Given are recommenders, one for each seed.
"""

import argparse
import dataclasses
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from machine_facts import machine
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import split_domain
from utgrec.decoding.mixed import MixedSearch
from utgrec.evaluation.calibration import DECAYS, MOST_REMEMBERED, SHARES, VECTORS, gain
from utgrec.evaluation.generative import GenerativeSystem
from utgrec.evaluation.protocol import make_query
from utgrec.recipes import tiny
from utgrec.recommender.mixing import Mixing
from utgrec.recommender.train import read_memory, read_recommender
from utgrec.tokenizer.codes import read_codes

RESULTS = Path(__file__).parent / "results"
SUMS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # of what was counted, beside the network's shares
TEXTS = (0.0, 0.1, 0.15, 0.2, 0.3, 0.5)  # of what is alike, beside what was counted
BEST = 20
SETTINGS = ("decay", "vectors", "counted", "alike")
Mixture = tuple[str, float, float, float, float]  # way, decay, vectors, weights of the memories
Gains = dict[Mixture, float]


def measure(recommender: Path, codes: Path, domain: Domain, part: str) -> Gains:
    """NDCG@10 of every mixture on the items of a part."""
    split, coded = split_domain(domain), read_codes(codes).codes
    model, vocabulary, _ = read_recommender(recommender)
    decoding = dataclasses.replace(tiny().decoding, mixing=Mixing())
    system = GenerativeSystem(
        model,
        vocabulary,
        domain.name,
        coded,
        max_items=tiny().recommender.max_items,
        decoding=decoding,
        memory=read_memory(recommender),
    )
    search = system.search
    assert isinstance(search, MixedSearch), "a recommender of codes alone has nothing to mix"
    users, wanted = (
        (split.validated, split.valid) if part == "valid" else (split.evaluated, split.test)
    )
    query = make_query(split, users, part)
    tokens, mask = system.encoder.encode(query.histories)
    seen = [history.tolist() for history in query.histories]
    gains: Gains = defaultdict(float)
    pairs = [pair for pair in itertools.product(SHARES, SHARES) if sum(pair) <= MOST_REMEMBERED]
    for voices in search.voices(tokens, mask, k=10, beam=decoding.beam, exclude=seen):
        chunk = voices.users
        targets = torch.from_numpy(wanted[users[chunk]].astype(np.int64))
        reachable = voices.usable.gather(1, targets[:, None])[:, 0]
        networks = [(vectors, voices.network(vectors).exp()) for vectors in VECTORS]
        for decay in DECAYS:
            found = search.remembered(tokens[chunk], mask[chunk], decay)
            counted, alike = (torch.zeros(()) if sums is None else sums for sums in found)
            shares = [voices.shares(sums) for sums in (counted, alike)]
            heard = [one.any(dim=-1, keepdim=True) for one in shares]
            for vectors, network in networks:
                for one, two in pairs:
                    trained = (1 - one * heard[0] - two * heard[1]) * network
                    scores = trained + one * shares[0] + two * shares[1]
                    gains["shares", decay, vectors, one, two] += gain(scores, targets, reachable)
                for one, two in itertools.product(SUMS, TEXTS):
                    scores = network + one * (counted + two * alike)
                    scores = scores.masked_fill(~voices.usable, -torch.inf)
                    gains["sums", decay, vectors, one, two] += gain(scores, targets, reachable)
    return {mixture: total / len(users) for mixture, total in gains.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recommenders", nargs="+", type=Path)
    parser.add_argument("--codes", required=True, type=Path)
    parser.add_argument("--domain", required=True, type=Path)
    arguments = parser.parse_args()
    domain, results = Domain.open(arguments.domain), []
    for recommender in arguments.recommenders:
        valid, test = (
            measure(recommender, arguments.codes, domain, part) for part in ("valid", "test")
        )
        for way in ("shares", "sums"):
            order = sorted((one for one in valid if one[0] == way), key=lambda one: -valid[one])
            best = order[:BEST]
            results.append(
                {
                    "recommender": recommender.name,
                    "way": way,
                    "best": dict(zip(SETTINGS, best[0][1:], strict=True)),
                    "valid": round(valid[best[0]], 5),
                    "test": round(test[best[0]], 5),
                    "valid, mean of the best": round(float(np.mean([valid[m] for m in best])), 5),
                    "test, mean of the best": round(float(np.mean([test[m] for m in best])), 5),
                }
            )
            print(results[-1], flush=True)
    storage.write_json(
        RESULTS / f"mixtures_{domain.name}.json",
        {"metric": "ndcg@10", "best": BEST, "machine": machine(), "results": results},
    )


if __name__ == "__main__":
    main()
