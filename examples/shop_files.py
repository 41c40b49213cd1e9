"""The files of a small shop to try things with: tables in CSV, pictures behind web addresses.

    python examples/shop_files.py my-shop

The shop is simulated. As in real exports, not everything is right: some addresses lead nowhere, one
leads to a web page, and some purchases were exported twice. docs/ten-minutes.md uses it.
"""

import argparse
import csv
import json
import shutil
import tempfile
from pathlib import Path

from utgrec.data.marketplace import MarketplaceConfig, write_marketplace

COLUMNS = ("sku", "name", "brand", "categories", "description", "price", "image_url")


def main() -> None:
    """Simulate, then write what a shop system would export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--pictures-at", default="http://127.0.0.1:8899", help="where they will be")
    options = parser.parse_args()
    config = MarketplaceConfig(
        shops=("kitchen",), items_per_shop=options.items, users_per_shop=options.users
    )
    with tempfile.TemporaryDirectory() as work:
        write_marketplace(Path(work), config)
        source = Path(work) / "sources" / "kitchen"
        options.out.mkdir(parents=True)
        shutil.copytree(source / "images", options.out / "www")
        write_items(source / "items.jsonl", options.out, options.pictures_at)
        events = (source / "interactions.csv").read_text().splitlines()
    twice = events[-20:]
    (options.out / "interactions.csv").write_text("\n".join([*events, *twice]) + "\n")
    print(f"{options.out / 'items.csv'}: {options.items} items")
    print(f"{options.out / 'interactions.csv'}: {len(events) - 1 + len(twice)} purchases")
    print(f"{options.out / 'www'}: the pictures, for a web server at {options.pictures_at}")


def write_items(source: Path, out: Path, pictures_at: str) -> None:
    """Items as CSV; three of their addresses are wrong in the ways that addresses are."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    wrong = ["/gone.png", "/sorry.jpg", "//user:password@127.0.0.1/a.png"]
    with open(out / "items.csv", "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for row in rows:
            picture = row.get("image")
            url = f"{pictures_at}/{Path(picture).name}" if picture else ""
            if picture and wrong:
                path = wrong.pop()
                url = f"http:{path}" if path.startswith("//") else f"{pictures_at}{path}"
            cells = (row.get(name) for name in ("brand", "categories", "description", "price"))
            listed = ("|".join(cell) if isinstance(cell, list) else cell for cell in cells)
            table.writerow([row["item_id"], row["title"], *listed, url])
    (out / "www" / "sorry.jpg").write_text("<!doctype html><title>Not here</title>")


if __name__ == "__main__":
    main()
