"""Domains whose items name pictures by address."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import write_domain


def write_pictured(folder: Path, urls: list[Any], images: list[str | None] | None = None) -> Path:
    """A finished domain of one user and an item for each address."""
    count = len(urls)
    with storage.new_folder(folder) as new:
        for name in images or []:
            if name is not None:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_bytes(b"a local picture")
        items = pa.table(
            {
                "item_id": [f"i{place}" for place in range(count)],
                "title": [f"Item {place}" for place in range(count)],
                "text": [f"Item {place}." for place in range(count)],
                "image": pa.array(images or [None] * count, pa.string()),
                "image_url": pa.array(urls),
            }
        )
        write_domain(
            new,
            name="shop",
            items=items,
            user_ids=["u"],
            interactions=pa.table(
                {
                    "user": pa.array([0] * count, pa.int32()),
                    "item": pa.array(range(count), pa.int32()),
                    "timestamp": pa.array(range(count), pa.int64()),
                }
            ),
            config={},
            inputs={},
            facts={"rejected": {}},
        )
    return folder


def outcomes_of(folder: Path) -> dict[str, str]:
    """Address → outcome."""
    rows = pq.read_table(folder / "image_outcomes.parquet").to_pylist()
    return {row["url"]: row["outcome"] for row in rows}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The table of outcomes, row by row."""
    rows: list[dict[str, Any]] = pq.read_table(folder / "image_outcomes.parquet").to_pylist()
    return rows


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
