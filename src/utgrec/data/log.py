"""Read a log of interactions and turn it into sorted integer arrays."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from utgrec.data.columns import EVENT_ROLES, INTERACTION_ROLES, find_columns
from utgrec.data.events import EventOptions, read_events
from utgrec.data.rejects import SCHEMA, Rejects
from utgrec.data.table import Table, column_names, read_tables
from utgrec.data.times import UTC, TimeUnit, read_times, row_times
from utgrec.data.values import id_text
from utgrec.errors import BadTable


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
    extra: dict[str, pl.Series] = {}  # noqa: RUF012  further columns, each (n,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogOptions:
    """How a log is read."""

    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Role → column name where the usual names do not fit."""
    time_unit: TimeUnit = "auto"
    """Unit of the times, see `utgrec.data.times`."""
    time_format: str = ""
    """strptime format of the times; empty = numbers or ISO 8601."""
    time_zone: str = UTC
    """Zone of times that name none."""
    events: EventOptions = dataclasses.field(default_factory=EventOptions)
    """Which events count."""


def read_log(
    paths: Sequence[Path], item_ids: Sequence[str], rejects: Rejects, options: LogOptions
) -> Log:
    """Read interactions of the given items; the same as `log_of` what is in the files.

    Raises:
        BadTable: a column is missing or ambiguous.
    """
    found = [find_roles(path.name, column_names(path), options) for path in paths]
    for path, roles in zip(paths, found, strict=True):
        if roles != found[0]:
            raise BadTable(
                f"{path.name} has the columns {_told(roles)} where {paths[0].name} has "
                f"{_told(found[0])}; the files of one log name their columns alike"
            )
    table = read_tables(paths, rejects, list(dict.fromkeys(found[0].values())))
    return log_of(table, item_ids, rejects, options)


def find_roles(file: str, seen: Sequence[str], options: LogOptions) -> dict[str, str]:
    """Which column of a log is the user, the item, the time, the event and the weight.

    Raises:
        BadTable: a column is missing or ambiguous.
    """
    columns = options.columns
    told = {role: name for role, name in columns.items() if role in INTERACTION_ROLES}
    if "item" not in told and columns.get("item_id") in seen:
        told["item"] = columns["item_id"]
    required = ["user", "item"] + ([] if options.time_unit == "row" else ["timestamp"])
    roles = find_columns(file, seen, INTERACTION_ROLES, told, required)
    roles = {role: roles[role] for role in required}
    told = {role: name for role, name in columns.items() if role in EVENT_ROLES}
    wanted = ["event"] if options.events.types else []
    if told or wanted:
        left = [name for name in seen if name not in roles.values()]
        roles |= find_columns(file, left, EVENT_ROLES, told, wanted)
    return roles


def log_of(table: Table, item_ids: Sequence[str], rejects: Rejects, options: LogOptions) -> Log:
    """Turn a table of interactions into a log; rows that cannot be used go to `rejects`.

    Raises:
        BadTable: a column is missing or ambiguous.
    """
    roles = find_roles(table.files[0], list(table.columns), options)
    count = len(table.rows)
    times = (
        row_times(count)
        if options.time_unit == "row"
        else read_times(
            table.columns[roles["timestamp"]],
            options.time_unit,
            time_format=options.time_format,
            time_zone=options.time_zone,
        )
    )
    of_events = {role: name for role, name in roles.items() if role in EVENT_ROLES}
    events = read_events(
        {role: _shown(table.columns[name], count) for role, name in of_events.items()},
        of_events,
        options.events,
        count,
    )
    known = pl.DataFrame(
        {"item_id": list(item_ids), "item": np.arange(len(item_ids), dtype=np.int32)},
        schema={"item_id": pl.String, "item": pl.Int32},
    )
    frame = pl.DataFrame(
        {
            "file": table.file_names(),
            "row": table.rows,
            "user_id": _ids(table.columns[roles["user"]]),
            "item_id": _ids(table.columns[roles["item"]]),
            "time": times.ms,
            "problem": times.problem,
            "event_problem": events.problem,
            "shown": _shown(table.columns.get(roles.get("timestamp", "")), count),
            "counts": events.counts,
            **{f"extra {name}": column for name, column in events.columns.items()},
        }
    ).join(known, on="item_id", how="left", maintain_order="left")
    # What does not count need not be right: a view of an item that is gone stops nobody.
    frame = frame.filter(pl.col("counts") | pl.col("event_problem").is_not_null())
    frame = _set_aside(frame, rejects)
    facts: dict[str, Any] = {"columns": roles, "time": times.facts, "rows": count}
    if of_events:
        facts["events"] = events.facts
    return _sorted(frame, facts)


def _told(roles: Mapping[str, str]) -> str:
    return ", ".join(f"{role} {name!r}" for role, name in roles.items())


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


def _set_aside(frame: pl.DataFrame, rejects: Rejects) -> pl.DataFrame:
    """Move every row that cannot be used to `rejects`, with the first reason that applies."""
    reason = (
        pl.when(pl.col("user_id").is_null())
        .then(pl.lit("missing user id"))
        .when(pl.col("item_id").is_null())
        .then(pl.lit("missing item id"))
        .when(pl.col("item").is_null())
        .then(pl.lit("unknown item"))
        .otherwise(pl.coalesce("problem", "event_problem"))
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
    rejects.add_frame(bad.with_columns(detail.alias("detail")).select(list(SCHEMA)))
    return frame.filter(pl.col("reason").is_null())


def _sorted(frame: pl.DataFrame, facts: dict[str, Any]) -> Log:
    users = frame.select(pl.col("user_id").unique().sort()).with_row_index("user")
    numbered = frame.join(users, on="user_id", how="left", maintain_order="left")
    user = numbered["user"].cast(pl.Int32).to_numpy()
    time = numbered["time"].to_numpy()
    order = np.lexsort((time, user))  # stable: equal times keep the source order
    source = np.argsort(user, kind="stable")  # every user's rows as they stand in the source
    unsorted = (np.diff(user[source]) == 0) & (np.diff(time[source]) < 0)
    facts = {**facts, "time": {**facts["time"], "unsorted": int(unsorted.sum())}}
    return Log(
        user_ids=users["user_id"].to_list(),
        users=user[order],
        items=numbered["item"].to_numpy()[order],
        timestamps=time[order],
        facts=facts,
        extra={
            name.removeprefix("extra "): numbered[name].gather(order)
            for name in numbered.columns
            if name.startswith("extra ")
        },
    )
