"""Read a table of items that UTGRec itself exported: nothing is cleaned, guessed or left out.

Its columns are item_id, title, text, image and attributes of named types. In text files a list is a
JSON array, an empty field is no value; `text` alone is never empty but "".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from utgrec.catalog import CORE_COLUMNS
from utgrec.data.items import Items, files_of, ids_of
from utgrec.data.table import Table
from utgrec.data.values import ARROW_TYPES
from utgrec.errors import BadTable

TRUTH = {"true": True, "false": False}


def exact_items(table: Table, types: Mapping[str, str]) -> Items:
    """The items of a table, each attribute of the type that is told.

    Raises:
        BadTable: a column is missing, or a value is not of its type.
    """
    wanted = [*CORE_COLUMNS, *types]
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise BadTable(
            f"{table.files[0]} has no column {', '.join(missing)}, which an export has; export "
            " it again, or prepare it without `exact`"
        )

    def values(name: str, kind: str) -> list[Any]:
        column = [None if value == "" else value for value in table.values(name)]
        return _typed(table, name, kind, column)

    attributes = {
        name: pa.array(values(name, kind), ARROW_TYPES[kind]) for name, kind in types.items()
    }
    return Items(
        ids=ids_of(table, "item_id"),
        rows=table.rows,
        files=files_of(table),
        titles=values("title", "text"),
        texts=[text or "" for text in values("text", "text")],
        attributes=attributes,
        pictures=values("image", "text"),
        facts={
            "columns": {name: name for name in CORE_COLUMNS},
            "sentence": ["text"],
            "attributes": list(attributes),
            "empty_columns": [],
            "pictures": "column image",
            "unreadable_prices": 0,
            "negative_prices": 0,
        },
    )


def _typed(table: Table, name: str, kind: str, values: Sequence[Any]) -> list[Any]:
    """Values of one type; texts of CSV are read as it."""
    read = []
    for place, value in enumerate(values):
        try:
            read.append(None if value is None else _value(value, kind))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadTable(
                f"{table.file(place)}, row {table.rows[place]}: {value!r} in {name} is no {kind} "
                "as exact_types says; export it again, or prepare it without exact_types"
            ) from error
    return read


def _value(value: Any, kind: str) -> Any:
    if kind == "text":
        if not isinstance(value, str):
            raise TypeError(kind)
        return value
    if kind == "list":
        listed = json.loads(value) if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            raise TypeError(kind)
        return listed
    if kind == "bool":
        return value if isinstance(value, bool) else TRUTH[value]
    if isinstance(value, bool):
        raise TypeError(kind)
    number = int(value) if kind == "int" else float(value)
    if kind == "int" and not -(2**63) <= number < 2**63:
        raise ValueError(kind)
    return number
