"""The folder that the paper's authors prepare for one domain, as a source.

`all_item_seqs.json` holds user → item ids in time order; `id_mapping.json` item2id and id2item
(number 0 is padding), which gives the order of the items; `metadata.sentence.json` item id →
sentence; `Images/ID.jpg` pictures. There are no times: the place in a history stands for one.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from utgrec import storage
from utgrec.data.images import pictures_by_id
from utgrec.data.log import LogOptions
from utgrec.data.options import TableOptions
from utgrec.data.pipeline import make_domain
from utgrec.data.prepare import clean_items, name_of
from utgrec.data.table import Table
from utgrec.data.tables_source import Reading, TablesSource, make_plan
from utgrec.errors import BadTable
from utgrec.progress import Progress

SEQUENCES, MAPPING, SENTENCES = "all_item_seqs.json", "id_mapping.json", "metadata.sentence.json"
IMAGES = "Images"
PADDING = "[PAD]"
SHOWN = 80  # characters of a wrong value that a message shows
HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # an escape of one half; whole pairs have them too


def prepare_authors(
    source: Path, out: Path, options: TableOptions, progress: Progress | None = None
) -> storage.Manifest:
    """Make the domain folder `out` from an authors' folder; otherwise like `prepare_table`.

    Raises:
        BadTable: a file is missing, is no JSON, or does not hold what it should.
    """
    source = Path(source)
    options = name_of(options, source)
    return make_domain(authors_source(source, options), Path(out), make_plan(options), progress)


def authors_source(source: Path, options: TableOptions) -> TablesSource:
    """The files of an authors' folder; each is one JSON document, which is held while it is read.

    Raises:
        BadTable: there is no folder, or no histories in it.
    """
    if not (source / SEQUENCES).is_file():
        raise BadTable(
            f"{source} has no {SEQUENCES}; give the folder that the authors' scripts prepared"
        )
    own = dataclasses.replace(
        options,
        columns={"text": "text"},
        text_columns=None,
        skip_columns=(),
        exact_types={},
    )
    reading = Reading(
        items=lambda rejects, columns, hears: iter([_items_table(source)]),
        log=lambda rejects, hears: iter([_log_table(source)]),
        id_column="item_id",
        roles={"user": "user_id", "item": "item_id", "timestamp": "timestamp"},
        clean=lambda table: clean_items(table, own, "item_id", source),
    )
    files = [source / name for name in (SEQUENCES, MAPPING, SENTENCES)]
    present = [path for path in files if path.is_file()]
    return TablesSource(source, present, reading, LogOptions(time_unit="position"))


def read_histories(source: Path) -> dict[str, list[str]]:
    """User → item ids in time order.

    Raises:
        BadTable: not an object of lists of ids.
    """
    histories = _read(source / SEQUENCES)
    for user, items in histories.items():
        wrong = _not_ids(items)
        if wrong is not None:
            raise BadTable(
                f"{SEQUENCES}: the history of user {user!r} has {wrong}, it must be a list of "
                "item ids (texts or whole numbers); correct it or leave the user out"
            )
    return {user: [str(item) for item in items] for user, items in histories.items()}


def _items_table(source: Path) -> Table:
    """Ids in the order of their numbers, sentences, and pictures."""
    sentences = _read(source / SENTENCES) if (source / SENTENCES).is_file() else {}
    if (source / MAPPING).is_file():
        ids = _numbered(_read(source / MAPPING).get("id2item"))
    else:
        taken = (item for items in read_histories(source).values() for item in items)
        ids = sorted({*sentences, *taken})
    texts = [_sentence(item, sentences.get(item)) for item in ids]
    pictures = pictures_by_id(source / IMAGES, ids)
    columns: dict[str, pl.Series | list[Any]] = {
        "item_id": list(ids),
        "title": [None] * len(ids),
        "text": list(texts),
        "image": list(pictures),
    }
    return Table(np.arange(1, len(ids) + 1, dtype=np.int64), columns, (MAPPING,))


def _log_table(source: Path) -> Table:
    """Histories as a log; row n of the file is its n-th item."""
    histories = read_histories(source)
    lengths = [len(items) for items in histories.values()]
    users = pl.Series(list(histories), dtype=pl.String)
    rows = np.arange(1, sum(lengths) + 1, dtype=np.int64)
    places = [place for length in lengths for place in range(length)]
    items = [item for history in histories.values() for item in history]
    return Table(
        rows,
        {
            "user_id": users.gather(np.repeat(np.arange(len(users)), lengths)),
            "item_id": pl.Series(items, dtype=pl.String),
            "timestamp": pl.Series(places, dtype=pl.Int64),
        },
        (SEQUENCES,),
    )


def _numbered(found: Any) -> list[str]:
    """The items of id2item without padding: a list, or an object with numbers as keys."""
    if isinstance(found, dict):
        try:
            found = [found[key] for key in sorted(found, key=int)]
        except ValueError as error:
            raise BadTable(
                f"{MAPPING}: a key of id2item is no number ({error}); its keys are 0, 1, 2 …"
            ) from error
    wrong = _not_ids(found)
    if wrong is not None:
        raise BadTable(
            f"{MAPPING}: id2item has {wrong}, it must be a list of item ids (texts or whole "
            f"numbers) whose number 0 is the padding {PADDING!r}; correct it, or take the file "
            "away: the items are then those of the sentences and histories"
        )
    if not found or found[0] != PADDING:
        first = repr(found[0]) if found else "missing"
        raise BadTable(
            f"{MAPPING}: number 0 of id2item is {first}, it must be the padding {PADDING!r}; "
            "put it in front"
        )
    return [str(item) for item in found[1:]]


def _not_ids(found: Any) -> str | None:
    """The first value that keeps this from being a list of ids, in words; None if it is one."""
    if not isinstance(found, list):
        return _quoted(found)
    wrong = (v for v in found if isinstance(v, bool) or not isinstance(v, str | int))
    return next((f"{_quoted(value)} in it" for value in wrong), None)


def _quoted(value: Any) -> str:
    """A value as the file would write it, cut to what a person reads."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _sentence(item: str, value: Any) -> str | None:
    """A sentence, also in pieces."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    if value is None or isinstance(value, str):
        return value
    raise BadTable(
        f"{SENTENCES}: the sentence of item {item!r} is {_quoted(value)}, it must be a text, a "
        "list of texts, or null; correct it"
    )


def _read(path: Path) -> dict[str, Any]:
    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise BadTable(f"{path.name} names {twice!r} twice; keep one of them")
        return found

    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text, object_pairs_hook=unique)
        if HALF_PAIR.search(text):
            _refuse_half_pairs(path, values)
    except (ValueError, RecursionError) as error:
        raise BadTable(
            f"{path.name} is not valid JSON in UTF-8 ({error}); copy it again, or write it anew"
        ) from error
    if not isinstance(values, dict):
        raise BadTable(
            f"{path.name} is a JSON {type(values).__name__}, it must be an object; "
            "take the file that the authors' scripts wrote"
        )
    return values


def _refuse_half_pairs(path: Path, value: Any) -> None:
    """Raise if a text holds half of a pair of surrogates, which UTF-8 cannot store."""
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = itertools.chain(value, value.values())
    elif isinstance(value, list):
        parts = value
    elif isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise BadTable(
            f"{path.name}: {_quoted(value)} holds half of a UTF-16 pair, which is no character; "
            "correct the text"
        )
    for part in parts:
        _refuse_half_pairs(path, part)
