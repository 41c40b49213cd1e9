"""Read a table of items: ids, cleaned texts, the sentence, attributes, and where pictures are.

First the ids of all items are read; once it is known which of them stay, their rows alone are read
again and cleaned.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from utgrec.catalog import CORE_COLUMNS
from utgrec.data.cleaning.texts import has_markup
from utgrec.data.columns import ITEM_ROLES, find_columns
from utgrec.data.images import is_url, pictures_by_id
from utgrec.data.rejects import SCHEMA, Rejects
from utgrec.data.sentence import clean_list, render_sentence
from utgrec.data.table import Table, join_tables
from utgrec.data.values import (
    Column,
    id_text,
    is_reading_matter,
    read_column,
    read_list,
    read_number,
    read_text,
    storable_text,
)
from utgrec.errors import BadTable

SENTENCE_ROLES = ("title", "brand", "features", "categories", "description")


class ItemIds(NamedTuple):
    """The N items of a catalogue: different ids, in the order of the source."""

    ids: pl.Series  # (N,)
    places: npt.NDArray[np.int64]  # (N,), numbers of their rows among all rows of the source
    read: int  # rows of the source


class Items(NamedTuple):
    """N items in source order."""

    ids: list[str]  # (N,)
    rows: npt.NDArray[np.int64]  # (N,), where they stand in their files
    files: list[str]  # (N,), names of these files
    titles: list[str | None]  # (N,)
    texts: list[str]  # (N,)
    attributes: dict[str, pa.Array]  # each (N,)
    pictures: list[str | None]  # (N,), paths relative to the source folder
    facts: dict[str, Any]

    def table(self, images: Sequence[str | None]) -> pa.Table:
        """The items table of a domain, with the stored pictures."""
        core = pa.table(
            {
                "item_id": pa.array(self.ids, pa.string()),
                "title": pa.array(self.titles, pa.string()),
                "text": pa.array(self.texts, pa.string()),
                "image": pa.array(images, pa.string()),
            }
        )
        for name, column in self.attributes.items():
            core = core.append_column(name, column)
        return core


def find_id_column(columns: Mapping[str, Sequence[str]], told: Mapping[str, str]) -> str:
    """Which column of the table of items holds the ids; `columns` is file → names.

    Raises:
        BadTable: there is none, or several could be it.
    """
    seen = list(dict.fromkeys(name for names in columns.values() for name in names))
    own = {role: name for role, name in told.items() if role in ITEM_ROLES}
    return find_columns(next(iter(columns)), seen, ITEM_ROLES, own, ["item_id"])["item_id"]


def find_ids(parts: Iterable[Table], id_column: str, rejects: Rejects) -> ItemIds:
    """The first row of every id; rows without an id, and repeated ids, go to `rejects`."""
    found: list[pl.DataFrame] = []
    read = 0
    for part in parts:
        ids: list[str | None] = []
        for value, row in zip(part.values(id_column), part.rows, strict=True):
            ids.append(id_text(value))
            if ids[-1] is None:
                detail = "" if value is None else f"{value!r} cannot be an id"
                rejects.add(part.files[0], int(row), "missing item id", detail=detail)
        file = pl.lit(part.files[0]).alias("file")
        frame = pl.DataFrame(
            {"item_id": ids, "row": part.rows}, schema={"item_id": pl.String, "row": pl.Int64}
        )
        places = pl.int_range(read, read + frame.height).alias("place")
        found.append(frame.with_columns(file, places).drop_nulls("item_id"))
        read += frame.height
    every = pl.concat(found)
    first = every.unique("item_id", keep="first", maintain_order=True)
    again = every.join(first.select("place"), on="place", how="anti")
    if again.height:
        rejects.add_frame(
            again.join(first.select("item_id", first="row"), on="item_id", how="left")
            .sort("place")
            .with_columns(
                pl.lit("duplicate item id").alias("reason"),
                pl.lit(None, dtype=pl.String).alias("user_id"),
                pl.format("first seen at row {}", "first").alias("detail"),
            )
            .select(list(SCHEMA))
        )
    return ItemIds(first["item_id"], first["place"].to_numpy(), read)


def take_rows(parts: Iterable[Table], places: npt.NDArray[np.int64]) -> Table:
    """Some rows, by their ascending numbers among all rows of the parts, as one table.

    Raises:
        BadTable: there are fewer rows than before.
    """
    taken, read = [], 0
    for part in parts:
        low, high = np.searchsorted(places, [read, read + len(part.rows)])
        taken.append(part.take(places[low:high] - read))
        read += len(part.rows)
    if len(places) and places[-1] >= read:
        raise BadTable("the files of items changed while they were read; run it again")
    return join_tables(taken)


def items_of(
    table: Table,
    *,
    columns: Mapping[str, str],
    text_columns: Sequence[str] | None = None,
    skip_columns: Sequence[str] = (),
    picture_root: Path,
) -> Items:
    """Clean a table of items that all have an id of their own.

    Pictures are looked for below `picture_root`.

    Raises:
        BadTable: no item id column, or a named column is not there.
    """
    seen = list(table.columns)
    file = table.files[0]
    told = {role: name for role, name in columns.items() if role in ITEM_ROLES}
    roles = find_columns(file, seen, ITEM_ROLES, told, required=["item_id"])
    unknown = [name for name in (*(text_columns or ()), *skip_columns) if name not in seen]
    if unknown:
        raise BadTable(
            f"{file} has no column {', '.join(unknown)} (options.text_columns, "
            f"options.skip_columns); its columns are {', '.join(seen)}"
        )
    values = table.values
    ids = ids_of(table, roles["item_id"])

    parts: dict[str, Sequence[str | Sequence[str] | None]] = {}
    for role in SENTENCE_ROLES:
        if role in roles and roles[role] not in skip_columns:
            as_list = role in ("categories", "features")
            read = values(roles[role])
            parts[role] = read_list(read) if as_list else read_text(read)
    if "features" in parts:
        # A feature is a whole sentence: it is not split at bars, only lists are lists.
        parts["features"] = _features(values(roles["features"]))

    used = set(roles.values())
    others = {
        name: read_column(values(name))
        for name in seen
        if name not in used and name not in skip_columns
    }
    whole = "text" in roles and ("text" in told or not parts)
    texts = read_text(values(roles["text"])) if "text" in roles else None
    further = _further(others, text_columns, set(parts))
    if texts is not None and whole:
        pieces: dict[str, Sequence[Any]] = {"text": texts}
        sentences = [text or "" for text in texts]
    else:
        pieces = {**parts, **({} if texts is None else {"text": texts}), **further}
        rows = zip(*pieces.values(), strict=True) if pieces else ([] for _ in ids)
        sentences = [render_sentence(list(row)) for row in rows]
    attributes, unread, negative = _attributes(roles, parts, others, values)
    pictures, addresses, found_in = _pictures(picture_root, roles, ids, values)
    if any(addresses):
        attributes["image_url"] = pa.array(addresses, pa.string())
    return Items(
        ids=ids,
        rows=table.rows,
        files=files_of(table),
        titles=[title or None for title in parts.get("title", [None] * len(ids))],  # type: ignore[misc]
        texts=sentences,
        attributes=attributes,
        pictures=pictures,
        facts={
            "columns": roles,
            "sentence": [name for name, values_of in pieces.items() if any(values_of)],
            "attributes": list(attributes),
            "empty_columns": [name for name, column in others.items() if column.kind == "empty"],
            "pictures": found_in,
            "unreadable_prices": unread,
            "negative_prices": negative,
            "texts_with_markup": _with_markup([values(roles.get(n, n)) for n in pieces]),
        },
    )


def ids_of(table: Table, id_column: str) -> list[str]:
    """The ids of rows that have one."""
    return [text for value in table.values(id_column) if (text := id_text(value)) is not None]


def files_of(table: Table) -> list[str]:
    """The file of every row."""
    return [table.file(place) for place in range(len(table.rows))]


def _features(values: list[Any]) -> list[list[str] | None]:
    column = read_column(values)
    if column.kind == "list":
        return column.values
    return [clean_list([text]) if text else None for text in read_text(values)]


def _further(
    others: Mapping[str, Column], text_columns: Sequence[str] | None, taken: set[str]
) -> dict[str, list[Any]]:
    if text_columns is None:
        return {
            name: column.values
            for name, column in others.items()
            if is_reading_matter(name, column)
        }
    return {
        name: others[name].values if others[name].kind == "list" else read_text(others[name].values)
        for name in text_columns
        if name in others
    }


def _with_markup(raw: Sequence[Sequence[Any]]) -> int:
    """Items whose words held HTML, which is cleaned away; `raw` are the columns of words, (N,)."""
    found = pl.Series([], dtype=pl.Boolean)
    for values in raw:
        lists = (value if isinstance(value, (list, tuple)) else [value] for value in values)
        texts = [storable_text(" ".join(v for v in each if isinstance(v, str))) for each in lists]
        marked = has_markup(pl.Series(texts, dtype=pl.String))
        found = found | marked if len(found) else marked
    return int(found.sum())


def _attributes(
    roles: Mapping[str, str],
    parts: Mapping[str, Sequence[Any]],
    others: Mapping[str, Column],
    values: Any,
) -> tuple[dict[str, pa.Array], int, int]:
    """Columns for filters and display, without empty ones; unreadable and negative prices."""
    attributes: dict[str, pa.Array] = {}
    unread = negative = 0
    for role, name in (("brand", "brand"), ("categories", "category")):
        if any(parts.get(role, ())):
            kind = pa.string() if role == "brand" else pa.list_(pa.string())
            attributes[name] = pa.array(parts[role], kind)
    if "price" in roles:
        raw = values(roles["price"])
        numbers = [read_number(value) for value in raw]
        prices = [None if number is None or number < 0 else number for number in numbers]
        negative = sum(1 for number in numbers if number is not None and number < 0)
        given = read_column(raw).values
        missing = sum(1 for v, p in zip(given, prices, strict=True) if v is not None and p is None)
        unread = missing - negative
        if any(price is not None for price in prices):
            attributes["price"] = pa.array(prices, pa.float64())
    for name, column in others.items():
        if column.kind != "empty":
            clash = name in CORE_COLUMNS or name in attributes or name == "image_url"
            attributes[f"{name}_source" if clash else name] = column.arrow()
    return attributes, unread, negative


def _pictures(
    folder: Path, roles: Mapping[str, str], ids: list[str], values: Any
) -> tuple[list[str | None], list[str | None], str]:
    """Local paths, web addresses, and where they were found."""
    if "image" in roles:
        named = [_first_name(value) for value in values(roles["image"])]
        if any(named):
            return (
                [None if name is None or is_url(name) else name for name in named],
                [name if name is not None and is_url(name) else None for name in named],
                f"column {roles['image']}",
            )
    found = pictures_by_id(folder / "images", ids)
    return found, [None] * len(ids), "folder images" if any(found) else "none"


def _first_name(value: Any) -> str | None:
    """A path or address; of a list the first, of an object the usual size."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = read_column([value]).values[0]
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = next(
            (value[key] for key in ("large", "hi_res", "url", "thumb") if value.get(key)), None
        )
    return (value.strip() or None) if isinstance(value, str) else None
