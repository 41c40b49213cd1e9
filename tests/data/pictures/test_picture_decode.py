"""What is stored of a picture: upright, RGB, not too large, named by its content."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from picture_web import picture
from PIL import Image

from utgrec.data.pictures.decode import make_uniform, store_picture
from utgrec.data.pictures.outcomes import Result
from utgrec.storage import hash_file

LIMITS = {"max_pixels": 1_000_000, "max_side": 64}


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    """What comes back of a picture."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    made = make_uniform(stream.getvalue(), **LIMITS)
    assert not isinstance(made, Result), made
    found = Image.open(BytesIO(made[0]))
    assert found.format == "JPEG" and found.mode == "RGB"
    assert (found.width, found.height) == (made[1].width, made[1].height)
    assert not found.getexif()
    return found


def near(image: Image.Image, place: tuple[int, int], color: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.array(image.getpixel(place)) - color).max() <= 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_every_format(kind):
    found = stored(Image.new("RGB", (20, 10), (200, 30, 40)), kind)
    assert found.size == (20, 10) and near(found, (5, 5), (200, 30, 40))


@pytest.mark.parametrize(("size", "expected"), [((640, 320), (64, 32)), ((65, 3000), (1, 64))])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_longest_side(kind, size, expected):
    assert stored(Image.new("RGB", size, "teal"), kind).size == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_can_be_seen_through_is_white(mode):
    image = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    image.paste((10, 10, 10, 255), (20, 0, 40, 20))
    found = stored(image.convert(mode) if mode != "P" else image.quantize(4))
    assert near(found, (5, 10), (255, 255, 255)) and near(found, (34, 10), (10, 10, 10))


def test_transparent_color_of_rgb():
    found = stored(Image.new("RGB", (10, 10), (9, 9, 9)), transparency=(9, 9, 9))
    assert near(found, (5, 5), (255, 255, 255))


@pytest.mark.parametrize("mode", ["1", "L", "CMYK"])
def test_other_modes(mode):
    image = Image.new("RGB", (10, 10), "white").convert(mode)
    assert near(stored(image, "JPEG" if mode == "CMYK" else "PNG"), (5, 5), (255, 255, 255))


def test_sixteen_bits_of_grey():
    found = stored(Image.fromarray(np.full((10, 10), 40_000, dtype=np.uint16)))
    assert near(found, (5, 5), (156, 156, 156))


@pytest.mark.parametrize("turn", range(1, 9))
def test_upright(turn):
    """Whatever the camera notes, the red corner is shown where the photographer saw it."""
    seen = Image.new("RGB", (32, 16), "white")
    seen.paste("red", (0, 0, 8, 8))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = turn
    raw = seen.transpose(undo[turn]) if turn in undo else seen
    found = stored(raw, "PNG", exif=exif)
    assert found.size == (32, 16)
    assert near(found, (2, 2), (255, 0, 0)) and near(found, (29, 13), (255, 255, 255))


def test_nonsense_in_exif_costs_nothing():
    data = picture(1)
    broken = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff junk"
    segment = b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken
    made = make_uniform(data[:2] + segment + data[2:], **LIMITS)
    assert not isinstance(made, Result)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims, and holds, very many pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "outcome", "detail"),
    [
        (b"", "empty", ""),
        (bomb(100_000, 100_000), "too many pixels", ""),
        (bomb(1001, 1000), "too many pixels", "1001 × 1000"),
        (b"<!DOCTYPE html><title>404</title>", "not a picture", "a web page"),
        (b"\n\n  <html>", "not a picture", "a web page"),
        (b'{"error": 1}', "not a picture", "a text"),
        (b"<?xml version='1.0'?><svg/>", "unsupported format", "SVG"),
        (b"%PDF-1.7", "unsupported format", "PDF"),
        (b"\x00\x00\x00\x1cftypavif", "unsupported format", "AVIF"),
        (b"II*\x00" + bytes(50), "unsupported format", "TIFF"),
        (b"nothing", "not a picture", "begins with"),
        (picture(2, (60, 60))[:-900], "broken picture", "truncated"),
        (picture(2, (60, 60), "PNG")[:-900], "broken picture", ""),
        (picture(2, (60, 60), "WEBP")[:-900], "broken picture", ""),
    ],
)
def test_what_is_no_picture(tmp_path: Path, data: bytes, outcome: str, detail: str) -> None:
    found = store_picture(data, tmp_path, **LIMITS)
    assert (found.outcome, found.path) == (outcome, None)
    assert detail in found.detail
    assert list(tmp_path.iterdir()) == []


def test_named_by_content_and_written_once(tmp_path: Path) -> None:
    first = store_picture(picture(3), tmp_path, **LIMITS)
    (tmp_path / "large").write_bytes(picture(3))
    again = store_picture(tmp_path / "large", tmp_path, **LIMITS)
    assert first == again and first.path is not None
    path = tmp_path / first.path
    assert hash_file(path) == first.digest and path.stat().st_size == first.size
    assert first.path == f"images/{first.digest[:2]}/{first.digest}.jpg"
    assert (first.source_format, first.source_size) == ("JPEG", len(picture(3)))
    path.write_bytes(b"")  # what a power cut leaves
    assert store_picture(picture(3), tmp_path, **LIMITS) == first
    assert hash_file(path) == first.digest
