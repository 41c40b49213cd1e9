"""Options that the commands which make domains share; None means that nothing was told."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from utgrec.errors import BadConfig

# The same choices as in utgrec.data, which would load polars for `utgrec --help`.
BadRows = Literal["error", "reject"]
TimeUnit = Literal["auto", "position", "row", "s", "ms", "us", "ns"]
SplitKind = Literal["leave-one-out", "global-time"]

DomainOut = Annotated[Path, typer.Option("--out", help="Domain folder to write.", metavar="DOMAIN")]
Name = Annotated[str | None, typer.Option(help="Name of the domain.", show_default="SRC's")]
Mapping = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with settings; what is said here wins.",
        metavar="FILE",
        show_default="SRC/utgrec.toml if it is there",
    ),
]
ItemsFile = Annotated[
    str | None,
    typer.Option(
        "--items", help="Table of items in SRC, or a pattern.", show_default="usual names"
    ),
]
InteractionsFile = Annotated[
    str | None,
    typer.Option(
        "--interactions",
        help="Table of interactions in SRC, or a pattern.",
        show_default="usual names",
    ),
]
ColumnOf = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Column of a role where its usual names do not fit; ROLE= for none. Roles: "
        "item_id, title, brand, categories, features, description, price, image, text; "
        "user, item, timestamp, event, weight. May be repeated.",
        metavar="ROLE=NAME",
    ),
]
TextColumn = Annotated[
    list[str] | None,
    typer.Option(
        "--text-column",
        help="Further item column that belongs into the sentence. May be repeated.",
        metavar="NAME",
        show_default="all that hold words",
    ),
]
NoTextColumns = Annotated[
    bool, typer.Option("--no-text-columns", help="No further column into the sentence.")
]
SkipColumn = Annotated[
    list[str] | None,
    typer.Option(
        "--skip-column", help="Item column to leave out. May be repeated.", metavar="NAME"
    ),
]
TimeUnitOf = Annotated[
    TimeUnit | None,
    typer.Option(
        "--time-unit", help="Unit of the times; row: their order in the table.", show_default="auto"
    ),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        help='strptime format of the times, such as "%d.%m.%Y %H:%M".', show_default="ISO 8601"
    ),
]
TimeZone = Annotated[
    str | None, typer.Option(help="Zone of times that name none.", show_default="UTC")
]
EventTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        help="Kind of event that counts, and its weight (1 if not said). May be repeated.",
        metavar="KIND[=WEIGHT]",
        show_default="all",
    ),
]
MinWeight = Annotated[
    float | None, typer.Option(min=0, help="Smallest weight of an event.", show_default="0")
]
KCore = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Fewest interactions of a user and of an item; 1: no filter.",
        show_default="5",
    ),
]
KeepUntaken = Annotated[
    bool | None,
    typer.Option(
        "--keep-untaken/--drop-untaken",
        help="Whether items without interactions stay.",
        show_default="kept if --k-core is 1",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-image-pixels",
        min=1,
        help="Most pixels of a picture (width × height).",
        show_default="40000000",
    ),
]
BadRowsOf = Annotated[
    BadRows | None,
    typer.Option(
        "--bad-rows",
        help="Rows that cannot be used: stop, or set them aside.",
        show_default="error",
    ),
]
SourceNote = Annotated[
    str | None, typer.Option("--source", help="Where the data come from, in words.")
]
Licence = Annotated[str | None, typer.Option(help="Terms of use of the data, in words.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a domain made with other settings.")
]
Split = Annotated[
    SplitKind | None,
    typer.Option(
        help="How the log is divided into training, validation and test.",
        show_default="leave-one-out",
    ),
]
SplitKindNeeded = Annotated[SplitKind, typer.Option("--split", help="The new split.")]
ValidShare = Annotated[
    float | None,
    typer.Option(help="global-time: share of the log that is validation.", show_default="0.1"),
]
TestShare = Annotated[
    float | None,
    typer.Option(help="global-time: share of the log that is test.", show_default="0.1"),
]
ValidFrom = Annotated[
    str | None,
    typer.Option(help="global-time: first date of validation instead of shares.", metavar="DATE"),
]
TestFrom = Annotated[
    str | None, typer.Option(help="global-time: first date of test.", metavar="DATE")
]


def told(**settings: Any) -> dict[str, Any]:
    """The settings that somebody gave: without those that are None or empty."""
    return {name: value for name, value in settings.items() if value is not None and value != {}}


class SplitPlaces(NamedTuple):
    """Where a log is cut, as far as somebody says it."""

    valid_share: ValidShare = None
    test_share: TestShare = None
    valid_from: ValidFrom = None
    test_from: TestFrom = None

    def settings(self, kind: str | None) -> dict[str, Any]:
        """Those of a split of this kind."""
        return told(kind=kind, **self._asdict())


class LogChoice(NamedTuple):
    """What is read, and which of it."""

    items: ItemsFile = None
    interactions: InteractionsFile = None
    column: ColumnOf = None
    time_unit: TimeUnitOf = None
    time_format: TimeFormat = None
    time_zone: TimeZone = None
    event: EventTypes = None
    min_weight: MinWeight = None
    split: Split = None

    def settings(self) -> dict[str, Any]:
        """As a mapping file has them."""
        return told(
            items_file=self.items,
            interactions_file=self.interactions,
            columns=parse_columns(self.column or []),
            time_unit=self.time_unit,
            time_format=self.time_format,
            time_zone=self.time_zone,
            events=told(types=parse_events(self.event or []), min_weight=self.min_weight),
        )


class DomainChoice(NamedTuple):
    """What becomes of it; all sources have these."""

    name: Name = None
    mapping: Mapping = None
    k_core: KCore = None
    keep_untaken: KeepUntaken = None
    bad_rows: BadRowsOf = None
    source_note: SourceNote = None
    licence: Licence = None
    overwrite: Overwrite = False

    def settings(self) -> dict[str, Any]:
        """As a mapping file has them."""
        return told(
            name=self.name,
            k_core=self.k_core,
            keep_untaken_items=self.keep_untaken,
            bad_rows=self.bad_rows,
            source=self.source_note,
            licence=self.licence,
            overwrite=self.overwrite,
        )


def parse_columns(given: list[str]) -> dict[str, str]:
    """Role → column from ROLE=NAME texts.

    Raises:
        BadConfig: not of this form, or a role twice.
    """
    columns: dict[str, str] = {}
    for text in given:
        role, equals, name = text.partition("=")
        if not equals or not role:
            raise BadConfig(
                f"--column {text!r} must be ROLE=NAME, such as item_id=asin; ROLE= for no column"
            )
        if role in columns:
            raise BadConfig(f"--column gives role {role!r} twice; a role has one column")
        columns[role] = name
    return columns


def parse_events(given: list[str]) -> dict[str, float]:
    """Kind of event → weight from KIND or KIND=WEIGHT texts.

    Raises:
        BadConfig: a weight that is no number, or a kind twice.
    """
    events: dict[str, float] = {}
    for text in given:
        kind, _, weight = text.rpartition("=") if "=" in text else (text, "", "1")
        try:
            number = float(weight)
        except ValueError as error:
            raise BadConfig(
                f"--event {text!r} must be KIND or KIND=WEIGHT, such as cart=0.5"
            ) from error
        if not kind or kind in events:
            raise BadConfig(f"--event {text!r} has no kind, or one that was given before")
        events[kind] = number
    return events
