"""Give a whole column one type by its values, whatever the file format wrote.

A CSV file has only text, JSON lines mix types, Parquet is typed: the same values must come out of
all three. So text that is a number in its usual form ("1995", not "007") counts as that number,
and text that is a JSON or Python list counts as that list.
"""

import ast
import datetime
import json
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from utgrec.data.columns import words_of
from utgrec.data.sentence import clean_list, clean_text

Kind = Literal["empty", "bool", "int", "float", "list", "text"]

ARROW_TYPES = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "list": pa.list_(pa.string()),
    "text": pa.string(),
}

_INT = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE)
_PRICE = re.compile(r"-?(?:\.[0-9]+|[0-9][0-9.,]*)")
_POWER = re.compile(r"-?[0-9]+(\.[0-9]*)?e[+-]?[0-9]+", re.IGNORECASE)
_GROUPED = re.compile(r"-?[0-9]{1,3}([.,][0-9]{3})+")
_LETTER = re.compile(r"[^\W\d_]")

# A column whose name ends in one of these words holds codes or links, not words to read.
CODE_WORDS = frozenset(
    {
        *("id", "ids", "asin", "sku", "ean", "upc", "isbn", "gtin"),
        *("url", "urls", "uri", "link", "links", "path", "file", "hash"),
        *("image", "images", "img", "photo", "picture", "poster", "thumbnail", "video", "videos"),
        *("date", "time", "timestamp", "bought", "together", "viewed"),
    }
)


class Column(NamedTuple):
    """One attribute of N items."""

    kind: Kind
    values: list[Any]  # (N,), of one type, or None

    def arrow(self) -> pa.Array:
        """The column as it is stored."""
        return pa.array(self.values, type=ARROW_TYPES[self.kind])


def read_column(values: Sequence[Any]) -> Column:
    """Decide the type of a column and convert its values; texts are cleaned."""
    plain = [_plain(value) for value in values]
    present = [value for value in plain if value is not None]
    if not present:
        return Column("empty", [None] * len(plain))
    if any(isinstance(value, list) for value in present):
        # Here and there a single value stands for a list of one.
        return _listed([None if v is None else _as_list(v) or [_word(v)] for v in plain])
    texts = [value if isinstance(value, str) else None for value in present]
    if all(text is not None and text.startswith("[") for text in texts):
        opened = [None if value is None else _parse_list(value) for value in plain]
        if all(entry is not None for v, entry in zip(plain, opened, strict=True) if v is not None):
            return _listed(opened)
    kind = _kind_of(present)
    return Column(kind, [None if value is None else _convert(value, kind) for value in plain])


def read_text(values: Sequence[Any]) -> list[str | None]:
    """Cleaned texts, whatever the type of the values; lists are joined by ", "."""
    column = read_column(values)
    if column.kind == "list":
        return [", ".join(value) if value else None for value in column.values]
    if column.kind == "text":
        return column.values
    # A title that is a number keeps the form in which it was written.
    return [
        None if value is None else clean_text(_word(value)) or None for value in map(_plain, values)
    ]


def read_list(values: Sequence[Any]) -> list[list[str] | None]:
    """Cleaned lists; a text such as "Action|Drama" or "Home > Kitchen" is split at its bars."""
    listed = []
    for value in map(_plain, values):
        entries = _as_list(value)
        if entries is None and value is not None:
            entries = re.split(r"\s*\|\s*|\s+>\s+", _word(value))
        listed.append(clean_list(entries or []) or None)
    return listed


def read_price(value: Any) -> float | None:
    """Like `read_number`, but a negative price is none."""
    number = read_number(value)
    return None if number is None or number < 0 else number


def read_number(value: Any) -> float | None:
    """The first number of "$1,299.00", "1.299,00 €" or "from 14.99"; None if there is none.

    Of a comma and a point the later one marks the decimals; one that only parts groups of three
    digits marks thousands.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:  # JSON has integers of any length
            return None
    text = str(value).strip()
    if _POWER.fullmatch(text):  # programs write 1e+16, people do not
        return float(text) if math.isfinite(float(text)) else None
    match = _PRICE.search(text)
    if match is None:
        return None
    number = match.group().rstrip(".,")
    last = max(number.rfind(","), number.rfind("."))
    both = "," in number and "." in number
    thousands = _GROUPED.fullmatch(number) and (number.count(".") != 1 or both)
    if last < 0 or (thousands and not both):
        price = float(re.sub("[.,]", "", number))
    else:
        price = float(re.sub("[.,]", "", number[:last]) + "." + number[last + 1 :])
    return price if math.isfinite(price) else None


def is_reading_matter(name: str, column: Column) -> bool:
    """Whether a further column (directors, actors, material …) belongs into the sentence.

    Lists and texts do, unless the column's name or its values look like codes, links or JSON.
    """
    words = words_of(name)
    if column.kind not in ("list", "text") or (words and words[-1] in CODE_WORDS):
        return False
    texts = [value if isinstance(value, str) else value[0] for value in column.values if value]
    words_found = sum(
        1 for text in texts if _LETTER.search(text) and "://" not in text and text[:1] not in "{["
    )
    return words_found > len(texts) / 2


def id_text(value: Any) -> str | None:
    """An id as text, exactly as written; None if it is missing or no id can be made of it.

    A whole number loses its ".0": pandas writes it when a column of integers has gaps.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    return text if text.strip() and _encodes(text) else None


def storable_text(text: str) -> str:
    """Text without the halves of surrogate pairs, which UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """None for every way to say nothing; dates as text, objects as JSON."""
    if isinstance(value, str):
        return value if value.strip() else None
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return list(value) or None
    if isinstance(value, dict):
        return _json(value) if value else None
    if isinstance(value, (datetime.date, datetime.datetime, datetime.time)):
        return value.isoformat()
    return str(value)


def _as_list(value: Any) -> list[str] | None:
    """A list flattened to texts; a text is one entry unless it spells a list."""
    if isinstance(value, list):
        return _flatten(value)
    if isinstance(value, str) and value.lstrip().startswith("["):
        return _parse_list(value)
    return None


def _parse_list(text: str) -> list[str] | None:
    """The list that a text spells, as JSON or as Python; None if it spells none."""
    text = text.strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "\d" in a quoted text is no concern of ours
                value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return _flatten(value) if isinstance(value, list) else None


def _flatten(values: list[Any]) -> list[str]:
    texts: list[str] = []
    for value in values:
        plain = _plain(value)
        if isinstance(plain, list):
            texts.extend(_flatten(plain))
        elif plain is not None:
            texts.append(_word(plain))
    return texts


def _listed(values: list[list[str] | None]) -> Column:
    cleaned = [clean_list(value or []) or None for value in values]
    return Column("list" if any(cleaned) else "empty", cleaned)


def _kind_of(values: list[Any]) -> Kind:
    if all(
        isinstance(v, bool) or (isinstance(v, str) and v.lower() in ("true", "false"))
        for v in values
    ):
        return "bool"
    if any(isinstance(value, bool) for value in values):
        return "text"
    words = [_word(value) for value in values]
    if all(_INT.fullmatch(word) and abs(int(word)) < 2**63 for word in words):
        return "int"
    if all(_INT.fullmatch(word) or _FLOAT.fullmatch(word) for word in words):
        return "float"
    return "text"


def _convert(value: Any, kind: Kind) -> Any:
    if kind == "bool":
        return value if isinstance(value, bool) else value.lower() == "true"
    if kind == "int":
        return int(value)
    if kind == "float":
        return float(value)
    return clean_text(_word(value)) or None


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_flatten(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _json(value: dict[Any, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
