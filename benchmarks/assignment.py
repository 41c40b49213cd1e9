"""Unique codes for a million items: how long it takes, and that it grows as the items do.

    python benchmarks/assignment.py

States are synthetic: every item lies near a code tuple, and so many of them share one that the
asked share of items is in conflict. Each size is measured in this process after a small one that
does not count. Results go to `benchmarks/results/assignment.json`.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from machine_facts import machine
from utgrec.stages import peak_memory_mib
from utgrec.tokenizer.assignment import assign_codes
from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer

RESULTS = Path(__file__).parent / "results" / "assignment.json"
CONFLICTS = 0.3
NOISE = 0.02  # of a code vector's length: states do not lie on their codes


def make_quantizer() -> TreeQuantizer:
    """The published sizes: a root of 256, a leaf of 512, width 128."""
    torch.manual_seed(0)
    return TreeQuantizer(QuantizerConfig(code_length=3)).eval()


def make_states(quantizer: TreeQuantizer, items: int, conflicts: float) -> Tensor:
    """States of which the asked share has the nearest codes of another item: (N, L, D)."""
    rng = np.random.default_rng(0)
    sizes = quantizer.config.code_sizes
    # Pairs: half as many tuples as items in conflict, and one for each of the others.
    paired = round(items * conflicts / 2)
    tuples = rng.choice(int(np.prod(sizes)), items - paired, replace=False)
    numbers = rng.permutation(np.concatenate([tuples, tuples[:paired]]))
    codes = torch.from_numpy(np.stack(np.unravel_index(numbers, sizes), axis=1))
    generator = torch.Generator().manual_seed(1)
    states = torch.empty(items, len(sizes), quantizer.config.dim)
    with torch.no_grad():
        for start in range(0, items, 50_000):
            part = quantizer.embed(codes[start : start + 50_000]).cumsum(dim=1)
            noise = NOISE * torch.randn(part.shape, generator=generator)
            states[start : start + len(part)] = part + noise
    return states


def measure(quantizer: TreeQuantizer, items: int, conflicts: float) -> dict[str, Any]:
    """Seconds and figures of one assignment."""
    states = make_states(quantizer, items, conflicts)
    item_ids = [f"{number:08d}" for number in np.random.default_rng(2).permutation(items)]
    started, worked = time.perf_counter(), time.process_time()
    found = assign_codes(states, item_ids, quantizer)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    _, times = np.unique(found.nearest, axis=0, return_counts=True)
    unique = len(np.unique(found.codes, axis=0))
    if unique != items:
        raise SystemExit(f"{items - unique} of {items} items share their codes")
    return {
        "items": items,
        "seconds": round(seconds, 2),
        # On a machine that others use, seconds are theirs too; these are ours alone.
        "processor_seconds": round(worked, 2),
        "items_per_s": round(items / seconds),
        "conflict_share": round(float(times[times > 1].sum() / items), 4),
        "moved_share": round(float(found.conflict.mean()), 4),
        "peak_memory_mib": round(peak_memory_mib()),
    }


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--conflicts", type=float, default=CONFLICTS, help="share of items")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quantizer = make_quantizer()
    measure(quantizer, 10_000, arguments.conflicts)
    rows = []
    for items in arguments.items:
        load = os.getloadavg()[0]
        row = {**measure(quantizer, items, arguments.conflicts), "load_before": round(load, 1)}
        print(row, flush=True)
        rows.append(row)
    command = "python benchmarks/assignment.py"
    result = {"machine": machine(), "command": command, "assignment": rows}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
