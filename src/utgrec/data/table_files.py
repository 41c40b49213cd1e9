"""Find the files of a shop's tables, one or many, and open them: plain, gzip or zstd."""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from utgrec.errors import BadTable

T = TypeVar("T")

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
PACKED = (".gz", ".zst")
PATTERN = frozenset("*?[")
LONGEST_HEADER = 2**20  # bytes
BOM = b"\xef\xbb\xbf"

# Names of files without suffix, most telling group first; "meta" also stands for meta_Books.
ITEM_NAMES = (
    ("items", "item", "catalog", "catalogue"),
    ("products", "product", "articles", "movies", "books", "games", "songs", "goods"),
    ("meta", "metadata"),
)
INTERACTION_NAMES = (
    ("interactions", "interaction"),
    ("events", "ratings", "reviews", "transactions", "orders", "clicks", "purchases", "logs"),
)


def find_table(folder: Path, names: Sequence[Sequence[str]], told: str | None, what: str) -> Path:
    """The table of items or interactions in a source folder.

    `told` is a file name relative to the folder; without it the file is found by its usual names.

    Raises:
        BadTable: no such file, or more than one fits.
    """
    if told:
        path = folder / told
        if not path.is_file():
            raise BadTable(f"{path} is no file; check --{what} (options.{what}_file)")
        format_of(path)
        return path
    tables = sorted(
        path for path in folder.iterdir() if path.is_file() and kind_of(path.name) is not None
    )
    for group in names:
        found = [path for path in tables if _stem(path.name) in group]
        if not found and "meta" in group:
            found = [path for path in tables if _stem(path.name).startswith("meta_")]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(path.name for path in found)
            raise BadTable(
                f"{folder} has more than one table of {what}: {listed}; "
                f"say which with --{what} NAME (options.{what}_file)"
            )
    listed = ", ".join(path.name for path in tables) or "no table at all"
    raise BadTable(
        f"{folder} has no table of {what} under a usual name ({names[0][0]}.csv, .tsv, .jsonl, "
        f".parquet, also .gz or .zst); it has {listed}. "
        f"Say which it is with --{what} NAME (options.{what}_file)"
    )


def find_tables(
    folder: Path, names: Sequence[Sequence[str]], told: str | None, what: str
) -> list[Path]:
    """Like `find_table`, but `told` may be a pattern such as `log/2024-*.csv.gz`: files by name.

    Raises:
        BadTable: no file fits, or one that fits is no table.
    """
    if not told or not PATTERN & set(told):
        return [find_table(folder, names, told, what)]
    found = match_files(folder, told, what)
    for path in found:
        format_of(path)
    return found


def match_files(folder: Path, told: str, what: str) -> list[Path]:
    """The files below a folder that a name or a pattern fits, in the order of their names.

    Raises:
        BadTable: none, or the pattern leads out of the folder.
    """
    pattern = Path(told)
    if pattern.is_absolute() or ".." in pattern.parts:
        raise BadTable(f"--{what} {told!r} leads out of {folder}; give a pattern below it")
    try:
        found = sorted(path for path in folder.glob(told) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise BadTable(f"--{what} {told!r} is no pattern of file names ({error})") from error
    if not found:
        raise BadTable(f"{folder} has no file like {told!r} (--{what}, options.{what}_file)")
    return found


def unpacking(raw: io.RawIOBase, name: str) -> io.BufferedIOBase:
    """The bytes that a file of that name holds, unpacked if it ends in .gz or .zst.

    Read them through `unpacked`.
    """
    lower = name.lower()
    if lower.endswith(".gz"):
        return gzip.GzipFile(fileobj=cast(BinaryIO, raw), mode="rb")
    if lower.endswith(".zst"):
        import pyarrow as pa

        packed = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
        return io.BufferedReader(cast(io.RawIOBase, packed), 2**16)
    return io.BufferedReader(raw, 2**16)


def first_line(path: Path) -> bytes:
    """The first line of a text file, with its end; cut at 1 MiB.

    Raises:
        BadTable: a packed file that is cut off or damaged.
    """
    with open(path, "rb", buffering=0) as file, unpacking(file, path.name) as stream:
        return unpacked(path, lambda: stream.readline(LONGEST_HEADER))


def unpacked(path: Path, read: Callable[[], T]) -> T:
    """Do one read of an opened table.

    Raises:
        BadTable: the packed file is cut off or damaged.
    """
    try:
        return read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadTable(
            f"{path.name} is not a whole gzip file ({error}); copy or download it again"
        ) from error
    except OSError as error:
        if error.errno is None and path.name.lower().endswith(".zst"):  # from the decoder
            raise BadTable(
                f"{path.name} is not a whole zstd file ({error}); copy or download it again"
            ) from error
        raise


def kind_of(name: str) -> str | None:
    """csv, tsv, jsonl or parquet by the ending of a file name; None for anything else."""
    plain = _plain_name(name)
    kind = FORMATS.get(os.path.splitext(plain)[1])
    return None if kind == "parquet" and plain != name.lower() else kind


def format_of(path: Path) -> str:
    """Like `kind_of`.

    Raises:
        BadTable: no known ending.
    """
    kind = kind_of(path.name)
    if kind is None:
        known = ", ".join(FORMATS)
        raise BadTable(
            f"{path.name}: no known table format; it must end in one of {known} (or .gz, .zst)"
        )
    return kind


def _stem(name: str) -> str:
    return os.path.splitext(_plain_name(name))[0]


def _plain_name(name: str) -> str:
    lower = name.lower()
    return next((lower.removesuffix(end) for end in PACKED if lower.endswith(end)), lower)
