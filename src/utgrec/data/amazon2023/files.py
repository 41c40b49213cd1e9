"""Which files a category needs, where they are on disk, and where they can be had."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from utgrec.errors import BadTable

Version = Literal["raw", "5core"]

# Where the data set's authors publish it; another mirror may hold the same tree.
HUGGING_FACE = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023/resolve/main"
UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
MIRRORS = {"huggingface": HUGGING_FACE, "ucsd": UCSD}
GZIPPED = frozenset({"ucsd"})  # mirrors whose files are all called ….gz


class Needed(NamedTuple):
    """One file of a category."""

    role: str  # reviews or metadata
    path: PurePosixPath  # in the data set's own tree, without .gz


class Found(NamedTuple):
    """The files of a category on this machine."""

    reviews: Path
    metadata: Path


def needed(category: str, version: Version) -> tuple[Needed, Needed]:
    """The files of a category, reviews first."""
    reviews = (
        f"raw/review_categories/{category}.jsonl"
        if version == "raw"
        else f"benchmark/5core/rating_only/{category}.csv"
    )
    return (
        Needed("reviews", PurePosixPath(reviews)),
        Needed("metadata", PurePosixPath(f"raw/meta_categories/meta_{category}.jsonl")),
    )


def find_local(data: Path, file: Needed) -> Path | None:
    """A file in the data set's own tree below `data`, or flat in it; also gzipped.

    The file as it is wins over the gzipped one: it is read faster.
    """
    for folder in (data / file.path.parent, data):
        for name in (file.path.name, f"{file.path.name}.gz"):
            if (folder / name).is_file():
                return folder / name
    return None


def find_all(data: Path, category: str, version: Version) -> Found:
    """The files of a category on this machine.

    Raises:
        BadTable: one of them is missing; the message names all places that were looked at.
    """
    files = needed(category, version)
    found = [find_local(data, file) for file in files]
    reviews, metadata = found
    if reviews is None or metadata is None:
        missing = [file for file, path in zip(files, found, strict=True) if path is None]
        raise BadTable(_missing(data, category, missing))
    return Found(reviews, metadata)


def address(mirror: str, file: Needed) -> str:
    """Where a file can be had: `mirror` is a name in MIRRORS, or the address of such a tree."""
    root = MIRRORS.get(mirror, mirror).rstrip("/")
    return f"{root}/{file.path}{'.gz' if mirror in GZIPPED else ''}"


def _missing(data: Path, category: str, missing: Sequence[Needed]) -> str:
    named = " and ".join(f"{file.path.name} (or .gz)" for file in missing)
    return (
        f"{data} lacks {named} of {category}, both in the data set's own folders "
        f"({missing[0].path.parent}) and beside each other; copy them there, or leave out "
        "--offline to download them"
    )
