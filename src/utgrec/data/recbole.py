"""RecBole's atomic files as a source: NAME.inter and NAME.item, tab-separated with typed headers.

A header names each field with its type: `item_id:token`, `price:float`, `categories:token_seq`. The
entries of a sequence stand between spaces; a no-break space within one stands for a space, which
is how `utgrec export` writes "Health & Beauty". A sequence whose name says that it is prose
(title, description …) is text. NAME.user is not read: a domain knows of its users what they took.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from utgrec import storage
from utgrec.data.columns import words_of
from utgrec.data.items import find_id_column
from utgrec.data.log import find_roles
from utgrec.data.options import TableOptions
from utgrec.data.pipeline import make_domain
from utgrec.data.prepare import clean_items, name_of
from utgrec.data.rejects import Rejects
from utgrec.data.table import Table
from utgrec.data.table_files import match_files
from utgrec.data.tables_source import (
    Hears,
    Reading,
    TablesSource,
    make_plan,
    one_after_the_other,
    size_of,
)
from utgrec.data.text_tables import header_of, read_separated
from utgrec.errors import BadTable
from utgrec.progress import Progress

TYPES = ("token", "token_seq", "float", "float_seq")
PROSE = frozenset({"title", "name", "description", "text", "sentence", "summary", "plot", "review"})
SPACE, NO_BREAK = " ", "\u00a0"


def prepare_recbole(
    source: Path, out: Path, options: TableOptions, progress: Progress | None = None
) -> storage.Manifest:
    """Make the domain folder `out` from RecBole's files; otherwise like `prepare_table`.

    Raises:
        BadTable: no or several data sets in the folder, or a header without types.
    """
    source = Path(source)
    options = name_of(options, source)
    return make_domain(recbole_source(source, options), Path(out), make_plan(options), progress)


def recbole_source(source: Path, options: TableOptions) -> TablesSource:
    """The atomic files of a folder.

    Raises:
        BadTable: as `prepare_recbole`.
    """
    if not source.is_dir():
        raise BadTable(f"{source} is no folder; give the folder that holds the atomic files")
    logs = _log_files(source, options.interactions_file)
    items = _item_files(source, options.items_file, logs)
    of_log = read_types(logs)
    roles = find_roles({path.name: list(of_log) for path in logs}, options.log)
    of_items = read_types(items) if items else {"item_id": "token"}
    columns = {**_title(list(of_items)), **options.columns} if items else {}
    id_column = find_id_column({path.name: list(of_items) for path in items or logs}, columns)

    def item_parts(
        rejects: Rejects, columns: Sequence[str] | None, hears: Hears
    ) -> Iterator[Table]:
        if items:
            return read_atomic(items, of_items, rejects, columns, _lists(of_items, options), hears)
        return _bare_items(read_atomic(logs, of_log, Rejects("reject", most=0), [roles["item"]]))

    reading = Reading(
        items=item_parts,
        log=lambda rejects, hears: read_atomic(
            logs, of_log, rejects, list(roles.values()), hears=hears
        ),
        id_column=id_column,
        roles=roles,
        clean=lambda table: clean_items(
            table, dataclasses.replace(options, columns=columns), id_column, source
        ),
        bytes=(size_of(items or logs), size_of(logs)),
    )
    return TablesSource(source, [*items, *logs], reading, options.log)


def read_types(paths: Sequence[Path]) -> dict[str, str]:
    """The columns of atomic files of one kind, and their types.

    Raises:
        BadTable: a field without a type, or with another one in another file.
    """
    types: dict[str, str] = {}
    for path in paths:
        for header in header_of(path, "tsv"):
            name, colon, kind = header.rpartition(":")
            if header and (not colon or not name or kind not in TYPES):
                raise BadTable(
                    f"{path.name}: the field {header!r} has no type; a header of atomic files says "
                    f"NAME:TYPE, and a type is one of {', '.join(TYPES)}"
                )
            if header and types.setdefault(name, kind) != kind:
                raise BadTable(
                    f"{path.name}: the field {name!r} is {kind}, elsewhere it is {types[name]}"
                )
    return types


def read_atomic(
    paths: Sequence[Path],
    types: Mapping[str, str],
    rejects: Rejects,
    columns: Sequence[str] | None = None,
    lists: Collection[str] = (),
    hears: Hears = lambda done: None,
) -> Iterator[Table]:
    """The parts of atomic files of one kind, or of some of their columns, one file after the other.

    Values of the columns named in `lists` are split.

    Raises:
        BadTable: a file that cannot be read.
    """
    wanted = None if columns is None else [f"{name}:{types.get(name)}" for name in columns]

    def read(path: Path, told: Hears) -> Iterator[Table]:
        for part in read_separated(path, "tsv", rejects, wanted, told):
            named: dict[str, pl.Series | list[Any]] = {}
            for header, column in part.columns.items():
                name = header.rpartition(":")[0]
                named[name] = _split(column) if name in lists else column
            yield part._replace(columns=named)

    return one_after_the_other(paths, read, hears)


def _lists(types: Mapping[str, str], options: TableOptions) -> set[str]:
    """Columns that are lists: sequences whose name does not say that they are prose."""
    if options.exact:
        return {name for name, kind in options.exact_types.items() if kind == "list"}
    return {
        name
        for name, kind in types.items()
        if kind.endswith("_seq") and words_of(name)[-1:] not in [[word] for word in PROSE]
    }


def _bare_items(log: Iterator[Table]) -> Iterator[Table]:
    """The items of a log that comes without a table of items: ids, and nothing else."""
    found: set[str] = set()
    file = ""
    for part in log:
        (column,) = part.columns
        found |= {value for value in part.values(column) if value and value.strip()}
        file = part.files[0]
    ids = pl.Series(sorted(found), dtype=pl.String)
    yield Table(np.arange(1, len(ids) + 1, dtype=np.int64), {"item_id": ids}, (file,))


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
