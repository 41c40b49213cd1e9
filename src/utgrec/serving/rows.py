"""What a generation says about its items, as arrays in memory and as tables on disk.

Shapes: N items, live or not · L codes per item.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage

FIRST = 1  # number of the first generation


class Rows(NamedTuple):
    """What a generation says about N items."""

    items: pa.Table  # item_id, title, text, image and attributes
    codes: npt.NDArray[np.int16]  # (N, L)
    live: npt.NDArray[np.bool_]  # (N,), whether the item can be recommended
    since: npt.NDArray[np.int32]  # (N,), number of the generation that first had the item
    conflict: npt.NDArray[np.bool_]  # (N,), whether other codes were nearer but taken
    distance: npt.NDArray[np.float32]  # (N,), squared distance of the item to its codes
    own_picture: npt.NDArray[np.bool_]  # (N,), picture kept here instead of in the domain folder


def read_rows(items: Path, codes: Path) -> Rows:
    """Read the two tables of a generation."""
    coded = pq.read_table(codes)
    column = coded.column("codes").combine_chunks()

    def values(name: str) -> npt.NDArray[Any]:
        return np.array(coded.column(name).to_numpy())

    return Rows(
        items=pq.read_table(items),
        codes=column.flatten().to_numpy().reshape(len(column), -1),
        live=values("live"),
        since=values("since"),
        conflict=values("conflict"),
        distance=values("distance"),
        own_picture=values("own_picture"),
    )


def first_rows(folder: Path, manifest: storage.Manifest) -> Rows:
    """The rows of a first generation, out of a codes stage.

    Raises:
        CorruptFile: a table is not the one that the stage wrote.
    """
    table = pq.read_table(storage.check_file(folder, manifest, "codes.parquet"))
    items = pq.read_table(storage.check_file(folder, manifest, "items.parquet"))
    column = table.column("codes").combine_chunks()
    count = len(column)
    return Rows(
        items=items,
        codes=column.flatten().to_numpy().reshape(count, -1),
        live=np.ones(count, dtype=np.bool_),
        since=np.full(count, FIRST, dtype=np.int32),
        conflict=np.array(table.column("conflict").to_numpy()),
        distance=np.array(table.column("distance").to_numpy()),
        own_picture=np.zeros(count, dtype=np.bool_),
    )


def coded_table(rows: Rows) -> pa.Table:
    """The table `codes.parquet` of a generation."""
    flat = pa.array(np.ascontiguousarray(rows.codes).ravel(), pa.int16())
    return pa.table(
        {
            "item_id": rows.items.column("item_id"),
            "codes": pa.FixedSizeListArray.from_arrays(flat, rows.codes.shape[1]),
            "live": rows.live,
            "since": rows.since,
            "conflict": rows.conflict,
            "distance": rows.distance,
            "own_picture": rows.own_picture,
        }
    )
