"""What it takes to find the items that say the same, by the size of the catalogue.

    python benchmarks/alike.py

Texts are made of the phrases of `amazon_files.py`: Zipf's law over 20,000 words, and a model number
of its own for each item. All texts are counted and weighed; neighbours are looked for from some
items, spread evenly, in the whole catalogue, and the time is told for one and for all. Up to a size
the same items are compared with all others in full, which says how much of that is found. Seconds
are those of one processor; each size runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import amazon_files
from machine_facts import machine

RESULT = Path(__file__).parent / "results" / "alike.json"
NEIGHBOURS = 100
EXACT_UP_TO = 300_000  # items; in full, it is quadratic


def make_texts(count: int, seed: int = 3) -> list[str]:
    """Sentences of some 430 characters."""
    random = np.random.default_rng(seed)
    titles, phrases = (
        [json.loads(text) for text in amazon_files.pool(random, length)] for length in (12, 14)
    )
    texts = []
    for number in range(count):
        picks = random.integers(0, amazon_files.POOL, 8).tolist()
        told = [phrases[pick] for pick in picks[1 : 1 + int(random.integers(1, 8))]]
        texts.append(" ".join([titles[picks[0]], *told, f"model{number}"]))
    return texts


def measure(count: int, asked: int) -> dict[str, Any]:
    """One size, in this process."""
    from utgrec.data.similarities import nearest
    from utgrec.data.wording import count_words, word_vectors
    from utgrec.recommender.contents import ContentsConfig
    from utgrec.stages import peak_memory_mib

    texts = make_texts(count)
    start_mib = peak_memory_mib()
    counting, counts = _timed(lambda: count_words(texts))
    weighing, vectors = _timed(
        lambda: word_vectors(counts, counts, most_common=ContentsConfig().most_common)
    )
    rows = np.linspace(0, count - 1, asked).astype(np.int64)
    chosen = vectors[rows]
    # Each of them is its own nearest, so one neighbour more is looked for.
    preparing, _ = _timed(lambda: nearest(chosen[:1], vectors, neighbours=NEIGHBOURS + 1))
    search, found = _timed(lambda: nearest(chosen, vectors, neighbours=NEIGHBOURS + 1))
    each = max(search - preparing, 0.0) / asked
    result: dict[str, Any] = {
        "items": count,
        "words_an_item": round(counts.nnz / count, 1),
        "counting_s": round(counting, 2),
        "weighing_s": round(weighing, 2),
        "asked": asked,
        "search_ms_an_item": round(1000 * each, 3),
        "search_s_for_all": round(preparing + each * count),
        "mib_before": round(start_mib),
        "peak_mib": round(peak_memory_mib()),
    }
    if count <= EXACT_UP_TO:
        exact_s, exact = _timed(
            lambda: nearest(chosen, vectors, neighbours=NEIGHBOURS + 1, most=sys.maxsize)
        )
        shared = [
            len(np.intersect1d(one[one >= 0], other[other >= 0])) / max((one >= 0).sum(), 1)
            for one, other in zip(exact.items, found.items, strict=True)
        ]
        result["in_full"] = {
            "search_ms_an_item": round(1000 * max(exact_s - preparing, 0.0) / asked, 3),
            "neighbours_found": round(float(np.mean(shared)), 4),
            "similarity_found": round(float(found.values.sum() / exact.values.sum()), 4),
        }
    return result


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, and what came out."""
    started = time.process_time()
    done = work()
    return time.process_time() - started, done


def main() -> None:
    """All sizes, or one in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[30_000, 100_000, 300_000, 10**6])
    parser.add_argument("--asked", type=int, default=1000)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        sys.stdout.write(json.dumps(measure(given.one, given.asked)))
        return
    sizes = []
    for count in given.items:
        command = [sys.executable, __file__, "--one", str(count), "--asked", str(given.asked)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        sizes.append(json.loads(done.stdout))
        sys.stderr.write(f"{sizes[-1]}\n")
    result = {
        "command": " ".join(["python", "benchmarks/alike.py", *sys.argv[1:]]),
        "neighbours": NEIGHBOURS,
        "sizes": sizes,
        "machine": machine(),
    }
    given.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
