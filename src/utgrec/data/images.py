"""Find, check and store the pictures of items.

A picture is stored under the hash of its bytes, `images/ab/ab12….jpg`, so item ids never become
paths and equal pictures are stored once.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from utgrec.errors import BadImage

# Format that the bytes have → file ending. MPO is what Pillow calls a JPEG with several pictures.
FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
DECODERS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # no other decoder of Pillow is ever called
ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp")

# Pillow warns above this number on its own; a higher limit of ours would not be reached.
PILLOW_LIMIT = 89_478_485
THREADS = 4

_URL = re.compile(r"(https?:)?//", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # one letter is a drive of Windows
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,120}")


class Stored(NamedTuple):
    """One picture of a source: where it went, or why it cannot be used."""

    digest: str  # SHA-256 of its bytes, or "" when there are none
    path: str | None  # relative to the domain folder
    problem: str | None


def is_url(value: str) -> bool:
    """Whether a picture is named by a web address, which is fetched later, not here."""
    return _URL.match(value) is not None


def is_safe_name(item_id: str) -> bool:
    """Whether an id may be part of a file name on any system."""
    return _SAFE_NAME.fullmatch(item_id) is not None


def pictures_by_id(folder: Path, item_ids: Sequence[str]) -> list[str | None]:
    """images/<item_id>.<ending> for every item that has such a file and a safe file name."""
    if not folder.is_dir():
        return [None] * len(item_ids)
    present = {path.name for path in folder.iterdir()}
    lower = {name.lower(): name for name in sorted(present, reverse=True)}

    def find(item_id: str) -> str | None:
        if not is_safe_name(item_id):
            return None
        for ending in ENDINGS:
            name = f"{item_id}.{ending}"
            if name in present:
                return f"{folder.name}/{name}"
            other = lower.get(name.lower())
            if other is not None and other.rpartition(".")[0] == item_id:
                return f"{folder.name}/{other}"
        return None

    return [find(item_id) for item_id in item_ids]


def hash_images(source: Path, references: Sequence[str], max_pixels: int) -> dict[str, str]:
    """Reference → SHA-256 of the file's bytes, or "" when it cannot be read."""

    def digest(reference: str) -> str:
        try:
            return hashlib.sha256(_read(source, reference, max_pixels)).hexdigest()
        except BadImage:
            return ""

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(references, pool.map(digest, references), strict=True))


def store_images(
    source: Path,
    references: Sequence[str],
    out: Path,
    *,
    max_pixels: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Stored]:
    """Decode every picture in full and copy its bytes to `out`/images; bad ones are only reported.

    `references` are distinct paths relative to `source`.
    """
    from PIL import Image

    def store(reference: str) -> Stored:
        digest = ""
        try:
            data = _read(source, reference, max_pixels)
            digest = hashlib.sha256(data).hexdigest()
            name = f"images/{digest[:2]}/{digest}.{check_image(data, max_pixels)}"
        except BadImage as error:
            return Stored(digest, None, str(error))
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return Stored(digest, name, None)

    stored: dict[str, Stored] = {}
    # Filters of warnings belong to the whole process: they are set here, around all threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for reference, result in _in_order(pool, store, references):
            stored[reference] = result
            if progress is not None:
                progress(len(stored), len(references))
    return stored


def check_image(data: bytes, max_pixels: int) -> str:
    """Decode a picture in full; the file ending that belongs to its content.

    Raises:
        BadImage: more pixels than allowed, cut off, or no picture of a known format.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()  # loads the decoders, once; some formats are unknown before
    try:
        with Image.open(BytesIO(data), formats=DECODERS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise BadImage(
                    f"{width} × {height} pixels are more than the {max_pixels:,} allowed; "
                    "make it smaller, or raise --max-image-pixels"
                )
            ending = FORMATS[image.format or ""]
            image.load()
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"more pixels than the {max_pixels:,} allowed ({error})") from error
    except Exception as error:  # decoders raise nearly every kind of error on broken bytes
        unknown = isinstance(error, UnidentifiedImageError)  # its text names an object in memory
        why = "its content is of another kind" if unknown else error
        raise BadImage(f"cannot be decoded as {' or '.join(DECODERS)} ({why})") from error
    return ending


def _read(source: Path, reference: str, max_pixels: int) -> bytes:
    """The bytes of one picture below `source`."""
    scheme = _SCHEME.match(reference)
    if scheme is not None:
        raise BadImage(
            f"has the scheme {scheme[1]!r}; name a path below the source folder, or an http or "
            "https address"
        )
    parts = re.split(r"[/\\]", reference)
    if Path(reference).is_absolute() or reference[:1] in "/\\" or ".." in parts or ":" in parts[0]:
        raise BadImage("leads outside the source folder; it must be a path below it")
    root = source.resolve()
    try:
        path = (root / reference).resolve()
        if not path.is_relative_to(root):
            raise BadImage("leads outside the source folder through a link; copy the file instead")
        if not path.is_file():
            raise BadImage("is no file of the source folder; copy the picture there")
        # No picture within the pixel limit needs more than 4 bytes a pixel and a header.
        if path.stat().st_size > 4 * max_pixels + 2**20:
            raise BadImage(f"the file is larger than {max_pixels:,} pixels can be")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadImage(f"cannot be read ({error})") from error


def _in_order(
    pool: ThreadPoolExecutor, store: Callable[[str], Stored], references: Sequence[str]
) -> Iterator[tuple[str, Stored]]:
    return zip(references, pool.map(store, references), strict=True)
