"""Times in every unit; the rule is decided once for a whole column."""

import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop_files import read_times

from utgrec.data.times import Clock, read_moments

MOMENT = 1_400_000_000_123  # ms, 2014-05-13T16:53:20.123Z


@pytest.mark.parametrize(
    ("values", "unit", "ms"),
    [
        ([0, 1, 2], "position", [0, 1, 2]),
        ([20140513, 20140514], "position", [20140513, 20140514]),
        ([1_400_000_000], "s", [1_400_000_000_000]),
        ([1_400_000_000.123], "s", [MOMENT]),
        ([MOMENT], "ms", [MOMENT]),
        ([MOMENT * 1000], "us", [MOMENT]),
        ([MOMENT * 1_000_000], "ns", [MOMENT]),
        (["1400000000", " 1400000001 "], "s", [1_400_000_000_000, 1_400_000_001_000]),
        (["1.400000000e9"], "s", [1_400_000_000_000]),
        (["2014-05-13T16:53:20.123Z"], "date", [MOMENT]),
        (["2014-05-13T18:53:20.123+02:00"], "date", [MOMENT]),
        (["2014-05-13 16:53:20.123"], "date", [MOMENT]),
        (["2014-05-13"], "date", [1_399_939_200_000]),
    ],
)
def test_units(values: list[object], unit: str, ms: list[int]) -> None:
    for column in (values, pl.Series(values)):
        times = read_times(column)
        assert times.problem.null_count() == len(values)
        assert (times.unit, times.ms.tolist()) == (unit, ms)


def test_typed_dates() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    aware = datetime.datetime(2014, 5, 13, 18, 53, 20, 123000, zone)
    assert read_times(pl.Series([aware])).ms.tolist() == [MOMENT]
    assert read_times(pl.Series([aware.astimezone(datetime.UTC).replace(tzinfo=None)])).ms[0] == (
        MOMENT
    )
    assert read_times(pl.Series([datetime.date(2014, 5, 13)])).ms.tolist() == [1_399_939_200_000]


def test_every_problem_is_named() -> None:
    values = [1_400_000_000, None, "", "soon", float("nan"), float("inf"), -5, True, 5e12, [1]]
    reasons = read_times(values, "s").problem.to_list()
    assert reasons == [
        None,
        "missing time",
        "missing time",
        "unreadable time",
        "unreadable time",
        "unreadable time",
        "negative time",
        "unreadable time",
        "time after the year 2100",
        "unreadable time",
    ]


def test_positions_and_times_do_not_mix() -> None:
    mixed = read_times([0, 1, 2, 1_400_000_000, "2014-05-13"]).problem.to_list()
    assert mixed == [None, None, None, *["time in another unit than the others"] * 2]
    dates = read_times(["2014-05-13", "2014-05-14", 3]).problem.to_list()
    assert dates == [None, None, "time in another unit than the others"]


def test_the_told_unit_wins() -> None:
    assert read_times([5, 6], "s").ms.tolist() == [5000, 6000]
    assert read_times([MOMENT], "position").ms.tolist() == [MOMENT]


def test_order_is_kept_in_every_unit() -> None:
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.integers(10**9, 2 * 10**9, 200))
    for factor in (1, 10**3, 10**6, 10**9):
        assert (np.diff(read_times(pl.Series(seconds * factor)).ms) >= 0).all()
        assert read_times(pl.Series(seconds * factor)).ms.tolist() == (seconds * 1000).tolist()


NUMBERS = st.one_of(
    st.integers(-5, 10**19), st.sampled_from([10**8, 10**8 - 1, 10**11, 10**14, 10**17, 3 * 10**8])
)


@given(st.lists(st.one_of(NUMBERS, st.just("2014-05-13")), max_size=12), st.integers(1, 5))
def test_parts_are_read_like_the_whole(values: list[int | str], size: int) -> None:
    whole = read_times(values)
    numbers = [float(value) for value in values if isinstance(value, int)]
    median = float(np.median(numbers)) if numbers else 10**9
    limits = (("position", 1e8), ("s", 1e11), ("ms", 1e14), ("us", 1e17), ("ns", np.inf))
    unit = next(unit for unit, limit in limits if median < limit)
    assert whole.unit == ("date" if 2 * len(numbers) < len(values) else unit)
    clock = Clock()
    parts = [read_moments(values[at : at + size]) for at in range(0, len(values), size)]
    for part in parts:
        clock.see(part)
    read = [clock.read(part) for part in parts]
    assert [ms for part in read for ms in part.ms.tolist()] == whole.ms.tolist()
    assert [why for part in read for why in part.problem] == whole.problem.to_list()
    assert clock.facts == whole.facts
