"""How long the explorer's own answers take, for catalogues up to a million items.

    python benchmarks/explorer.py

Made-up catalogues (titles of 4 to 9 words, brands, categories, prices, random codes) are searched
with words that few and many items have, beginnings of one letter, and what nothing begins with; the
tree is opened at its root and below; the columns are described. What is made of a generation is
timed apart from answers. Figures are the process's own processor time, medians of repeats, so other
work on the machine counts little; results go to `benchmarks/results/explorer.json`.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from machine_facts import machine
from utgrec.catalog import Catalog
from utgrec.decoding import CodeTrie
from utgrec.serving.explorer.facets import describe_facets
from utgrec.serving.explorer.search import SearchIndex
from utgrec.serving.explorer.tree import Atlas

RESULTS = Path(__file__).parent / "results" / "explorer.json"
SIZES = (256, 512, 512)
WORDS = 30_000
QUERIES = {
    "a rare word": "word900",
    "a common word": "word1",
    "two words": "word12 word7",
    "one letter": "w",
    "an id": "B0000777",
    "nothing begins so": "ord123",
}


def make_shelf(items: int, random: np.random.Generator) -> Any:
    """A catalogue with codes, as much of a shelf as the explorer needs."""
    # As in real titles, few words are common and most are rare.
    lengths = random.integers(4, 10, items)
    numbers = np.minimum(random.zipf(1.3, int(lengths.sum())), WORDS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    vocabulary = pa.array([f"word{number}" for number in range(WORDS + 1)])
    words = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), vocabulary.take(numbers))
    titles = pa.compute.binary_join(words, " ")
    brands = pa.array([f"brand {number}" for number in range(2000)])
    shelves = pa.array([["all", f"shelf {number}"] for number in range(300)])
    table = pa.table(
        {
            "item_id": [f"B{place:07d}" for place in range(items)],
            "title": titles,
            "text": titles,
            "image": pa.nulls(items, pa.string()),
            "brand": brands.take(pa.array(random.integers(0, 2000, items))),
            "category": shelves.take(pa.array(random.integers(0, 300, items))),
            "price": random.lognormal(3, 1, items),
        }
    )
    places = random.choice(int(np.prod(SIZES)), items, replace=False)
    codes = np.stack(np.unravel_index(places, SIZES), axis=1).astype(np.int16)
    rows = SimpleNamespace(
        conflict=random.random(items) < 0.1, distance=random.random(items).astype(np.float32)
    )
    return SimpleNamespace(
        catalog=Catalog(table),
        codes=codes,
        live=random.random(items) < 0.98,
        pictured=np.zeros(items, dtype=bool),
        generation=SimpleNamespace(sizes=SIZES, rows=rows),
        trie=CodeTrie.build(codes),
    )


def milliseconds(action: Callable[[], Any], repeats: int) -> float:
    """Median time of an action."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return round(1000 * statistics.median(times), 2)


def measure(items: int, repeats: int) -> dict[str, Any]:
    """All figures of one size."""
    shelf = make_shelf(items, np.random.default_rng(0))
    made: dict[str, Any] = {"items": items}
    started = time.process_time()
    index = SearchIndex(shelf.catalog, shelf.live)
    made["search: make (s)"] = round(time.process_time() - started, 2)
    made["search: memory (bytes per item)"] = round(index.nbytes / items)
    for name, query in QUERIES.items():
        made[f"search: {name} (ms)"] = milliseconds(lambda q=query: index.find(q, 24), repeats)
        made[f"search: {name} (found)"] = index.find(query, 24).total
    started = time.process_time()
    atlas = Atlas(shelf)
    made["tree: make (s)"] = round(time.process_time() - started, 2)
    for name, prefix in (("root", ()), ("below", (7,)), ("two below", (7, 11))):
        made[f"tree: {name}, first time (ms)"] = milliseconds(lambda p=prefix: atlas._make(p), 3)
        made[f"tree: {name}, again (ms)"] = milliseconds(lambda p=prefix: atlas.spread(p), repeats)
    made["facets: first time (ms)"] = milliseconds(
        lambda: describe_facets(shelf.catalog, shelf.live), 3
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()

    load = os.getloadavg()[0]
    found = {
        "machine": {
            **machine(),
            "pyarrow": pa.__version__,
            "note": "busy with other work" if load > 1 else "otherwise idle",
        },
        "sizes": [measure(items, given.repeats) for items in given.items],
    }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
