"""Read times in whatever unit a log has them, and give milliseconds since 1970 (UTC).

The unit of numbers is decided once for the whole column, by the size of its median:

| median | unit | what is stored |
|---|---|---|
| below 10^8 | position (0, 1, 2 … or 20140615) | the number itself |
| below 10^11 | seconds | × 1,000 |
| below 10^14 | milliseconds | the number itself |
| below 10^17 | microseconds | / 1,000 |
| above | nanoseconds | / 1,000,000 |

Times in ISO 8601 ("2014-06-15", "2014-06-15T10:00:00+02:00") are read as such; other ones with a
format ("%d.%m.%Y %H:%M", the directives of strptime). Times that name no zone are in the zone told,
else in UTC; of an hour that comes twice in a year the first is meant, an hour that a zone skips
does not exist. Real times must lie between 1970 and 2100.
"""

import datetime
import re
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from utgrec.config import require

TimeUnit = Literal["auto", "position", "row", "s", "ms", "us", "ns"]

FACTORS = {"position": 1.0, "s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
LIMITS = (("position", 1e8), ("s", 1e11), ("ms", 1e14), ("us", 1e17))
YEAR_1971 = 31_536_000_000  # ms
YEAR_2100 = 4_102_444_800_000  # ms
UTC = "UTC"
DIRECTIVES = (
    *(
        "%Y",
        "%y",
        "%m",
        "%b",
        "%B",
        "%d",
        "%e",
        "%j",
        "%a",
        "%A",
        "%H",
        "%I",
        "%p",
        "%M",
        "%S",
        "%f",
    ),
    *("%z", "%s", "%F", "%T", "%D", "%R", "%%"),
)
_DIRECTIVE = re.compile("%.?", re.DOTALL)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MS = datetime.timedelta(milliseconds=1)


class Times(NamedTuple):
    """The times of n interactions."""

    ms: npt.NDArray[np.int64]  # (n,), 0 where there is a problem
    problem: pl.Series  # (n,), why a time cannot be used, or null
    unit: str  # position, row, s, ms, us, ns or date
    rule: str  # in words, for the manifest

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest of the domain records."""
        real = self.unit not in ("position", "row")
        # A clock that was never set, or a 0 where there was no time, falls into 1970.
        early = (self.ms < YEAR_1971) & self.problem.is_null().to_numpy()
        return {
            "unit": self.unit,
            "real": real,
            "rule": self.rule,
            "in_1970": int(early.sum()) if real else 0,
        }


def check_format(time_format: str, time_zone: str) -> None:
    """Refuse a format or a time zone that cannot be meant.

    Raises:
        BadConfig: no directive, fractions that are not decimals of seconds, an unknown zone.
    """
    require(
        not time_format or "%" in time_format.replace("%%", ""),
        f"time_format {time_format!r} has no directive such as %Y; see strptime",
    )
    unknown = sorted(set(_DIRECTIVE.findall(time_format)) - set(DIRECTIVES))
    require(
        not unknown,
        f"time_format {time_format!r}: {', '.join(unknown)} cannot be read; directives are "
        f"{' '.join(DIRECTIVES)}",
    )
    require(
        "%f" not in time_format.replace(".%f", ""),
        f"time_format {time_format!r}: %f is read after a point only, as in %S.%f",
    )
    try:
        _in_utc(pl.Series([0], dtype=pl.Int64), time_zone)
        known = True
    except pl.exceptions.PolarsError:
        known = False
    require(known, f"time_zone {time_zone!r} is unknown; it is a name such as Europe/Berlin")


def read_times(
    values: pl.Series | list[Any],
    unit: TimeUnit = "auto",
    *,
    time_format: str = "",
    time_zone: str = UTC,
) -> Times:
    """Read a column of times; see the table above. With a format, every time must have it."""
    column = values if isinstance(values, pl.Series) else pl.Series(_texts(values), dtype=pl.String)
    if column.dtype == pl.Date or column.dtype == pl.Datetime:
        numbers = np.full(len(column), np.nan)
        naive = column.dtype == pl.Date or getattr(column.dtype, "time_zone", None) is None
        epoch = column.dt.epoch("ms")
        dates = _floats(_in_utc(epoch, time_zone) if naive else epoch)
    elif time_format:
        column = column.cast(pl.String).str.strip_chars()
        numbers = np.full(len(column), np.nan)
        dates = _formatted(column, time_format, time_zone)
    elif column.dtype.is_numeric():
        numbers = column.cast(pl.Float64).to_numpy().copy()
        dates = np.full(len(column), np.nan)
    else:
        column = column.cast(pl.String).str.strip_chars()
        numbers = column.cast(pl.Float64, strict=False).to_numpy().copy()
        dates = _dates(column.set(pl.Series(np.isfinite(numbers)), None), time_zone)
    are_numbers = np.isfinite(numbers)
    are_dates = np.isfinite(dates)
    mostly_dates = are_dates.sum() > are_numbers.sum()
    decided = unit not in ("auto", "row")
    of_numbers = unit if decided else _unit_of(numbers[are_numbers])
    with np.errstate(over="ignore"):  # what overflows is after the year 2100
        ms = np.where(are_dates, dates, np.rint(numbers * FACTORS[of_numbers]))
    # Positions and dates cannot be ordered against each other: the rarer kind cannot be used.
    mixed = (are_numbers if mostly_dates else are_dates) & (of_numbers == "position")
    last = 1e8 if of_numbers == "position" and not mostly_dates else YEAR_2100
    if of_numbers == "position" and decided:
        last = 2.0**53
    problem = np.full(len(ms), None, dtype=object)
    problem[ms >= last] = (
        "time after the year 2100" if last == YEAR_2100 else "time in another unit than the others"
    )
    problem[mixed] = "time in another unit than the others"
    problem[ms < 0] = "negative time"
    problem[~are_numbers & ~are_dates] = "unreadable time"
    problem[(column.is_null() | (column.cast(pl.String, strict=False) == "")).to_numpy()] = (
        "missing time"
    )
    reasons = pl.Series("problem", problem.tolist(), dtype=pl.String)
    used = "date" if mostly_dates or time_format else of_numbers
    good = reasons.is_null().to_numpy()
    return Times(
        np.where(good, ms, 0).astype(np.int64),
        reasons,
        used,
        _rule(used, decided, time_format, time_zone),
    )


def row_times(count: int) -> Times:
    """For logs without times: the order of the rows is the order of the events."""
    none = pl.Series("problem", [None] * count, dtype=pl.String)
    rule = "the log has no times; the number of the row stands for the time"
    return Times(np.arange(count, dtype=np.int64), none, "row", rule)


def _unit_of(numbers: npt.NDArray[np.float64]) -> str:
    if not len(numbers):
        return "s"
    with np.errstate(over="ignore"):
        median = float(np.median(numbers))
    return next((unit for unit, limit in LIMITS if median < limit), "ns")


def parse_moment(text: str) -> int | None:
    """One ISO 8601 date or time as ms since 1970, UTC if it names no zone; None if it is none."""
    return _iso(text).ms


class _Moment(NamedTuple):
    """One parsed text."""

    ms: int | None
    naive: bool  # it names no zone: `ms` is its clock time


def _dates(texts: pl.Series, zone: str) -> npt.NDArray[np.float64]:
    """ISO 8601 texts → ms (n,), NaN where there is none. Each distinct text is parsed once."""
    distinct = texts.drop_nulls().unique()
    moments = [_iso(text) for text in distinct.to_list()]
    ms = pl.Series([moment.ms for moment in moments], dtype=pl.Int64)
    naive = pl.Series([moment.naive for moment in moments], dtype=pl.Boolean)
    if zone != UTC and naive.any():
        ms = pl.select(pl.when(naive).then(_in_utc(ms, zone)).otherwise(ms)).to_series()
    parsed = pl.DataFrame({"text": distinct, "ms": ms})
    joined = pl.DataFrame({"text": texts}).join(
        parsed, on="text", how="left", maintain_order="left"
    )
    return _floats(joined["ms"])


def _iso(text: str) -> _Moment:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return _Moment(None, False)
    naive = moment.tzinfo is None
    if naive:
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        return _Moment((moment - _EPOCH) // _MS, naive)
    except OverflowError:
        return _Moment(None, False)


def _formatted(texts: pl.Series, time_format: str, zone: str) -> npt.NDArray[np.float64]:
    """Texts of one format → ms (n,), NaN where a text has another one."""
    pattern = time_format.replace(".%f", "%.f")  # what the parser calls decimals of seconds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on formats
        try:
            read = texts.str.to_datetime(pattern, time_unit="ms", strict=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return np.full(len(texts), np.nan)
    epoch = read.dt.epoch("ms")
    return _floats(epoch if read.dtype == pl.Datetime("ms", UTC) else _in_utc(epoch, zone))


def _in_utc(clock: pl.Series, zone: str) -> pl.Series:
    """What the clocks of a zone show (ms) as ms since 1970; null where they never show it."""
    shown = clock.cast(pl.Datetime("ms"))
    real = shown.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return real.dt.epoch("ms")


def _floats(ms: pl.Series) -> npt.NDArray[np.float64]:
    """Integers (n,) with nulls as floats with NaN; exact below 2^53 ms."""
    return ms.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()


def _texts(values: list[Any]) -> list[str | None]:
    """JSON values as text; a number's text reads back as the same number."""
    return [
        value if value is None or isinstance(value, str) else repr(value).lower()
        for value in values
    ]


def _rule(unit: str, told: bool, time_format: str, zone: str) -> str:
    if unit == "date":
        form = time_format or "ISO 8601"
        where = "" if zone == UTC else f", in {zone} where they name no zone"
        return f"dates ({form}){where}, stored as milliseconds since 1970 UTC"
    how = "as told" if told else "by the size of the numbers"
    if unit == "position":
        return f"positions, not times ({how}): stored as they are"
    return f"{unit} since 1970 UTC ({how}), stored as milliseconds"
