"""From a shop's plain tables to a domain folder.

A source is a folder with a table of items, a table of interactions and perhaps pictures. The
result does not depend on the file format of the tables, nor on the order of the interactions
(rows of one user with equal times keep their order).
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST
from utgrec.data.exact import exact_items
from utgrec.data.items import Items, find_id_column, items_of
from utgrec.data.log import find_roles
from utgrec.data.options import TableOptions as TableOptions
from utgrec.data.pipeline import make_domain
from utgrec.data.table import Table
from utgrec.data.table_files import INTERACTION_NAMES, ITEM_NAMES, find_tables
from utgrec.data.table_parts import column_names, read_parts
from utgrec.data.tables_source import (
    Reading,
    TablesSource,
    make_plan,
    one_after_the_other,
    size_of,
)
from utgrec.errors import BadTable
from utgrec.progress import Progress


def prepare_table(
    source: Path, out: Path, options: TableOptions, progress: Progress | None = None
) -> storage.Manifest:
    """Make the domain folder `out` from the tables and pictures in `source`.

    Nothing is left behind if it fails. A finished domain with equal settings and equal input is
    returned as it is.

    Raises:
        BadTable, BadImage: the first row or picture that cannot be used (bad_rows="error").
        EmptyDomain: nothing is left after the filters.
        SettingsMismatch: `out` is a domain made with other settings or from other input.
        StorageError: `out` exists and is no domain folder, or the disk is full.
    """
    source = Path(source)
    options = name_of(options, source)
    return make_domain(table_source(source, options), Path(out), make_plan(options), progress)


def name_of(options: TableOptions, source: Path) -> TableOptions:
    """The options with a name: the source folder's if they have none."""
    return dataclasses.replace(options, name=options.name or source.resolve().name)


def table_source(source: Path, options: TableOptions) -> TablesSource:
    """The tables of a folder.

    Raises:
        BadTable: a table is missing, several fit, or a column is missing or ambiguous.
    """
    if not source.is_dir():
        raise BadTable(f"{source} is no folder; give the folder that holds the tables")
    if (source / DOMAIN_MANIFEST).exists():
        raise BadTable(f"{source} is already a domain folder; use it as it is")
    items = find_tables(source, ITEM_NAMES, options.items_file, "items")
    log = find_tables(source, INTERACTION_NAMES, options.interactions_file, "interactions")
    told = {"item_id": "item_id"} if options.exact else options.columns
    id_column = find_id_column(_columns(source, items), told)
    roles = find_roles(_columns(source, log), options.log)
    needed = list(dict.fromkeys(roles.values()))
    reading = Reading(
        items=lambda rejects, columns, hears: one_after_the_other(
            items, lambda path, told: read_parts(path, rejects, columns, told), hears
        ),
        log=lambda rejects, hears: one_after_the_other(
            log, lambda path, told: read_parts(path, rejects, needed, told), hears
        ),
        id_column=id_column,
        roles=roles,
        clean=lambda table: clean_items(table, options, id_column, source),
        bytes=(size_of(items), size_of(log)),
    )
    return TablesSource(source, [*items, *log], reading, options.log)


def clean_items(table: Table, options: TableOptions, id_column: str, root: Path) -> Items:
    """Rows of a table of items as the options say; pictures are looked for below `root`."""
    if options.exact:
        return exact_items(table, options.exact_types)
    return items_of(
        table,
        columns={**options.columns, "item_id": id_column},
        text_columns=options.text_columns,
        skip_columns=options.skip_columns,
        picture_root=root,
    )


def _columns(root: Path, paths: Sequence[Path]) -> dict[str, list[str]]:
    return {os.path.relpath(path, root): column_names(path) for path in paths}
