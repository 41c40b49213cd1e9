"""Write a shop as its owner might bring it: CSV tables, pictures, and new arrivals for later.

    python examples/csv_shop.py shop --items 600 --people 1500

The shop is simulated (docs/marketplace.md). docs/csv-to-page.md begins here and ends with a page in
the browser.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path
from random import Random

from utgrec.data.marketplace import MarketplaceConfig
from utgrec.data.marketplace.simulation import simulate
from utgrec.data.marketplace.write import write_source

COLUMNS = ("item_id", "title", "brand", "category", "description", "price", "in_stock", "image")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a shop as CSV tables and pictures.")
    parser.add_argument("out", type=Path, help="folder to write; it must not exist")
    parser.add_argument("--kind", default="kitchen", help="what it sells, such as kitchen")
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--new", type=int, default=12, help="of them, items that come later")
    parser.add_argument("--people", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    given.out.mkdir(parents=True)

    config = MarketplaceConfig(
        seed=given.seed,
        shops=(given.kind,),
        items_per_shop=given.items,
        users_per_shop=given.people,
    )
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        write_source(source, simulate(config, given.kind), config)
        (source / "images").rename(given.out / "images")
        lines = (source / "items.jsonl").read_text(encoding="utf-8").splitlines()
        with open(source / "interactions.csv", encoding="utf-8", newline="") as stream:
            taken = list(csv.DictReader(stream))

    stock = Random(given.seed)
    items = []
    for line in lines:
        item = json.loads(line)
        item["category"] = " > ".join(item.pop("categories"))
        item["in_stock"] = "true" if stock.random() < 0.85 else "false"
        items.append(item)
    later, now = items[len(items) - given.new :], items[: len(items) - given.new]

    _write(given.out / "items.csv", COLUMNS, now)
    known = {item["item_id"] for item in now}
    rows = [row for row in taken if row["item_id"] in known]
    _write(given.out / "interactions.csv", ("user_id", "item_id", "timestamp"), rows)
    with open(given.out / "new_items.jsonl", "w", encoding="utf-8") as stream:
        for item in later:
            present = {name: value for name, value in item.items() if value is not None}
            stream.write(json.dumps(present, ensure_ascii=False) + "\n")

    print(f"{given.out}/items.csv: {len(now)} items")
    print(f"{given.out}/interactions.csv: {len(rows)} interactions of {given.people} people")
    print(f"{given.out}/new_items.jsonl: {len(later)} items that come later")


def _write(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
