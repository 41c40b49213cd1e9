"""From fetched bytes to the picture that is stored: verified, upright, RGB, small enough, named by
its content. Runs in a decoding process (`utgrec.data.pictures.decoders`)."""

import hashlib
import multiprocessing
import os
import signal
import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from utgrec.data.images import DECODERS
from utgrec.data.pictures.outcomes import STORED, Result, failed, stored_path

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 90  # of the JPEG that is stored

# How other files begin that people take for pictures: (offset, bytes, what it is).
_OTHERS = [
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
]


def begin() -> None:
    """Set up a decoding process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the main process
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed run must not leave processes that wait for it for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def store_picture(body: bytes | Path, store: Path, *, max_pixels: int, max_side: int) -> Result:
    """Decode a picture in full, make it uniform, and write it to `store`/images/….

    Raises:
        OSError: the store cannot be written (a full disk).
    """
    data = body.read_bytes() if isinstance(body, Path) else body
    if not data:
        return failed("empty")
    made = make_uniform(data, max_pixels=max_pixels, max_side=max_side)
    if isinstance(made, Result):
        return made
    picture, result = made
    digest = hashlib.sha256(picture).hexdigest()
    target = store / stored_path(digest)
    if not (target.is_file() and target.stat().st_size == len(picture)):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(picture)
            os.replace(partial, target)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    return result._replace(digest=digest, size=len(picture))


def make_uniform(data: bytes, *, max_pixels: int, max_side: int) -> tuple[bytes, Result] | Result:
    """The JPEG that is stored and what is known of it; or why there is none."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(BytesIO(data), formats=DECODERS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    return failed("too many pixels", f"{width} × {height}")
                kind = image.format or ""
                # A large JPEG is decoded in full, but at a half, quarter or eighth of its size:
                # still at least twice what is kept.
                image.draft(None, (2 * max_side, 2 * max_side))
                image.load()
                picture = _upright(_flat(_fitting(image, max_side)), image)
        except UnidentifiedImageError:
            return _no_picture(data)
        except Image.DecompressionBombError as error:
            return failed("too many pixels", str(error))
        except MemoryError:
            return failed("too many pixels", "not enough memory")
        except Exception as error:  # decoders raise nearly every kind of error on broken bytes
            return failed("broken picture", f"{type(error).__name__}: {error}")
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=QUALITY)
    known = Result(
        STORED,
        width=picture.width,
        height=picture.height,
        source_format={"MPO": "JPEG"}.get(kind, kind),
        source_width=width,
        source_height=height,
        source_size=len(data),
    )
    return stream.getvalue(), known


def _fitting(image: "Image", max_side: int) -> "Image":
    """Not larger than allowed, in a mode that can be mixed: L, RGB, LA or RGBA."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):  # 16 bits of grey: the upper 8 are kept
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    see_through = "transparency" in image.info or image.mode in ("PA", "La", "RGBa")
    if see_through and image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "LA", "RGBA"):
        image = image.convert("RGB")
    if max(image.size) > max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def _flat(image: "Image") -> "Image":
    """RGB; what can be seen through becomes white."""
    from PIL import Image

    if image.mode in ("LA", "RGBA"):
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _upright(picture: "Image", source: "Image") -> "Image":
    """Turned as the camera says; nonsense in its EXIF is no reason to lose the picture."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(source.getexif().get(0x0112, 1))
    except Exception:  # EXIF is parsed lazily, and broken EXIF is common
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _no_picture(data: bytes) -> Result:
    """What the bytes are instead of a picture."""
    for offset, start, kind in _OTHERS:
        if data[offset : offset + len(start)] == start:
            return failed("unsupported format", kind)
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return failed("unsupported format", "SVG")
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return failed("not a picture", "a web page")
    if text.startswith((b"<", b"{", b"[")):
        return failed("not a picture", "a text")
    return failed("not a picture", f"begins with {data[:8]!r}")
