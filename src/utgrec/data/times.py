"""Read times in whatever unit a log has them, and give milliseconds since 1970 (UTC).

The unit of numbers is decided once for the whole column, by the size of its median:

| median | unit | what is stored |
|---|---|---|
| below 10^8 | position (0, 1, 2 … or 20140615) | the number itself |
| below 10^11 | seconds | × 1,000 |
| below 10^14 | milliseconds | the number itself |
| below 10^17 | microseconds | / 1,000 |
| above | nanoseconds | / 1,000,000 |

Times in ISO 8601 ("2014-06-15", "2014-06-15T10:00:00+02:00") are read as such; without a zone
they are UTC. Real times must lie between 1970 and 2100.
"""

import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

TimeUnit = Literal["auto", "position", "row", "s", "ms", "us", "ns"]

FACTORS = {"position": 1.0, "s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
LIMITS = (("position", 1e8), ("s", 1e11), ("ms", 1e14), ("us", 1e17))
YEAR_2100 = 4_102_444_800_000  # ms
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
        return {"unit": self.unit, "real": real, "rule": self.rule}


def read_times(values: pl.Series | list[Any], unit: TimeUnit = "auto") -> Times:
    """Read a column of times; see the table above."""
    column = values if isinstance(values, pl.Series) else pl.Series(_texts(values), dtype=pl.String)
    if column.dtype == pl.Date or column.dtype == pl.Datetime:
        numbers = np.full(len(column), np.nan)
        dates = column.dt.epoch("ms").cast(pl.Float64).to_numpy().copy()
    elif column.dtype.is_numeric():
        numbers = column.cast(pl.Float64).to_numpy().copy()
        dates = np.full(len(column), np.nan)
    else:
        column = column.cast(pl.String).str.strip_chars()
        numbers = column.cast(pl.Float64, strict=False).to_numpy().copy()
        dates = _dates(column.set(pl.Series(np.isfinite(numbers)), None))
    are_numbers = np.isfinite(numbers)
    are_dates = np.isfinite(dates)
    mostly_dates = are_dates.sum() > are_numbers.sum()
    decided = unit not in ("auto", "row")
    of_numbers = unit if decided else _unit_of(numbers[are_numbers])
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
    used = "date" if mostly_dates else of_numbers
    good = reasons.is_null().to_numpy()
    return Times(np.where(good, ms, 0).astype(np.int64), reasons, used, _rule(used, decided))


def row_times(count: int) -> Times:
    """For logs without times: the order of the rows is the order of the events."""
    none = pl.Series("problem", [None] * count, dtype=pl.String)
    rule = "the log has no times; the number of the row stands for the time"
    return Times(np.arange(count, dtype=np.int64), none, "row", rule)


def _unit_of(numbers: npt.NDArray[np.float64]) -> str:
    if not len(numbers):
        return "s"
    median = float(np.median(numbers))
    return next((unit for unit, limit in LIMITS if median < limit), "ns")


def _dates(texts: pl.Series) -> npt.NDArray[np.float64]:
    """ISO 8601 texts → ms (n,), NaN where there is none. Each distinct text is parsed once."""
    distinct = texts.drop_nulls().unique()
    parsed = pl.DataFrame(
        {"text": distinct, "ms": [_date(text) for text in distinct.to_list()]},
        schema={"text": pl.String, "ms": pl.Float64},
    )
    joined = pl.DataFrame({"text": texts}).join(
        parsed, on="text", how="left", maintain_order="left"
    )
    return joined["ms"].fill_null(float("nan")).to_numpy().copy()


def _date(text: str) -> float | None:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        return float((moment - _EPOCH) // _MS)
    except OverflowError:
        return None


def _texts(values: list[Any]) -> list[str | None]:
    """JSON values as text; a number's text reads back as the same number."""
    return [
        value if value is None or isinstance(value, str) else repr(value).lower()
        for value in values
    ]


def _rule(unit: str, told: bool) -> str:
    if unit == "date":
        return "dates (ISO 8601), stored as milliseconds since 1970 UTC"
    how = "as told" if told else "by the size of the numbers"
    if unit == "position":
        return f"positions, not times ({how}): stored as they are"
    return f"{unit} since 1970 UTC ({how}), stored as milliseconds"
