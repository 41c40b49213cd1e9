"""Read new items, given as JSON objects, the way the domain they join was prepared.

Fields have the names of the shop's own tables, or the usual ones. Words become the same sentence
that preparation would have made of them, and every attribute gets the type of its column. What the
catalogue has no place for is an error, so a misspelt field is not lost in silence.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from utgrec import storage
from utgrec.catalog import CORE_COLUMNS, DOMAIN_MANIFEST
from utgrec.data.columns import ITEM_ROLES, find_columns
from utgrec.data.sentence import clean_list, clean_text, render_sentence
from utgrec.data.values import id_text, read_column, read_list, read_price, read_text
from utgrec.errors import FieldError, InputError, StorageError

ROLES = {role: names for role, names in ITEM_ROLES.items() if role != "image"}
SENTENCE_ROLES = ("title", "brand", "features", "categories", "description")
LONGEST_VALUE = 100  # characters of a wrong value that are shown
ATTRIBUTE_ROLES = {"brand": "brand", "categories": "category", "price": "price"}


class NewItem(NamedTuple):
    """One item as its owner describes it."""

    item_id: str
    values: dict[str, Any]  # column of the items table → value, for the columns that were given
    has_words: bool  # whether the sentence was given; otherwise "text" is not among the values


class ItemReader:
    """Reads items into the columns of one catalogue."""

    def __init__(self, schema: pa.Schema, domain: Path | None = None) -> None:
        """`domain` is the domain folder; without it only the usual names of fields are known."""
        self.schema = schema
        self._columns: dict[str, str] = {}
        self._further: list[str] = []
        self._whole_text = False  # whether the sentence is the shop's own, as it is
        self._ignored: set[str] = set()
        try:
            facts = storage.read_manifest(domain, "domain", DOMAIN_MANIFEST) if domain else None
        except StorageError:
            facts = None
        if facts is not None:
            made = facts.facts.get("items", {})
            self._columns = made.get("columns", {})
            self._ignored = {*made.get("empty_columns", ()), *facts.config.get("skip_columns", ())}
            roles = {*SENTENCE_ROLES, "text"}
            sentence = made.get("sentence", ())
            self._further = [name for name in sentence if name not in roles]
            self._whole_text = list(sentence) == ["text"]

    @property
    def fields(self) -> list[str]:
        """The fields that an item may have, besides its picture."""
        attributes = [name for name in self.schema.names if name not in CORE_COLUMNS]
        usual = [self._columns.get(role, role) for role in (*SENTENCE_ROLES, "price", "text")]
        return list(dict.fromkeys(["item_id", *usual, *attributes, *self._further]))

    def read(self, items: Sequence[Mapping[str, Any]]) -> list[NewItem]:
        """Check and convert items; nothing is returned unless all of them are right.

        Raises:
            InputError: an item without an id, two with the same id, an unknown field, or a value
                that does not fit its column.
        """
        found: list[NewItem] = []
        places: dict[str, int] = {}
        for place, item in enumerate(items):
            made = self._read(item, place)
            if made.item_id in places:
                raise InputError(
                    f"items {places[made.item_id]} and {place + 1} have the same id "
                    f"{made.item_id!r}; every item has an id of its own"
                ).about([_field(place, "item_id", made.item_id, "names one item")])
            places[made.item_id] = place + 1
            found.append(made)
        return found

    def _read(self, item: Mapping[str, Any], place: int) -> NewItem:
        where = f"item {place + 1}"
        seen = [name for name in item if name not in self._ignored]
        told = {role: name for role, name in self._columns.items() if role in ROLES}
        told = {role: name for role, name in told.items() if name in seen}
        roles = find_columns(where, seen, ROLES, told, required=["item_id"])
        item_id = id_text(item[roles["item_id"]])
        if item_id is None:
            given = shown(item[roles["item_id"]])
            raise InputError(
                f"{where}: {given} cannot be an id; give a text or whole number"
            ).about([_field(place, "item_id", item[roles["item_id"]], "is a text or whole number")])
        where = f"item {shown(item_id)}"
        columns: dict[str, str] = {}  # name of a field → the column that keeps it
        for name in (name for name in seen if name not in roles.values()):
            column = f"{name}_source" if f"{name}_source" in self.schema.names else name
            if column in self.schema.names and column not in CORE_COLUMNS:
                columns[name] = column
            elif name not in self._further:
                raise InputError(
                    f"{where}: field {shown(name)} is not one of this catalogue's; they are "
                    f"{', '.join(self.fields)}"
                ).about([_field(place, name, item[name], "is a field of this catalogue")])
        for role, column in ATTRIBUTE_ROLES.items():
            if role in roles and column in self.schema.names:
                columns[roles[role]] = column
        values = {}
        for name, column in columns.items():
            try:
                values[column] = self._convert(item[name], column)
            except InputError as error:
                rule = f"can be kept as {self.schema.field(column).type}"
                raise InputError(f"{where}: {error}").about(
                    [_field(place, name, item[name], rule)]
                ) from None
        words = [role for role in (*SENTENCE_ROLES, "text") if role in roles]
        has_words = bool(words) or any(name in item for name in self._further)
        if has_words:
            values["text"] = self._sentence(item, roles)
            values["title"] = None
        if "title" in roles:
            values["title"] = read_text([item[roles["title"]]])[0]
        return NewItem(item_id, values, has_words)

    def _sentence(self, item: Mapping[str, Any], roles: Mapping[str, str]) -> str:
        given = {role: item[roles[role]] for role in (*SENTENCE_ROLES, "text") if role in roles}
        whole = read_text([given.get("text")])[0]
        if whole and (self._whole_text or len(given) == 1):
            return whole
        pieces: list[str | list[str] | None] = []
        for role in SENTENCE_ROLES:
            if role == "categories":
                pieces.append(read_list([given.get(role)])[0])
            elif role == "features":
                pieces.append(_features(given.get(role)))
            else:
                pieces.append(read_text([given.get(role)])[0])
        pieces.append(whole)
        pieces += [_words(item.get(name)) for name in self._further]
        return render_sentence(pieces)

    def _convert(self, value: Any, column: str) -> Any:
        kind = self.schema.field(column).type
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            converted = _as_kind(value, column, kind)
        except (OverflowError, ValueError):  # a number that no float can hold
            converted = None
        if converted is None:
            raise InputError(
                f"{column} is {shown(value)}, the catalogue keeps it as {kind}; give such a "
                "value, or leave the field out"
            )
        return converted


def _field(place: int, name: str, value: Any, rule: str) -> FieldError:
    return FieldError.of(f"items.{place}.{name}", value, rule)


def shown(value: Any) -> str:
    """A value as an error shows it, cut short."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def _as_kind(value: Any, column: str, kind: pa.DataType) -> Any:
    """A value as its column keeps it; None if it cannot be."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return read_list([value])[0] if column == "category" else _entries(value)
    if pa.types.is_floating(kind) and column == "price":
        return read_price(value)
    read = read_column([value])
    if pa.types.is_boolean(kind):
        return read.values[0] if read.kind == "bool" else None
    if pa.types.is_integer(kind):
        return read.values[0] if read.kind == "int" else None
    if pa.types.is_floating(kind):
        return read.values[0] if read.kind in ("int", "float") else None
    return read_text([value])[0]


def _entries(value: Any) -> list[str] | None:
    column = read_column([value])
    return column.values[0] if column.kind == "list" else clean_list([str(value)])


def _features(value: Any) -> list[str] | None:
    column = read_column([value])
    if column.kind == "list":
        return list(column.values[0])
    text = read_text([value])[0]
    return clean_list([text]) if text else None


def _words(value: Any) -> str | list[str] | None:
    column = read_column([value])
    if column.kind == "list":
        return list(column.values[0])
    text = read_text([value])[0]
    return clean_text(text) if text else None
