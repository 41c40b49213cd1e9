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
import math
import re
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from utgrec.config import require
from utgrec.data.values import storable_text

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


class Moments(NamedTuple):
    """The times of n interactions as they are written, before the unit of the log is known."""

    numbers: npt.NDArray[np.float64]  # (n,), NaN where there is none
    dates: npt.NDArray[np.float64]  # (n,), ms since 1970, NaN where there is none
    missing: npt.NDArray[np.bool_]  # (n,)


class Times(NamedTuple):
    """The times of n interactions."""

    ms: npt.NDArray[np.int64]  # (n,), 0 where there is a problem
    problem: pl.Series  # (n,), why a time cannot be used, or null


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


def read_moments(
    values: pl.Series | list[Any], *, time_format: str = "", time_zone: str = UTC
) -> Moments:
    """Read (a part of) a column of times. With a format, every time must have it."""
    column = values if isinstance(values, pl.Series) else pl.Series(_texts(values), dtype=pl.String)
    nothing = np.full(len(column), np.nan)
    if column.dtype == pl.Date or column.dtype == pl.Datetime:
        naive = column.dtype == pl.Date or getattr(column.dtype, "time_zone", None) is None
        epoch = column.dt.epoch("ms")
        dates = _floats(_in_utc(epoch, time_zone) if naive else epoch)
        return Moments(nothing, dates, column.is_null().to_numpy())
    if time_format:
        column = column.cast(pl.String).str.strip_chars()
        numbers, dates = nothing, _formatted(column, time_format, time_zone)
    elif column.dtype.is_numeric():
        numbers, dates = column.cast(pl.Float64).to_numpy().copy(), nothing
    else:
        column = column.cast(pl.String).str.strip_chars()
        numbers = column.cast(pl.Float64, strict=False).to_numpy().copy()
        dates = _dates(column.set(pl.Series(np.isfinite(numbers)), None), time_zone)
    empty = column.is_null() | (column.cast(pl.String, strict=False) == "")
    return Moments(numbers, dates, empty.to_numpy())


class Clock:
    """Sees all times of a log, part by part, and then tells what each of them is in milliseconds.

    The unit is that of the median of all numbers. To know it, it is enough to count the numbers
    below each limit, and to keep the two numbers next to it.
    """

    def __init__(
        self, unit: TimeUnit = "auto", *, time_format: str = "", time_zone: str = UTC
    ) -> None:
        self._told = unit not in ("auto", "row")
        self._unit, self._format, self._zone = unit, time_format, time_zone
        self._numbers = self._dates = 0
        self._below = dict.fromkeys(FACTORS, 0)  # unit → numbers below its limit
        self._largest = dict.fromkeys(FACTORS, -math.inf)  # of them
        self._next = dict.fromkeys(FACTORS, math.inf)  # the smallest of the others
        self._in_1970 = 0

    def see(self, moments: Moments) -> None:
        """One more part of the log."""
        numbers = moments.numbers[np.isfinite(moments.numbers)]
        self._numbers += len(numbers)
        self._dates += int(np.isfinite(moments.dates).sum())
        for unit, limit in LIMITS:
            below = numbers < limit
            self._below[unit] += int(below.sum())
            self._largest[unit] = max(self._largest[unit], numbers[below].max(initial=-math.inf))
            self._next[unit] = min(self._next[unit], numbers[~below].min(initial=math.inf))

    def read(self, moments: Moments) -> Times:
        """A part of the log, once all of it was seen."""
        are_numbers, are_dates = np.isfinite(moments.numbers), np.isfinite(moments.dates)
        unit, by_date = self._number_unit, self._dates > self._numbers
        with np.errstate(over="ignore"):  # what overflows is after the year 2100
            ms = np.where(are_dates, moments.dates, np.rint(moments.numbers * FACTORS[unit]))
        # Positions and dates cannot be ordered against each other: the rarer kind cannot be used.
        mixed = (are_numbers if by_date else are_dates) & (unit == "position")
        last = 1e8 if unit == "position" and not by_date else YEAR_2100
        if unit == "position" and self._told:
            last = 2.0**53
        problem = np.full(len(ms), None, dtype=object)
        other_unit = "time in another unit than the others"
        problem[ms >= last] = "time after the year 2100" if last == YEAR_2100 else other_unit
        problem[mixed] = other_unit
        problem[ms < 0] = "negative time"
        problem[~are_numbers & ~are_dates] = "unreadable time"
        problem[moments.missing] = "missing time"
        reasons = pl.Series("problem", problem.tolist(), dtype=pl.String)
        good = reasons.is_null().to_numpy()
        # A clock that was never set, or a 0 where there was no time, falls into 1970.
        self._in_1970 += int(((ms < YEAR_1971) & good).sum())
        return Times(np.where(good, ms, 0).astype(np.int64), reasons)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest of the domain records, once all of the log was read."""
        if self._unit == "row":
            return {
                **{"unit": "row", "real": False, "in_1970": 0},
                "rule": "the log has no times; the number of the row stands for the time",
            }
        by_date = self._dates > self._numbers or bool(self._format)
        unit = "date" if by_date else self._number_unit
        real = unit != "position"
        return {
            "unit": unit,
            "real": real,
            "rule": _rule(unit, self._told, self._format, self._zone),
            "in_1970": self._in_1970 if real else 0,
        }

    @property
    def _number_unit(self) -> str:
        if self._told:
            return self._unit
        if not self._numbers:
            return "s"
        return next((unit for unit, limit in LIMITS if self._median_is_below(unit, limit)), "ns")

    def _median_is_below(self, unit: str, limit: float) -> bool:
        if 2 * self._below[unit] != self._numbers:
            return 2 * self._below[unit] > self._numbers
        with np.errstate(over="ignore"):
            return (self._largest[unit] + self._next[unit]) / 2 < limit


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
        value
        if value is None
        else storable_text(value if isinstance(value, str) else repr(value).lower())
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
