"""How tables become a domain: every setting of `utgrec prepare`, and the file that holds them.

A mapping file is TOML with the names of the settings; what is said on the command line wins.
"""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, get_args

from utgrec.config import from_dict, require, require_value_types, to_dict
from utgrec.data.columns import ROLES
from utgrec.data.events import EventOptions
from utgrec.data.images import PILLOW_LIMIT
from utgrec.data.log import LogOptions
from utgrec.data.rejects import BadRows
from utgrec.data.splitting import SplitOptions
from utgrec.data.times import UTC, TimeUnit, check_format
from utgrec.data.values import ARROW_TYPES
from utgrec.errors import BadConfig, InputError

MAPPING = "utgrec.toml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How plain tables become a domain."""

    name: str = ""
    """Name of the domain; empty = the name of the source folder."""
    items_file: str | None = None
    """Table of items, relative to the source folder, or a pattern of several files; None = found by
    its usual names."""
    interactions_file: str | None = None
    """Table of interactions, or a pattern of several files; None = found by its usual names."""
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    """Role → column name, where the usual names do not fit; "" = no column has this role.
    Items: item_id, title, brand, categories, features, description, price, image, text.
    Interactions: user, item, timestamp; event and weight, which are never guessed."""
    text_columns: tuple[str, ...] | None = None
    """Further item columns that belong into the sentence; None = all that hold words to read."""
    skip_columns: tuple[str, ...] = ()
    """Item columns that are left out altogether."""
    time_unit: TimeUnit = "auto"
    """Unit of the times: s, ms, us, ns or position; row = the order of the rows is the time;
    auto = by the size of the numbers (utgrec.data.times)."""
    time_format: str = ""
    """strptime format of the times, such as "%d.%m.%Y %H:%M"; empty = numbers or ISO 8601."""
    time_zone: str = UTC
    """Time zone of times that name none, such as Europe/Berlin."""
    events: EventOptions = dataclasses.field(default_factory=EventOptions)
    """Which kinds of events count, and with what weight."""
    k_core: int = 5
    """Users and items with fewer interactions are removed, again and again; 1 = none."""
    split: SplitOptions = dataclasses.field(default_factory=SplitOptions)
    """How the log is divided into training, validation and test."""
    exact: bool = False
    """Take the table of items as it stands, nothing cleaned or guessed: for what `utgrec export`
    wrote."""
    exact_types: dict[str, str] = dataclasses.field(default_factory=dict)
    """With exact: item attribute → bool, int, float, list or text; others are left out."""
    keep_untaken_items: bool | None = None
    """Whether items without interactions stay in the catalogue; None = they stay if k_core is 1."""
    max_image_pixels: int = 40_000_000
    """A picture with more pixels (width × height) is refused."""
    bad_rows: BadRows = "error"
    """What to do with rows that cannot be used: error = stop; reject = set them aside."""
    source: str = ""
    """Where the data come from, in words."""
    licence: str = ""
    """Terms of use of the data, in words."""
    overwrite: bool = False
    """Replace a domain that was made with other settings. Not part of the settings recorded."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(ROLES))
        require(not unknown, f"columns: no role {', '.join(unknown)}; roles: {', '.join(ROLES)}")
        require(self.k_core >= 1, f"k_core is {self.k_core}; it must be 1 (no filter) or more")
        require(
            1 <= self.max_image_pixels <= PILLOW_LIMIT,
            f"max_image_pixels is {self.max_image_pixels}; it must be 1 … {PILLOW_LIMIT}",
        )
        require(self.exact or not self.exact_types, "exact_types needs exact = true")
        unknown = sorted(set(self.exact_types.values()) - set(ARROW_TYPES))
        require(
            not unknown,
            f"exact_types: no type {', '.join(unknown)}; types: {', '.join(ARROW_TYPES)}",
        )
        check_format(self.time_format, self.time_zone)
        require(
            not self.time_format or self.time_unit == "auto",
            f"time_format says how times are written, so time_unit {self.time_unit!r} is too much",
        )
        for setting, values in (("bad_rows", BadRows), ("time_unit", TimeUnit)):
            value, allowed = getattr(self, setting), get_args(values)
            require(value in allowed, f"{setting} is {value!r}; it is one of {', '.join(allowed)}")

    @property
    def keeps_untaken_items(self) -> bool:
        """Whether items without interactions stay in the catalogue."""
        return self.k_core == 1 if self.keep_untaken_items is None else self.keep_untaken_items

    @property
    def log(self) -> LogOptions:
        """What of this concerns the interactions."""
        return LogOptions(
            columns=self.columns,
            time_unit=self.time_unit,
            time_format=self.time_format,
            time_zone=self.time_zone,
            events=self.events,
        )


def read_mapping(path: Path) -> dict[str, Any]:
    """The settings that a mapping file holds, as `to_dict` of options gives them.

    Raises:
        InputError: there is no such file.
        BadConfig: not TOML, an unknown setting, or a value outside its range; names the file.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; give a mapping in TOML, see docs/your-own-data.md")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        require("overwrite" not in values, "overwrite is said on the command line only")
        require_value_types(TableOptions, values)
        from_dict(TableOptions, values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not valid TOML: {error}") from error
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from error
    return values


def find_mapping(source: Path, told: Path | None) -> Path | None:
    """The mapping file that is told, else `utgrec.toml` in the source folder if it is there."""
    return told or (source / MAPPING if (source / MAPPING).is_file() else None)


def merge_options(mapping: dict[str, Any], told: dict[str, Any]) -> TableOptions:
    """Options from a mapping and from what was told beside it, which wins, key by key in tables.

    Raises:
        BadConfig: a value outside its range, or two that exclude each other.
    """
    merged = dict(mapping)
    for key, value in told.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return from_dict(TableOptions, merged)


def settings_of(options: TableOptions) -> dict[str, Any]:
    """What the manifest records; `overwrite` is no setting of the result."""
    config = to_dict(options)
    del config["overwrite"]
    return config
