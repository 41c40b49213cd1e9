"""Does T5 learn faster when its decoder begins with the codes of the newest item?

Both ways are trained side by side, on the same batches, from the same weights, on the simulated
shops. The codes are the items' true attributes, so only the recommender is in question.

    python benchmarks/decoder_start.py --steps 300 --seeds 3
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from machine_facts import machine
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.marketplace import MarketplaceConfig, Oracle, write_marketplace
from utgrec.data.split import split_domain
from utgrec.recommender.histories import CodedDomain, newest_codes
from utgrec.recommender.prefixes import PrefixBatch, PrefixBatches
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.t5_forward import t5_logits
from utgrec.recommender.vocabulary import PAD, Vocabulary


def true_codes(domain: Domain) -> np.ndarray:
    """Codes (N, 3) from the truth: product and theme, colour, and a number for the rest."""
    assert domain.folder is not None
    truth = Oracle.open(domain.folder).truth

    def numbered(column: str) -> np.ndarray:
        return np.unique(truth.column(column).to_pylist(), return_inverse=True)[1]

    first, second = numbered("product") * 8 + numbered("theme"), numbered("colour")
    taken: dict[tuple[int, int], int] = {}
    third = []
    for pair in zip(first.tolist(), second.tolist(), strict=True):
        third.append(taken.get(pair, 0))
        taken[pair] = third[-1] + 1
    return np.stack([first, second, np.array(third)], axis=1).astype(np.int16)


def losses(model: T5Recommender, batch: PrefixBatch, newest: bool) -> Tensor:
    """Cross-entropy of each code, (L,), with or without the newest item in the decoder."""
    start = torch.full_like(batch.targets[:, :1], PAD)
    length = batch.targets.shape[1]
    lead = [newest_codes(batch.tokens, batch.mask, length)] if newest else []
    written = torch.cat([start, *lead, batch.targets[:, :-1]], dim=1)
    logits = t5_logits(model.t5, batch.tokens, batch.mask, written)[:, -length:]
    each = F.cross_entropy(logits.transpose(1, 2), batch.targets, reduction="none")
    return each.mean(dim=0)


def curve(batches: PrefixBatches, vocabulary: Vocabulary, newest: bool, seed: int, steps: int):
    """Mean loss of the first code over every 50 steps."""
    torch.manual_seed(seed)
    model = T5Recommender.create(T5Sizes(), vocabulary).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05, fused=True)
    means, recent = [], []
    for number in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (number + 1) / 50)
        with torch.autocast("cpu", torch.bfloat16):
            each = losses(model, batches(number), newest)
        each.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(float(each[0].detach()))
        if (number + 1) % 50 == 0:
            means.append(round(float(np.mean(recent)), 4))
            recent = []
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/tmp/utgrec-decoder-start"))
    arguments = parser.parse_args()
    folders = write_marketplace(arguments.work, MarketplaceConfig())
    domains = [Domain.open(folder) for folder in folders]
    coded = [CodedDomain(d.name, true_codes(d), split_domain(d)) for d in domains]
    vocabulary = Vocabulary(
        root_size=64, leaf_size=64, code_length=3, domains=tuple(d.name for d in domains)
    )
    results = []
    for seed in range(arguments.seeds):
        batches = PrefixBatches(
            coded, vocabulary, max_items=20, batch_size=128, temperature=1.0, seed=seed
        )
        for newest in (True, False):
            began = time.perf_counter()
            means = curve(batches, vocabulary, newest, seed, arguments.steps)
            seconds = round(time.perf_counter() - began, 1)
            results.append({"seed": seed, "newest": newest, "code_1": means, "seconds": seconds})
            print(results[-1], flush=True)
    storage.write_json(
        Path(__file__).parent / "results" / "decoder_start.json",
        {
            "command": f"python benchmarks/decoder_start.py --steps {arguments.steps} "
            f"--seeds {arguments.seeds}",
            "what": "loss of the first code (nats), means over 50 steps",
            "machine": machine(),
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
