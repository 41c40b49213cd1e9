"""Folders that Hugging Face's `datasets` wrote with `save_to_disk`, as a source.

Either one folder with the splits `items` and `interactions`, or two folders of these names; other
names are told. Nothing is downloaded, and no code of a data set is run.
"""

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from utgrec import storage
from utgrec.data.items import Items, items_of
from utgrec.data.log import log_of
from utgrec.data.options import TableOptions
from utgrec.data.prepare import Source, hash_inputs, name_of, prepare_source
from utgrec.data.rejects import Rejects
from utgrec.data.table import Table
from utgrec.errors import BadTable, MissingDependency
from utgrec.progress import Progress


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
    out.resolve().parent.mkdir(parents=True, exist_ok=True)
    # Pictures within a data set become files for the time of the preparation.
    with tempfile.TemporaryDirectory(dir=out.resolve().parent, prefix=".pictures-") as pictures:
        found = datasets_source(source, options, Path(pictures))
        return prepare_source(found, out, options, progress)


def datasets_source(source: Path, options: TableOptions, pictures: Path) -> Source:
    """The saved data sets of a folder; pictures in them are written to `pictures`.

    Raises:
        BadTable, MissingDependency: as `prepare_datasets`.
    """
    items = _open(source, options.items_file or "items", "items")
    log = _open(source, options.interactions_file or "interactions", "interactions")
    root = pictures if _has_pictures(items) else source

    def read(rejects: Rejects) -> Items:
        table = _table(items, options.items_file or "items", pictures)
        return items_of(
            table,
            rejects,
            columns=options.columns,
            text_columns=options.text_columns,
            skip_columns=options.skip_columns,
            picture_root=root,
        )

    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file() and path.suffix in (".arrow", ".json")
    ]
    return Source(
        root=root,
        inputs=hash_inputs(source, files),
        read_items=read,
        read_log=lambda ids, rejects: log_of(
            _table(log, options.interactions_file or "interactions", pictures),
            ids,
            rejects,
            options.log,
        ),
    )


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
        raise BadTable(f"{own if is_own else source} cannot be opened ({error})") from error
    if is_own:
        return found
    if name not in found:
        raise BadTable(
            f"{source} has no split {name!r}; it has {', '.join(found)}. Say which holds the "
            f"{what} with --{what} NAME (options.{what}_file)"
        )
    return found[name]


def _table(data: Any, name: str, pictures: Path) -> Table:
    """Columns as the other sources have them: labels by name, pictures as files."""
    try:
        arrow = data.with_format("arrow")[:]
    except Exception as error:
        raise BadTable(f"{name} cannot be read ({error}); save the data set again") from error
    columns: dict[str, pl.Series | list[Any]] = {}
    for column in arrow.column_names:
        feature = data.features[column]
        if hasattr(feature, "int2str"):
            names = feature.names
            columns[column] = [
                None if value is None or not 0 <= value < len(names) else names[value]
                for value in arrow.column(column).to_pylist()
            ]
        elif type(feature).__name__ == "Image":
            columns[column] = [
                _picture(value, pictures) for value in arrow.column(column).to_pylist()
            ]
        else:
            series = pl.from_arrow(arrow.column(column))
            assert isinstance(series, pl.Series)
            columns[column] = series.to_list() if series.dtype.is_nested() else series
    return Table(np.arange(1, arrow.num_rows + 1, dtype=np.int64), columns, (name,))


def _has_pictures(data: Any) -> bool:
    return any(type(feature).__name__ == "Image" for feature in data.features.values())


def _picture(value: Any, folder: Path) -> str | None:
    """A picture's bytes as a file named by their hash; a path alone is left as it is."""
    import hashlib

    content = value.get("bytes") if isinstance(value, dict) else None
    if not content:
        return None if value is None else f"{value.get('path')}"
    name = hashlib.sha256(content).hexdigest()
    (folder / name).write_bytes(content)
    return name
