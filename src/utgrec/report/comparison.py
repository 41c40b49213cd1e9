"""Write the page of a comparison: one HTML file without scripts that loads nothing from elsewhere.

Everything shown is in `comparison.json`; names come from outside and are escaped by the templates.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import utgrec
from utgrec import storage
from utgrec.errors import MissingStage
from utgrec.evaluation.intervals import Interval
from utgrec.report import charts
from utgrec.report.making import machine
from utgrec.report.write import find_template

JSON = dict[str, Any]
SHORTEST_S = 0.1  # left end of the time axis: below, nobody waits


class Bar(NamedTuple):
    """One system's interval of the tested metric; places in % of the widest."""

    system: str
    role: str  # reference or baseline
    value: float
    low: float
    middle: float
    high: float
    seeds: list[float]  # where the single seeds are; empty with one seed


class Dot(NamedTuple):
    """One system in the plot of cost and quality."""

    number: int  # as in the tables
    system: str
    role: str
    x: float
    y: float
    seconds: float
    value: float


class Plot(NamedTuple):
    """Training time against the tested metric."""

    dots: list[Dot]
    x_ticks: list[charts.Tick]
    y_ticks: list[charts.Tick]


class Cell(NamedTuple):
    """A figure in a table."""

    interval: Interval
    sd: float | None  # over the seeds
    best: bool  # of its column or row


class GroupLine(NamedTuple):
    """One group of users."""

    grouping: str  # empty when it is that of the line above
    label: str
    users: int
    cells: list[Cell]  # none where the group is too small
    chance: float
    by_popularity: float


class DomainPage(NamedTuple):
    """Everything about one domain."""

    about: JSON
    metrics: list[str]
    depth: str  # deepest cut of the coverage
    rows: list[tuple[JSON, list[Cell], JSON]]  # system, its cells, its cost
    bars: list[Bar]
    plot: Plot
    groups: list[GroupLine]
    group_scale: float


def write_comparison(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a finished comparison, by default as FOLDER/comparison.html.

    Returns:
        The file.

    Raises:
        MissingStage: there is no finished comparison.
        CorruptFile: its figures cannot be read.
    """
    source = Path(folder) / "comparison.json"
    if not source.is_file():
        raise MissingStage(
            f"{folder} holds no finished comparison ({source.name} is missing); make one with "
            "`utgrec compare PLAN --out FOLDER`"
        )
    found = storage.read_json(source)
    page = find_template("comparison.html.j2").render(
        found=found,
        version=utgrec.__version__,
        domains=[domain_page(found, domain) for domain in found["domains"]],
        machine=machine(),
        box={
            "width": charts.WIDTH,
            "height": charts.HEIGHT,
            "left": charts.LEFT,
            "right": charts.RIGHT,
            "top": charts.TOP,
            "bottom": charts.BOTTOM,
        },
    )
    target = source.with_suffix(".html") if out is None else Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    storage.write_text(target, page)
    return target


def domain_page(found: JSON, domain: JSON) -> DomainPage:
    """One domain of `comparison.json`, laid out."""
    systems = domain["systems"]
    metrics = list(systems[0]["metrics"])
    top = {name: max(system["metrics"][name]["value"] for system in systems) for name in metrics}
    measured = found["measured"][domain["name"]]
    rows = [
        (
            system,
            [
                Cell(
                    _interval(system["metrics"][name]),
                    system["metrics"][name]["sd"],
                    system["metrics"][name]["value"] == top[name] > 0,
                )
                for name in metrics
            ],
            measured[system["system"]],
        )
        for system in systems
    ]
    groups = _groups(domain)
    values = [cell.interval.value for line in groups for cell in line.cells]
    return DomainPage(
        about=domain,
        metrics=metrics,
        depth=max(systems[0]["coverage"], key=int),
        rows=rows,
        bars=_bars(found, systems),
        plot=_plot(found, systems, measured),
        groups=groups,
        group_scale=max(values, default=0.0) or 1.0,
    )


def _bars(found: JSON, systems: Sequence[JSON]) -> list[Bar]:
    metric = found["metric"]
    ends = [system["metrics"][metric]["high"] for system in systems]
    ends += [value for system in systems for value in system["seed_values"]]
    scale = 100 / (max(ends) or 1.0)
    return [
        Bar(
            system["system"],
            _role(found, system),
            interval.value,
            scale * interval.low,
            scale * interval.value,
            scale * interval.high,
            [scale * value for value in system["seed_values"]] if len(system["seeds"]) > 1 else [],
        )
        for system in systems
        for interval in [_interval(system["metrics"][metric])]
    ]


def _plot(found: JSON, systems: Sequence[JSON], measured: JSON) -> Plot:
    """Time on a logarithmic axis of whole powers of ten; the metric on one that starts at 0."""
    seconds = [max(measured[system["system"]]["train_s"], SHORTEST_S) for system in systems]
    values: list[float] = [system["metrics"][found["metric"]]["value"] for system in systems]
    first = math.floor(math.log10(min(seconds)) + 1e-9)
    last = max(math.ceil(math.log10(max(seconds)) - 1e-9), first + 1)
    y_values = charts.nice_ticks(0.0, max(values) or 1.0)
    top = max(max(values), y_values[-1])

    def x(value: float) -> float:
        share = (math.log10(value) - first) / (last - first)
        return round(charts.LEFT + (charts.WIDTH - charts.LEFT - charts.RIGHT) * share, 1)

    def y(value: float) -> float:
        height = charts.HEIGHT - charts.TOP - charts.BOTTOM
        return round(charts.HEIGHT - charts.BOTTOM - height * value / top, 1)

    return Plot(
        dots=[
            Dot(place, system["system"], _role(found, system), x(time), y(value), time, value)
            for place, (system, time, value) in enumerate(
                zip(systems, seconds, values, strict=True), start=1
            )
        ],
        x_ticks=[
            charts.Tick(x(math.pow(10, power)), _time_text(math.pow(10, power)))
            for power in range(first, last + 1)
        ],
        y_ticks=[charts.Tick(y(value), f"{value:g}") for value in y_values],
    )


def _groups(domain: JSON) -> list[GroupLine]:
    lines, title = [], None
    for row in domain["groups"]:
        cells = []
        if row["systems"] is not None:
            top = max(entry["value"] for entry in row["systems"].values())
            cells = [
                Cell(_interval(entry), None, entry["value"] == top > 0)
                for entry in row["systems"].values()
            ]
        lines.append(
            GroupLine(
                grouping="" if row["grouping"] == title else row["grouping"],
                label=row["group"],
                users=row["users"],
                cells=cells,
                chance=row["chance"],
                by_popularity=row["chance_by_popularity"],
            )
        )
        title = row["grouping"]
    return lines


def _interval(values: JSON) -> Interval:
    return Interval(values["value"], values["low"], values["high"])


def _role(found: JSON, system: JSON) -> str:
    return "reference" if system["system"] == found["reference"] else "baseline"


def _time_text(seconds: float) -> str:
    """A power of ten of seconds as people say it."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 10 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"
