"""Folders that Hugging Face's `datasets` wrote with `save_to_disk`, as a source.

Either one folder with the splits `items` and `interactions`, or two folders of these names; other
names are told. Nothing is downloaded, and no code of a data set is run.
"""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from utgrec import storage
from utgrec.data.items import Items, find_id_column
from utgrec.data.log import find_roles
from utgrec.data.options import TableOptions
from utgrec.data.pipeline import make_domain
from utgrec.data.prepare import clean_items, name_of
from utgrec.data.table import Table
from utgrec.data.tables_source import Reading, TablesSource, make_plan
from utgrec.errors import BadTable, MissingDependency
from utgrec.progress import Progress

ROWS = 2**16  # that are held at a time


def prepare_datasets(
    source: Path, out: Path, options: TableOptions, progress: Progress | None = None
) -> storage.Manifest:
    """Make the domain folder `out` from saved data sets; otherwise like `prepare_table`.

    Raises:
        BadTable: no saved data set there, or none of that name.
        MissingDependency: `datasets` is not installed.
    """
    source, out = Path(source), Path(out)
    options = name_of(options, source)
    # Pictures within a data set become files for the time of the preparation.
    with storage.scratch(out.with_name(f"pictures-{out.name}")) as pictures:
        found = datasets_source(source, options, pictures)
        return make_domain(found, out, make_plan(options), progress)


def datasets_source(source: Path, options: TableOptions, pictures: Path) -> TablesSource:
    """The saved data sets of a folder; pictures in them are written to `pictures`.

    Raises:
        BadTable, MissingDependency: as `prepare_datasets`.
    """
    names = (options.items_file or "items", options.interactions_file or "interactions")
    items, log = (
        _open(source, name, what)
        for name, what in zip(names, ("items", "interactions"), strict=True)
    )
    with_pictures = _columns_of_pictures(items)
    root = pictures if with_pictures else source
    id_column = find_id_column({names[0]: items.column_names}, options.columns)
    roles = find_roles({names[1]: log.column_names}, options.log)

    def clean(table: Table) -> Items:
        columns = dict(table.columns)
        for name in with_pictures:
            columns[name] = [_picture(value, pictures) for value in table.values(name)]
        return clean_items(table._replace(columns=columns), options, id_column, root)

    reading = Reading(
        items=lambda rejects, columns, hears: _parts(items, names[0], columns),
        log=lambda rejects, hears: _parts(log, names[1], list(dict.fromkeys(roles.values()))),
        id_column=id_column,
        roles=roles,
        clean=clean,
    )
    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file() and path.suffix in (".arrow", ".json")
    ]
    return TablesSource(source, files, reading, options.log, picture_root=root)


def _open(source: Path, name: str, what: str) -> Any:
    """The data set of a name: a folder of its own, or a split."""
    try:
        library = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "folders of Hugging Face's datasets need the package 'datasets', which is not "
            "installed; install it with: pip install 'utgrec[datasets]'"
        ) from error
    own = source / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BadTable(f"--{what} {name!r} leads out of {source}; give a name below it")
    is_own = (own / "state.json").is_file()
    if not is_own and not (source / "dataset_dict.json").is_file():
        raise BadTable(
            f"{source} is no folder that save_to_disk wrote with a split {name!r}, and has no such "
            f"folder in it; say which holds the {what} with --{what} NAME (options.{what}_file)"
        )
    try:
        found = library.load_from_disk(str(own if is_own else source))
    except Exception as error:  # the library raises nearly every kind of error on broken folders
        raise BadTable(
            f"{own if is_own else source} cannot be opened ({error}); save the data set again"
        ) from error
    if is_own:
        return found
    if name not in found:
        raise BadTable(
            f"{source} has no split {name!r}; it has {', '.join(found)}. Say which holds the "
            f"{what} with --{what} NAME (options.{what}_file)"
        )
    return found[name]


def _parts(data: Any, name: str, columns: Sequence[str] | None) -> Iterator[Table]:
    """Parts of some columns as the other sources have them: labels by name."""
    chosen = data if columns is None else data.select_columns(list(columns))
    for first in range(0, max(len(chosen), 1), ROWS):
        try:
            arrow = chosen.with_format("arrow")[first : first + ROWS]
        except Exception as error:
            raise BadTable(f"{name} cannot be read ({error}); save the data set again") from error
        yield Table(
            np.arange(first + 1, first + arrow.num_rows + 1, dtype=np.int64),
            {
                column: _values(chosen.features[column], arrow.column(column))
                for column in arrow.column_names
            },
            (name,),
        )


def _values(feature: Any, column: Any) -> pl.Series | list[Any]:
    if hasattr(feature, "int2str"):
        names = feature.names
        return [
            None if value is None or not 0 <= value < len(names) else names[value]
            for value in column.to_pylist()
        ]
    series = pl.from_arrow(column)
    assert isinstance(series, pl.Series)
    return series.to_list() if series.dtype.is_nested() else series


def _columns_of_pictures(data: Any) -> list[str]:
    return [name for name, kind in data.features.items() if type(kind).__name__ == "Image"]


def _picture(value: Any, folder: Path) -> str | None:
    """A picture's bytes as a file named by their hash; a path alone is left as it is."""
    import hashlib

    content = value.get("bytes") if isinstance(value, dict) else None
    if not content:
        return None if value is None else f"{value.get('path')}"
    name = hashlib.sha256(content).hexdigest()
    (folder / name).write_bytes(content)
    return name
