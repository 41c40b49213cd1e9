"""Pictures of items that are added while a catalogue is live, kept beside its generations.

A picture is stored under the hash of its bytes, `images/ab/ab12….png`, so no caller's name ever
becomes a path, and equal pictures are stored once. Nothing is ever overwritten.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from utgrec import storage
from utgrec.data.images import check_image, store_images
from utgrec.errors import BadImage, FieldError

MAX_PIXELS = 40_000_000


def keep_picture(data: bytes, folder: Path, max_pixels: int = MAX_PIXELS) -> str:
    """Check a picture and store it; its path relative to `folder`.

    Raises:
        BadImage: not a picture of a known format, cut off, or with more pixels than allowed.
    """
    try:
        ending = check_image(data, max_pixels)
    except BadImage as error:
        raise error.about([FieldError("image", f"{len(data):,} bytes", str(error))]) from None
    digest = hashlib.sha256(data).hexdigest()
    name = f"images/{digest[:2]}/{digest}.{ending}"
    target = folder / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.new_file(target) as partial:
            partial.write_bytes(data)
    return name


def keep_files(
    source: Path, references: Sequence[str], folder: Path, max_pixels: int = MAX_PIXELS
) -> dict[str, str]:
    """Store picture files named relative to `source`: reference → path relative to `folder`.

    Raises:
        BadImage: one or more cannot be used; nothing was stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pictures.", dir=folder) as name:
        checked = Path(name)
        found = store_images(
            source, list(dict.fromkeys(references)), checked, max_pixels=max_pixels
        )
        bad = [f"{reference!r} {one.problem}" for reference, one in found.items() if one.problem]
        if bad:
            more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise BadImage(
                f"pictures that cannot be used: {'; '.join(bad[:5])}{more}; mend the files or "
                "leave `image` out of these items"
            )
        return {
            reference: keep_picture((checked / str(one.path)).read_bytes(), folder, max_pixels)
            for reference, one in found.items()
        }
