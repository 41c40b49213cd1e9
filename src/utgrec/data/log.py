"""Read a log of interactions part by part into a store of events.

The unit of the times is known only once all of them were seen, so there are two passes: each part
is read, weighed and written to disk; then its times are told, bad rows are set aside, and the
rest goes to the store.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from utgrec.data.columns import EVENT_ROLES, INTERACTION_ROLES, find_columns
from utgrec.data.event_store import EventStore
from utgrec.data.events import EventOptions, EventScale
from utgrec.data.rejects import SCHEMA, Rejects
from utgrec.data.table import Table
from utgrec.data.times import UTC, Clock, Moments, TimeUnit, read_moments
from utgrec.data.values import id_text, storable_text
from utgrec.errors import BadTable

TOGETHER = 2**18  # rows
EXTRA = "extra "  # before the names of further columns, while the others are still there


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


def find_roles(columns: Mapping[str, Sequence[str]], options: LogOptions) -> dict[str, str]:
    """Which column of a log is the user, the item, the time, the event and the weight.

    `columns` is file → names of its columns; all files name them alike.

    Raises:
        BadTable: a column is missing or ambiguous.
    """
    found = {file: _roles(file, seen, options) for file, seen in columns.items()}
    first = next(iter(found))
    for file, roles in found.items():
        if roles != found[first]:
            raise BadTable(
                f"{file} has the columns {_shown_roles(roles)} where {first} has "
                f"{_shown_roles(found[first])}; the files of one log name their columns alike"
            )
    return found[first]


def read_log(
    parts: Iterable[Table],
    roles: Mapping[str, str],
    known: pl.Series,
    work: Path,
    store: EventStore,
    rejects: Rejects,
    options: LogOptions,
) -> dict[str, Any]:
    """Fill a store with the events of a log; what cannot be used goes to `rejects`.

    Args:
        known: the ids of the items that there are.
        work: an empty folder for what is only needed meanwhile.

    Returns:
        What the manifest of the domain records: columns, time, rows, and events if they are told.
    """
    weights = {role: name for role, name in roles.items() if role in EVENT_ROLES}
    scale = EventScale(weights, options.events)
    clock = Clock(options.time_unit, time_format=options.time_format, time_zone=options.time_zone)
    rows = 0

    def weighed() -> Iterator[pl.DataFrame]:
        nonlocal rows
        for part in parts:
            frame = _untimed(part, roles, options, rows)
            rows += frame.height
            clock.see(_moments(frame))
            events = scale.weigh(
                {role: _texts(part.column(name)) for role, name in weights.items()}, frame.height
            )
            # What does not count need not be right: a view of an item that is gone stops nobody.
            yield frame.with_columns(
                events.problem.alias("event_problem"),
                *(column.alias(f"{EXTRA}{name}") for name, column in events.columns.items()),
            ).filter(events.counts | events.problem.is_not_null())

    count = 0
    for count, frame in enumerate(_together(weighed()), start=1):
        frame.write_ipc(work / f"{count}.arrow", compression="lz4")
    for number in range(1, count + 1):
        path = work / f"{number}.arrow"
        frame = pl.read_ipc(path)
        path.unlink()
        store.add(number, _usable(frame, clock, known, rejects, options))
    facts: dict[str, Any] = {"columns": dict(roles), "time": clock.facts, "rows": rows}
    return {**facts, "events": scale.facts} if weights else facts


def _together(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Small parts as larger ones: what is done to each of them is not free."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(each.height for each in waiting) >= TOGETHER:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)


def _roles(file: str, seen: Sequence[str], options: LogOptions) -> dict[str, str]:
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


def _shown_roles(roles: Mapping[str, str]) -> str:
    return ", ".join(f"{role} {name!r}" for role, name in roles.items())


def _untimed(
    part: Table, roles: Mapping[str, str], options: LogOptions, before: int
) -> pl.DataFrame:
    """Ids and times of a part as they are written; `before` rows came before it."""
    count = len(part.rows)
    if options.time_unit == "row":
        places = np.arange(before, before + count, dtype=np.float64)
        moments = Moments(places, np.full(count, np.nan), np.zeros(count, dtype=np.bool_))
        shown = pl.repeat(None, count, dtype=pl.String, eager=True)
    else:
        column = part.column(roles["timestamp"])
        moments = read_moments(column, time_format=options.time_format, time_zone=options.time_zone)
        shown = _texts(column)
    return pl.DataFrame(
        {
            "file": pl.repeat(part.files[0], count, dtype=pl.String, eager=True),
            "row": part.rows,
            "user_id": _ids(part.column(roles["user"])),
            "item_id": _ids(part.column(roles["item"])),
            "number": moments.numbers,
            "date": moments.dates,
            "no_time": moments.missing,
            "shown": shown,
        }
    )


def _moments(frame: pl.DataFrame) -> Moments:
    return Moments(*(frame[name].to_numpy() for name in ("number", "date", "no_time")))


def _usable(
    frame: pl.DataFrame, clock: Clock, known: pl.Series, rejects: Rejects, options: LogOptions
) -> pl.DataFrame:
    """The events of a part; every other row is set aside with the first reason that applies."""
    if options.time_unit == "row":
        times = [pl.col("number").cast(pl.Int64).alias("timestamp"), pl.lit(None).alias("problem")]
    else:
        read = clock.read(_moments(frame))
        times = [pl.lit(pl.Series("timestamp", read.ms)), pl.lit(read.problem.alias("problem"))]
    reason = (
        pl.when(pl.col("user_id").is_null())
        .then(pl.lit("missing user id"))
        .when(pl.col("item_id").is_null())
        .then(pl.lit("missing item id"))
        .when(~pl.col("item_id").is_in(known.implode()))
        .then(pl.lit("unknown item"))
        .otherwise(pl.coalesce("problem", "event_problem"))
    )
    frame = frame.with_columns(times).with_columns(reason.alias("reason"))
    detail = (
        pl.when(pl.col("reason") == "unknown item")
        .then(pl.lit("the table of items does not have it"))
        .when(pl.col("reason").str.contains("time"))
        .then(pl.col("shown").fill_null(""))
        .otherwise(pl.lit(""))
    )
    bad = frame.filter(pl.col("reason").is_not_null())
    if bad.height:
        rejects.add_frame(bad.with_columns(detail.alias("detail")).select(list(SCHEMA)))
        frame = frame.filter(pl.col("reason").is_null())
    extra = [name for name in frame.columns if name.startswith(EXTRA)]
    return frame.select(
        "user_id",
        "item_id",
        "timestamp",
        *(pl.col(name).alias(name.removeprefix(EXTRA)) for name in extra),
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


def _texts(column: pl.Series | list[Any]) -> pl.Series:
    """Values as they stand in the file."""
    if isinstance(column, pl.Series):
        return column.cast(pl.String, strict=False)
    return pl.Series(
        [None if value is None else storable_text(str(value)) for value in column], dtype=pl.String
    )
