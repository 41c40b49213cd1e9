"""Small files in the schema of Amazon Reviews 2023, and what must come out of them."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

CATEGORY = "Musical_Instruments"
T0 = 1_500_000_000_000


def review(user: str, item: str, time: Any = T0, **other: Any) -> dict[str, Any]:
    return {
        "rating": 5.0,
        "title": "Good",
        "text": 'He said "user_id": "x"\nand 😀',
        "images": [],
        "asin": f"V{item}",
        "parent_asin": item,
        "user_id": user,
        "timestamp": time,
        "helpful_vote": 0,
        "verified_purchase": True,
        **other,
    }


def item(item_id: str, **other: Any) -> dict[str, Any]:
    root = f"https://m.example/{item_id}"
    return {
        "main_category": "Music",
        "title": f"Guitar {item_id}",
        "average_rating": 4.5,
        "rating_number": 12,
        "features": ["Six strings.", "Wood &amp; steel"],
        "description": ["<p>A fine</p>", "guitar"],
        "price": 99.5,
        "images": [
            {"thumb": f"{root}t0", "large": f"{root}l0", "variant": "PT01", "hi_res": None},
            {"thumb": f"{root}t1", "large": f"{root}l1", "variant": "MAIN", "hi_res": f"{root}h1"},
        ],
        "videos": [{"title": "Look", "url": "https://m.example/v", "user_id": "/shop"}],
        "store": "Fender",
        "categories": ["Music", "Guitars"],
        "details": {"Item Weight": "2 pounds", "parent_asin": "no"},
        "parent_asin": item_id,
        "bought_together": None,
        **other,
    }


def as_bytes(rows: list[Any]) -> bytes:
    """JSON lines; bytes stand as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    return b"".join(line + b"\n" for line in lines)


def write(
    folder: Path,
    reviews: list[Any] | bytes,
    items: list[Any] | bytes,
    *,
    category: str = CATEGORY,
    zipped: bool = False,
) -> Path:
    """The files of one category, as the data set has them."""
    for place, rows in (
        (f"raw/review_categories/{category}.jsonl", reviews),
        (f"raw/meta_categories/meta_{category}.jsonl", items),
    ):
        data = rows if isinstance(rows, bytes) else as_bytes(rows)
        path = folder / (f"{place}.gz" if zipped else place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if zipped else data)
    return folder


def some_shop(seed: int = 0) -> tuple[list[Any], list[Any]]:
    """Reviews and items of a shop: some fall out of the 5-core, some repeat, some tie."""
    rng = random.Random(seed)
    reviews = [
        review(
            f"U{rng.randint(0, 40):02d}",
            f"B{int(30 * rng.random() ** 2):02d}",
            T0 + rng.randint(0, 9),
        )
        for _ in range(500)
    ]
    reviews += [review(f"R{n}", f"B{n % 30:02d}") for n in range(40)]
    items = [item(f"B{n:02d}") for n in range(40)]
    rng.shuffle(items)
    return reviews, items
