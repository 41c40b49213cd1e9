"""Lines of reviews, raw JSON or the official 5-core's CSV, to events."""

from pathlib import Path

import polars as pl

from utgrec.data.amazon2023.parts import Part
from utgrec.data.blocks import Block
from utgrec.data.event_store import EVENT_SCHEMA
from utgrec.data.lines import LINE, CsvLines, JsonLines, LineFormat, Rows
from utgrec.data.rejects import SCHEMA
from utgrec.data.table_parts import column_names
from utgrec.data.times import YEAR_2100
from utgrec.errors import BadTable

COLUMNS = pl.Schema({"user_id": pl.String, "parent_asin": pl.String, "timestamp": pl.Int64})
IDS = ("user_id", "parent_asin")
YEAR_1995 = 788_918_400_000  # ms; the shop opened in July 1995


def layout_of(path: Path) -> LineFormat:
    """How the lines of a file of reviews are read.

    Raises:
        BadTable: it lacks a column, or is no table.
    """
    seen = column_names(path)
    missing = [name for name in COLUMNS if name not in seen]
    if missing:
        raise BadTable(
            f"{path.name} has no column {', '.join(missing)}; its columns are "
            f"{', '.join(seen) or 'none'}. Is it a file of Amazon Reviews 2023? Other tables are "
            "read by utgrec prepare table"
        )
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        return CsvLines(tuple(seen), COLUMNS, IDS)
    return JsonLines(COLUMNS, IDS)


def read_reviews(block: Block, layout: LineFormat, file: str) -> Part:
    """Events of a block, and the lines that cannot be used; the header of a CSV file is none."""
    lines = block.lines
    if isinstance(layout, CsvLines) and block.begins:
        rest = block.data[block.data.find(b"\n") + 1 :] if b"\n" in block.data else b""
        block = Block(block.first_line + 1, rest, lines - 1, False, block.ends_open and lines > 1)
    rows = Rows(block, layout, file)
    frame = rows.mend(rows.frame, list(COLUMNS))
    time = pl.col("timestamp")
    frame = frame.with_columns(
        pl.when(pl.col("user_id").str.strip_chars().fill_null("") == "")
        .then(pl.lit("missing user id"))
        .when(pl.col("parent_asin").str.strip_chars().fill_null("") == "")
        .then(pl.lit("missing item id"))
        .when(time.is_null())
        .then(pl.lit("missing time"))
        .when(time < 0)
        .then(pl.lit("negative time"))
        .when(time < YEAR_1995)
        .then(pl.lit("time before the year 1995"))
        .when(time >= YEAR_2100)
        .then(pl.lit("time after the year 2100"))
        .alias("reason")
    )
    events = frame.rename({"parent_asin": "item_id"})
    bad = events.filter(pl.col("reason").is_not_null())
    if bad.height:
        events = events.filter(pl.col("reason").is_null())
    return Part(events.select(list(EVENT_SCHEMA)), _rejected(rows, bad, file), lines)


def _rejected(rows: Rows, bad: pl.DataFrame, file: str) -> pl.DataFrame:
    entries = [
        {"file": file, "row": line, "reason": reason, "detail": detail}
        for line, reason, detail in rows.bad
    ]
    columns = {"missing user id": "user_id", "missing item id": "parent_asin"}
    for row in bad.iter_rows(named=True):
        reason = row["reason"]
        shown = rows.unusable.get((row[LINE], columns.get(reason, "timestamp")), "")
        if reason == "missing time" and shown:
            reason = "unreadable time"
        elif "time" in reason and row["timestamp"] is not None:
            shown = str(row["timestamp"])
        elif shown:
            shown = f"{shown} cannot be an id"
        entries.append(
            {
                **{"file": file, "row": row[LINE], "reason": reason, "detail": shown},
                **{"item_id": row["item_id"], "user_id": row["user_id"]},
            }
        )
    return pl.DataFrame(entries, schema=SCHEMA).sort("row", maintain_order=True)
