"""Read a log of interactions and turn it into sorted integer arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from utgrec.data.columns import INTERACTION_ROLES, find_columns
from utgrec.data.rejects import SCHEMA, Rejects
from utgrec.data.table import column_names, read_table
from utgrec.data.times import TimeUnit, read_times, row_times
from utgrec.data.values import id_text


class Log(NamedTuple):
    """n interactions, sorted by user, then time, then source order.

    Users are numbered in the order of their ids as text, so the numbers do not depend on the
    order of the rows.
    """

    user_ids: list[str]  # (U,)
    users: npt.NDArray[np.int32]  # (n,)
    items: npt.NDArray[np.int32]  # (n,)
    timestamps: npt.NDArray[np.int64]  # (n,), ms
    facts: dict[str, Any]


def read_log(
    path: Path,
    item_ids: Sequence[str],
    rejects: Rejects,
    *,
    columns: Mapping[str, str],
    time_unit: TimeUnit = "auto",
) -> Log:
    """Read interactions of the given items; rows that cannot be used go to `rejects`.

    Raises:
        BadTable: a column is missing or ambiguous.
    """
    seen = column_names(path)
    told = {role: name for role, name in columns.items() if role in INTERACTION_ROLES}
    if "item" not in told and columns.get("item_id") in seen:
        told["item"] = columns["item_id"]
    required = ["user", "item"] + ([] if time_unit == "row" else ["timestamp"])
    roles = find_columns(path.name, seen, INTERACTION_ROLES, told, required)
    roles = {role: roles[role] for role in required}
    table = read_table(path, rejects, list(dict.fromkeys(roles.values())))
    count = len(table.rows)
    times = (
        row_times(count)
        if time_unit == "row"
        else read_times(table.columns[roles["timestamp"]], time_unit)
    )
    known = pl.DataFrame(
        {"item_id": list(item_ids), "item": np.arange(len(item_ids), dtype=np.int32)},
        schema={"item_id": pl.String, "item": pl.Int32},
    )
    frame = pl.DataFrame(
        {
            "row": table.rows,
            "user_id": _ids(table.columns[roles["user"]]),
            "item_id": _ids(table.columns[roles["item"]]),
            "time": times.ms,
            "problem": times.problem,
            "shown": _shown(table.columns.get(roles.get("timestamp", "")), count),
        }
    ).join(known, on="item_id", how="left", maintain_order="left")
    frame = _set_aside(path.name, frame, rejects)
    return _sorted(
        frame,
        {
            "columns": roles,
            "time": times.facts,
            "rows": count,
        },
    )


def _ids(column: pl.Series | list[Any]) -> pl.Series:
    """Ids as text, exactly as written, null where there is none."""
    if isinstance(column, pl.Series) and column.dtype.is_integer():
        return column.cast(pl.String)
    if isinstance(column, pl.Series) and column.dtype == pl.String:
        blank = column.str.strip_chars() == ""
        return column.set(blank.fill_null(False), None)
    values = column.to_list() if isinstance(column, pl.Series) else column
    return pl.Series([id_text(value) for value in values], dtype=pl.String)


def _shown(column: pl.Series | list[Any] | None, count: int) -> pl.Series:
    """The times as they stand in the file, for messages."""
    if isinstance(column, pl.Series):
        return column.cast(pl.String, strict=False)
    values = column if column is not None else [None] * count
    return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


def _set_aside(file: str, frame: pl.DataFrame, rejects: Rejects) -> pl.DataFrame:
    """Move every row that cannot be used to `rejects`, with the first reason that applies."""
    reason = (
        pl.when(pl.col("user_id").is_null())
        .then(pl.lit("missing user id"))
        .when(pl.col("item_id").is_null())
        .then(pl.lit("missing item id"))
        .when(pl.col("item").is_null())
        .then(pl.lit("unknown item"))
        .otherwise(pl.col("problem"))
    )
    frame = frame.with_columns(reason.alias("reason"))
    bad = frame.filter(pl.col("reason").is_not_null())
    detail = (
        pl.when(pl.col("reason") == "unknown item")
        .then(pl.lit("the table of items does not have it"))
        .when(pl.col("reason").str.contains("time"))
        .then(pl.col("shown").fill_null(""))
        .otherwise(pl.lit(""))
    )
    rejects.add_frame(
        bad.with_columns(pl.lit(file).alias("file"), detail.alias("detail")).select(list(SCHEMA))
    )
    return frame.filter(pl.col("reason").is_null())


def _sorted(frame: pl.DataFrame, facts: dict[str, Any]) -> Log:
    users = frame.select(pl.col("user_id").unique().sort()).with_row_index("user")
    numbered = frame.join(users, on="user_id", how="left", maintain_order="left")
    user = numbered["user"].cast(pl.Int32).to_numpy()
    time = numbered["time"].to_numpy()
    order = np.lexsort((time, user))  # stable: equal times keep the source order
    return Log(
        user_ids=users["user_id"].to_list(),
        users=user[order],
        items=numbered["item"].to_numpy()[order],
        timestamps=time[order],
        facts=facts,
    )
