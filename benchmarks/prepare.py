"""Prepare generated files of Amazon Reviews 2023, beside the field's way: json into pandas.

    python benchmarks/prepare.py --work /tmp/prepare

The field's way reads line by line with `json.loads` into a DataFrame and filters there. Both do the
same work, and their results are compared value by value. "lean" is the field's way with more care:
it keeps only the columns that it needs of each line. Every run is a process of its own; the sides
take turns. Then this project's way alone, on 1 and 4 million reviews.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import amazon_files

RESULT = Path(__file__).parent / "results" / "prepare.json"
MIB = 2**20
FEWEST = 50_000  # reviews of which the k-core leaves something
QUIET = 2.5  # load of the two processors, with one's own work alone
REVIEW_COLUMNS = ("user_id", "parent_asin", "timestamp")
TABLES = ("items.parquet", "users.parquet", "interactions.parquet")


# ------------------------------------------------------------------------------------- the sides


def ours(files: Path, out: Path) -> None:
    """This project's way."""
    from utgrec.data.amazon2023.prepare import AmazonOptions, prepare_amazon

    prepare_amazon(amazon_files.CATEGORY, files, out, AmazonOptions())


def field(files: Path, out: Path, lean: bool = False) -> None:
    """Line by line into pandas, then filters, then one text after the other."""
    import pandas as pd

    from utgrec.data.amazon2023.metadata import SENTENCE
    from utgrec.data.sentence import clean_list, clean_text, render_sentence

    def read(name: str, columns: tuple[str, ...]) -> "pd.DataFrame":
        with open(files / name, encoding="utf-8") as stream:
            if not lean:
                return pd.DataFrame([json.loads(line) for line in stream])
            rows = (json.loads(line) for line in stream)
            return pd.DataFrame(
                [[row.get(column) for column in columns] for row in rows], columns=list(columns)
            )

    log = read(f"{amazon_files.CATEGORY}.jsonl", REVIEW_COLUMNS)
    log = log.sort_values(["user_id", "timestamp"], kind="stable")
    log = log.drop_duplicates(["user_id", "parent_asin"])
    while True:
        users, items = log["user_id"].value_counts(), log["parent_asin"].value_counts()
        keep = log["user_id"].map(users).ge(5) & log["parent_asin"].map(items).ge(5)
        if keep.all():
            break
        log = log[keep]
    user_ids, item_ids = sorted(set(log["user_id"])), sorted(set(log["parent_asin"]))
    wanted = (*SENTENCE, "store", "price", "main_category", "images", "parent_asin")
    metadata = read(f"meta_{amazon_files.CATEGORY}.jsonl", wanted)
    metadata = metadata.drop_duplicates("parent_asin").set_index("parent_asin").loc[item_ids]
    columns: dict[str, list[Any]] = {name: [] for name in ("title", "text", "brand", "category")}
    pictures = []
    for row in metadata.itertuples():
        title = clean_text(row.title or "")
        lists = [clean_list(row.features), clean_list(row.categories), clean_list(row.description)]
        columns["title"].append(title or None)
        columns["text"].append(render_sentence([title, *lists]))
        columns["brand"].append(clean_text(row.store or "") or None)
        columns["category"].append(lists[1] or None)
        main = [image for image in row.images if image["variant"] == "MAIN"] or row.images
        pictures.append(main[0]["large"] if main else None)
    prices = [None if price != price else price for price in metadata["price"].tolist()]
    out.mkdir(parents=True)
    pq.write_table(
        pa.table(
            {
                "item_id": item_ids,
                "title": columns["title"],
                "text": columns["text"],
                "image": pa.nulls(len(item_ids), pa.string()),
                "brand": columns["brand"],
                "category": columns["category"],
                "price": pa.array(prices, pa.float64()),
                "main_category": metadata["main_category"].tolist(),
                "image_url": pictures,
            }
        ),
        out / "items.parquet",
    )
    pq.write_table(pa.table({"user_id": user_ids}), out / "users.parquet")
    number = {name: n for n, name in enumerate(user_ids)}
    place = {name: n for n, name in enumerate(item_ids)}
    pq.write_table(
        pa.table(
            {
                "user": pa.array(log["user_id"].map(number), pa.int32()),
                "item": pa.array(log["parent_asin"].map(place), pa.int32()),
                "timestamp": pa.array(log["timestamp"], pa.int64()),
            }
        ),
        out / "interactions.parquet",
    )


SIDES = {
    "ours": ours,
    "field": field,
    "lean": lambda files, out: field(files, out, lean=True),
}


# ------------------------------------------------------------------------------------- measuring


def run_side(side: str, files: Path, out: Path) -> None:
    """In a process of its own: do it, and print what it took."""
    started = time.monotonic()
    SIDES[side](files, out)
    wall = time.monotonic() - started
    from utgrec.stages import peak_memory_mib

    used = resource.getrusage(resource.RUSAGE_SELF)
    sys.stdout.write(
        json.dumps(
            {
                "wall_s": round(wall, 3),
                "cpu_s": round(used.ru_utime + used.ru_stime, 3),
                "peak_mib": round(peak_memory_mib(), 1),
            }
        )
    )


def measure(side: str, files: Path, out: Path) -> dict[str, float]:
    """One run in a new process."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--side", side, "--files", str(files), "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    sys.stderr.write(f"{files.name} {side}: {result}\n")
    return result


def medians(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Median and spread of each figure."""
    return {
        name: {
            "median": statistics.median(run[name] for run in runs),
            "all": [run[name] for run in runs],
        }
        for name in runs[0]
    }


def differences(one: Path, other: Path) -> list[str]:
    """Names of the tables in which two domains differ."""
    return [
        name for name in TABLES if not pq.read_table(one / name).equals(pq.read_table(other / name))
    ]


def paired(files: Path, work: Path, repeats: int, sides: list[str]) -> dict[str, Any]:
    """The sides in turn; their results must be equal."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side in sides:
            runs[side].append(measure(side, files, work / side))
    differ = {side: differences(work / "ours", work / side) for side in sides}
    found = {side: medians(each) for side, each in runs.items()}
    ratios = {
        side: {
            "times_faster": {
                clock: round(found[side][clock]["median"] / found["ours"][clock]["median"], 2)
                for clock in ("wall_s", "cpu_s")
            },
            "peak_share": round(
                found["ours"]["peak_mib"]["median"] / found[side]["peak_mib"]["median"], 3
            ),
        }
        for side in sides
        if side != "ours"
    }
    sizes = {path.name: round(path.stat().st_size / MIB) for path in files.iterdir()}
    return {"files_mib": sizes, "differences": differ, "sides": found, "against": ratios}


def save(path: Path, result: dict[str, Any]) -> None:
    """What is known so far."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Everything, or one side in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("prepare-work"))
    parser.add_argument("--reviews", type=int, default=3_000_000)
    parser.add_argument("--items", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-lean", action="store_true", help="leave out the careful reference")
    parser.add_argument("--sizes", type=int, nargs=2, default=[1_000_000, 4_000_000])
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        run_side(given.side, given.files, given.out)
        return
    from machine_facts import machine  # imports torch, whose memory no side is to be charged with

    facts, before = machine(), os.getloadavg()[0]
    small, large = given.sizes
    if small < FEWEST:
        parser.error(
            f"--sizes: {small} reviews leave nothing after the k-core; {FEWEST} are enough"
        )
    files = amazon_files.write_files(given.work, given.reviews, given.items)
    sides = ["ours", "field"] if given.no_lean else ["ours", "field", "lean"]
    result: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/prepare.py", *sys.argv[1:]]),
        "reviews": given.reviews,
        "items": given.items,
        "repeats": given.repeats,
        "paired": paired(files, given.work, given.repeats, sides),
    }
    named = {"small": small, "large": large}
    made = {
        name: amazon_files.write_files(given.work, size, size // 10) for name, size in named.items()
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in made}
    for _ in range(given.repeats):
        for name, written in made.items():
            runs[name].append(measure("ours", written, given.work / "ours"))
    sizes = {name: medians(each) for name, each in runs.items()}
    result["linear"] = {
        "reviews": given.sizes,
        **sizes,
        "ratio": {
            clock: round(sizes["large"][clock]["median"] / sizes["small"][clock]["median"], 2)
            for clock in ("wall_s", "cpu_s")
        },
    }
    after = os.getloadavg()[0]
    result["machine"] = {**facts, "load_after": round(after, 1)}
    if max(before, after) > QUIET:
        result["note"] = (
            "Other work ran beside it: processor seconds say more than wall seconds, which for "
            "this project's way, which uses both processors, would be shorter on a quiet machine."
        )
    save(given.result, result)
    sys.stdout.write(json.dumps({k: result[k] for k in ("paired", "linear")}, indent=1) + "\n")


if __name__ == "__main__":
    main()
