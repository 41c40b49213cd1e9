"""RecBole's atomic files as a source: NAME.inter and NAME.item, tab-separated with typed headers.

A header names each field with its type: `item_id:token`, `price:float`, `categories:token_seq`. The
entries of a sequence stand between spaces; a no-break space within one stands for a space, which
is how `utgrec export` writes "Health & Beauty". A sequence whose name says that it is prose
(title, description …) is text. NAME.user is not read: a domain knows of its users what they took.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from utgrec import storage
from utgrec.data.columns import words_of
from utgrec.data.exact import exact_items
from utgrec.data.items import Items, items_of
from utgrec.data.log import log_of
from utgrec.data.options import TableOptions
from utgrec.data.prepare import Source, hash_inputs, name_of, prepare_source
from utgrec.data.rejects import Rejects
from utgrec.data.table import Table, join_tables, read_separated
from utgrec.data.table_files import match_files
from utgrec.errors import BadTable
from utgrec.progress import Progress

TYPES = ("token", "token_seq", "float", "float_seq")
PROSE = frozenset({"title", "name", "description", "text", "sentence", "summary", "plot", "review"})
SPACE, NO_BREAK = " ", "\u00a0"


class Atomic(NamedTuple):
    """One table of atomic files."""

    table: Table  # columns without their types
    types: dict[str, str]  # column → token, token_seq, float or float_seq


def prepare_recbole(
    source: Path, out: Path, options: TableOptions, progress: Progress | None = None
) -> storage.Manifest:
    """Make the domain folder `out` from RecBole's files; otherwise like `prepare_table`.

    Raises:
        BadTable: no or several data sets in the folder, or a header without types.
    """
    source = Path(source)
    options = name_of(options, source)
    return prepare_source(recbole_source(source, options), Path(out), options, progress)


def recbole_source(source: Path, options: TableOptions) -> Source:
    """The atomic files of a folder.

    Raises:
        BadTable: as `prepare_recbole`.
    """
    if not source.is_dir():
        raise BadTable(f"{source} is no folder; give the folder that holds the atomic files")
    logs = _log_files(source, options.interactions_file)
    items = _item_files(source, options.items_file, logs)

    def read(rejects: Rejects) -> Items:
        if not items:
            return bare_items(read_atomic(logs, rejects).table, options, source)
        lists = None
        if options.exact:
            lists = {name for name, kind in options.exact_types.items() if kind == "list"}
        found = read_atomic(items, rejects, lists)
        if options.exact:
            return exact_items(found.table, rejects, options.exact_types)
        return items_of(
            found.table,
            rejects,
            columns={**_title(list(found.table.columns)), **options.columns},
            text_columns=options.text_columns,
            skip_columns=options.skip_columns,
            picture_root=source,
        )

    return Source(
        root=source,
        inputs=hash_inputs(source, [*items, *logs]),
        read_items=read,
        read_log=lambda ids, rejects: log_of(
            read_atomic(logs, rejects).table, ids, rejects, options.log
        ),
    )


def read_atomic(
    paths: Sequence[Path], rejects: Rejects, lists: Collection[str] | None = None
) -> Atomic:
    """Read atomic files of one kind, one after the other.

    Args:
        lists: columns that are lists; None = sequences whose name does not say that they are prose.

    Raises:
        BadTable: a field without a type, or a file that cannot be read.
    """
    tables: list[Table] = []
    types: dict[str, str] = {}
    for path in paths:
        read = read_separated(path, "tsv", rejects)
        columns: dict[str, pl.Series | list[Any]] = {}
        for header, column in read.columns.items():
            name, colon, kind = header.rpartition(":")
            if not colon or not name or kind not in TYPES:
                raise BadTable(
                    f"{path.name}: the field {header!r} has no type; a header of atomic files says "
                    f"NAME:TYPE, and a type is one of {', '.join(TYPES)}"
                )
            if types.setdefault(name, kind) != kind:
                raise BadTable(
                    f"{path.name}: the field {name!r} is {kind}, elsewhere it is {types[name]}"
                )
            listed = kind.endswith("_seq") and (
                words_of(name)[-1:] not in [[word] for word in PROSE]
                if lists is None
                else name in lists
            )
            columns[name] = _split(column) if listed else column
        tables.append(read._replace(columns=columns))
    return Atomic(join_tables(tables), types)


def bare_items(table: Table, options: TableOptions, root: Path) -> Items:
    """The items of a log that comes without a table of items: ids, and nothing else.

    Raises:
        BadTable: the log has no column of items.
    """
    from utgrec.data.log import find_roles

    column = find_roles(table.files[0], list(table.columns), options.log)["item"]
    values = table.values(column)
    ids = sorted({value for value in values if isinstance(value, str) and value.strip()})
    rows = np.arange(1, len(ids) + 1, dtype=np.int64)
    alone = Table(rows, {"item_id": pl.Series(ids, dtype=pl.String)}, table.files[:1])
    return items_of(alone, Rejects("error"), columns={}, picture_root=root)


def _split(column: pl.Series | list[Any]) -> list[list[str] | None]:
    values = column.to_list() if isinstance(column, pl.Series) else column
    return [
        [entry.replace(NO_BREAK, SPACE) for entry in value.split(SPACE) if entry] if value else None
        for value in values
    ]


def _log_files(folder: Path, told: str | None) -> list[Path]:
    if told:
        return match_files(folder, told, "interactions")
    found = sorted(folder.glob("*.inter"))
    own = [path for path in found if path.stem == folder.resolve().name]
    if len(found) == 1 or len(own) == 1:
        return own or found
    if not found:
        raise BadTable(f"{folder} has no .inter file; give a folder of RecBole's atomic files")
    raise BadTable(
        f"{folder} has more than one .inter file: {', '.join(path.name for path in found)}; say "
        "which with --interactions NAME, or several with a pattern (options.interactions_file)"
    )


def _item_files(folder: Path, told: str | None, logs: Sequence[Path]) -> list[Path]:
    """The items beside a log: none is fine, then there are ids alone."""
    if told:
        return match_files(folder, told, "items")
    names = (logs[0].stem, logs[0].name.partition(".")[0])
    beside = [folder / f"{name}.item" for name in names]
    return [path for path in beside if path.is_file()][:1]


def _title(names: Sequence[str]) -> dict[str, str]:
    """RecBole's own data sets call it movie_title and the like."""
    titles = [name for name in names if words_of(name)[-1:] == ["title"]]
    return {"title": titles[0]} if len(titles) == 1 and titles[0] != "title" else {}
