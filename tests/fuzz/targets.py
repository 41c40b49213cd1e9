"""What is fuzzed: every parser of outside data, given any bytes, answers or raises a UTGRecError.

A target takes bytes and a folder to work in. Any other exception is a finding.
"""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from utgrec.data.authors import prepare_authors
from utgrec.data.options import TableOptions, read_mapping
from utgrec.data.prepare import prepare_table
from utgrec.data.recbole import prepare_recbole, read_atomic, read_types
from utgrec.data.rejects import Rejects
from utgrec.data.table import join_tables
from utgrec.data.table_parts import column_names, read_parts
from utgrec.data.times import Clock, check_format, read_moments
from utgrec.data.values import id_text, read_column, read_list, read_price, read_text
from utgrec.errors import UTGRecError
from utgrec.tokenizer.sem_ids import read_sem_ids


class Target(NamedTuple):
    """One parser."""

    run: Callable[[bytes, Path], None]
    seeds: tuple[bytes, ...]  # inputs to start from


def _table(name: str) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(data)
        try:
            names = column_names(path)
            rejects = Rejects("reject")
            table = join_tables(read_parts(path, rejects))
        except UTGRecError:
            return
        assert set(table.columns) <= set(names) or name.endswith("jsonl")
        for column in table.columns:
            assert len(table.values(column)) == len(table.rows)
        rejects.table()

    return run


def _whole(data: bytes, folder: Path) -> None:
    """Both tables of a shop, parted by a NUL byte, all the way to a domain folder."""
    items, _, log = data.partition(b"\x00")
    source = folder / "source"
    source.mkdir()
    (source / "items.jsonl").write_bytes(items)
    (source / "interactions.csv").write_bytes(log)
    options = TableOptions(k_core=1, bad_rows="reject")
    try:
        manifest = prepare_table(source, folder / "out", options)
    except UTGRecError:
        assert not (folder / "out").exists()
        return
    read = manifest.facts["read"]["interactions"]
    lost = pq.read_table(folder / "out" / "rejected.parquet") if manifest.facts["rejected"] else []
    assert manifest.facts["counts"]["interactions"] <= read <= 10**6
    assert len(lost) == sum(manifest.facts["rejected"].values())


def _recbole(data: bytes, folder: Path) -> None:
    items, _, log = data.partition(b"\x00")
    (folder / "shop.item").write_bytes(items)
    (folder / "shop.inter").write_bytes(log)
    try:
        types = read_types([folder / "shop.item"])
        join_tables(read_atomic([folder / "shop.item"], types, Rejects("reject")))
        prepare_recbole(folder, folder / "out", TableOptions(k_core=1, bad_rows="reject"))
    except UTGRecError:
        assert not (folder / "out").exists()


def _authors(data: bytes, folder: Path) -> None:
    parts = data.split(b"\x00")
    names = ("all_item_seqs.json", "id_mapping.json", "metadata.sentence.json")
    for name, part in zip(names, parts, strict=False):
        (folder / name).write_bytes(part)
    try:
        prepare_authors(folder, folder / "out", TableOptions(k_core=1, bad_rows="reject"))
    except UTGRecError:
        assert not (folder / "out").exists()


def _mapping(data: bytes, folder: Path) -> None:
    path = folder / "utgrec.toml"
    path.write_bytes(data)
    try:
        read_mapping(path)
    except UTGRecError:
        return


def _sem_ids(data: bytes, folder: Path) -> None:
    path = folder / "x.sem_ids"
    path.write_bytes(data)
    try:
        codes = read_sem_ids(path, ["a", "b"], (4, 8, 8))
    except UTGRecError:
        return
    assert codes.shape == (2, 3) and (codes >= 0).all() and (codes < [4, 8, 8]).all()


def _values(data: bytes, folder: Path) -> None:
    """Cells of a column: types, lists, prices, ids and times."""
    texts = data.decode("utf-8", "surrogateescape").split("\n")
    for read in (read_column, read_text, read_list):
        read(texts)
    for text in texts:
        price = read_price(text)
        assert price is None or 0 <= price < np.inf
        id_text(text)
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    for unit in ("auto", "s", "position"):
        clock, moments = Clock(unit), read_moments(pl.Series(clean, dtype=pl.String))  # type: ignore[arg-type]
        clock.see(moments)
        times = clock.read(moments)
        assert (times.ms >= 0).all() and len(times.ms) == len(texts)
    first, *rest = clean
    try:
        check_format(first, "Europe/Berlin")
    except UTGRecError:
        return
    column = pl.Series(rest, dtype=pl.String)
    read_moments(column, time_format=first, time_zone="Europe/Berlin")


def _packed_zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def _parquet_seed() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"item_id": ["a", "b"], "n": [1, 2], "l": [["x"], None]}), sink)
    return bytes(sink.getvalue().to_pybytes())


CSV = b'user_id,item_id,timestamp\nu1,"a, b",1400000000\nu2,"x ""y""",2014-05-13\n'
JSONL = b'{"item_id": "a", "title": "Tea", "categories": ["x"], "price": "1,5"}\n{"item_id": 7}\n'
ATOMIC = (
    b"item_id:token\ttitle:token_seq\tprice:float\na\tBlack tea\t1.5\n\x00"
    b"user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1400000000\n"
)
AUTHORS = (
    b'{"u": ["a", "b", "a"]}\x00{"id2item": ["[PAD]", "a", "b"]}\x00{"a": "Tea.", "b": ["x", "y"]}'
)
TOML = b'k_core = 2\ntime_format = "%Y"\n[columns]\nitem_id = "sku"\n[events]\nmin_weight = 0.5\n'

TARGETS: dict[str, Target] = {
    "csv": Target(_table("t.csv"), (CSV, b"\xef\xbb\xbfa,b\r\n1,2\r\n", b'a\n"\n')),
    "jsonl": Target(_table("t.jsonl"), (JSONL, b'{"a": [1, null, {"b": 1e999}]}\n[1]\n{"a"')),
    "gzip": Target(_table("t.csv.gz"), (gzip.compress(CSV, mtime=0), b"\x1f\x8b\x08\x00")),
    "zstd": Target(_table("t.jsonl.zst"), (_packed_zstd(JSONL), b"\x28\xb5\x2f\xfd")),
    "parquet": Target(_table("t.parquet"), (_parquet_seed(), b"PAR1PAR1")),
    "values": Target(
        _values,
        (
            b"%d.%m.%Y\n01.02.2020\n1e308\n$1,299.00\n[1, 'x']\n{\n",
            b"%s\n2014-06-15T10:00:00+02:00\n-5\n",
        ),
    ),
    "whole": Target(_whole, (JSONL + b"\x00" + CSV,)),
    "recbole": Target(_recbole, (ATOMIC,)),
    "authors": Target(_authors, (AUTHORS,)),
    "mapping": Target(_mapping, (TOML,)),
    "sem_ids": Target(_sem_ids, (b'{"a": [0, 4, 4], "b": [3, 11, 11], "c": []}',)),
}
