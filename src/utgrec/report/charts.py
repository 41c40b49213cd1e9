"""The geometry of small charts: numbers in, coordinates out. Templates draw them as inline SVG.

Coordinates are those of a drawing of WIDTH × HEIGHT units, y downwards.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 24, 28
TICKS = 5


class Tick(NamedTuple):
    """A labelled place on an axis."""

    place: float
    label: str


class Line(NamedTuple):
    """One curve."""

    name: str
    points: str  # "x,y x,y …"
    last: tuple[float, float]  # where the curve ends
    first_value: float
    last_value: float


class Mark(NamedTuple):
    """A vertical line with a word on it."""

    x: float
    label: str
    anchor: str  # start or end: on which side of the line the word has room


class LineChart(NamedTuple):
    """Curves over training steps, or over something else that counts."""

    title: str
    note: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Mark]
    over: str  # what the x axis counts


class Bars(NamedTuple):
    """Counts as bars side by side; heights and the even height are in % of the tallest."""

    heights: list[float]
    counts: list[int]
    even: float  # height that all bars would have if they were equal
    tallest: int


def line_chart(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    note: str = "",
    marks: Sequence[tuple[float, str]] = (),
) -> LineChart:
    """Curves of (step, value) points by name, on common axes that start at step 0."""
    values = [value for points in series.values() for _, value in points]
    steps = [step for points in series.values() for step, _ in points]
    right = max([*steps, *(step for step, _ in marks), 1])
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    y_values = nice_ticks(low, high)
    low, high = min(low, y_values[0]), max(high, y_values[-1])

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / right, 1)

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    lines = [
        Line(
            name=name,
            points=" ".join(f"{x(step)},{y(value)}" for step, value in points),
            last=(x(points[-1][0]), y(points[-1][1])),
            first_value=points[0][1],
            last_value=points[-1][1],
        )
        for name, points in series.items()
    ]
    return LineChart(
        title=title,
        note=note,
        lines=lines,
        x_ticks=[
            Tick(x(step), f"{step:,.0f}") for step in nice_ticks(0, right) if step == round(step)
        ],
        y_ticks=[Tick(y(value), _short(value)) for value in y_values],
        marks=[
            Mark(x(step), label, "start" if step < 0.6 * right else "end") for step, label in marks
        ],
        over="training step",
    )


def log_chart(
    title: str, points: Sequence[tuple[float, float]], *, note: str = "", over: str
) -> LineChart:
    """One curve of positive (x, y) points on axes that grow by powers of ten."""
    right = max(1.0, *(math.log10(x) for x, _ in points))
    high = max(1.0, *(math.log10(y) for _, y in points))

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * math.log10(value) / right, 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log10(value) / high, 1)

    drawn = [(x(place), y(value)) for place, value in points]
    return LineChart(
        title=title,
        note=note,
        lines=[
            Line(
                name=title,
                points=" ".join(f"{across},{down}" for across, down in drawn),
                last=drawn[-1],
                first_value=points[0][1],
                last_value=points[-1][1],
            )
        ],
        x_ticks=[Tick(x(10.0**n), f"{10**n:,}") for n in range(math.floor(right) + 1)],
        y_ticks=[Tick(y(10.0**n), _short(float(10**n))) for n in range(math.floor(high) + 1)],
        marks=[],
        over=over,
    )


def columns(counts: Sequence[int]) -> Bars:
    """Counts in their own order."""
    tallest = max([*counts, 1])
    return Bars(
        heights=[round(100 * count / tallest, 2) for count in counts],
        counts=[int(count) for count in counts],
        even=0.0,
        tallest=tallest,
    )


def bars(counts: Sequence[int]) -> Bars:
    """Counts from the largest to the smallest."""
    ordered = sorted((int(count) for count in counts), reverse=True)
    tallest = max(ordered[0] if ordered else 0, 1)
    mean = sum(ordered) / max(len(ordered), 1)
    return Bars(
        heights=[round(100 * count / tallest, 2) for count in ordered],
        counts=ordered,
        even=round(100 * mean / tallest, 2),
        tallest=tallest,
    )


def nice_ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) inside [low, high], at least one."""
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [round(number * step, 12) for number in range(first, last + 1)]
    return ticks or [low]


def _short(value: float) -> str:
    """A tick's label: four digits at most, and a short exponent where one is needed."""
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return (f"{mantissa}e{int(exponent)}" if exponent else mantissa).replace("-", "−")
