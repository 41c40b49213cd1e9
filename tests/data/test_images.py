"""Pictures: decoded in full, stored under their content, never outside the source folder."""

import hashlib
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shop_files import picture

from utgrec.data.images import check_image, hash_images, is_url, pictures_by_id, store_images
from utgrec.errors import BadImage

LIMIT = 1000


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be very large and holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"\x00\x00\x00\x00IEND\xaeB`\x82"
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)
    return head + body + struct.pack(">I", zlib.crc32(body)) + end


def noise(kind: str) -> bytes:
    """A picture that does not compress, so that its end is pixels and not a header."""
    stream = BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (30, 30, 3)).astype(np.uint8)
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "bmp")],
)
def test_the_ending_comes_from_the_content(tmp_path: Path, kind: str, ending: str) -> None:
    data = picture(kind=kind)
    (tmp_path / "wrong.txt").write_bytes(data)
    stored = store_images(tmp_path, ["wrong.txt"], tmp_path / "out", max_pixels=LIMIT)["wrong.txt"]
    digest = hashlib.sha256(data).hexdigest()
    assert stored == (digest, f"images/{digest[:2]}/{digest}.{ending}", None)
    assert (tmp_path / "out" / str(stored.path)).read_bytes() == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be decoded"),
        (b"<svg/>", "cannot be decoded"),
        (picture(kind="TIFF"), "cannot be decoded"),
        (noise("JPEG")[:-200], "cannot be decoded as .*truncated"),
        (noise("PNG")[:-200], "cannot be decoded"),
        (picture(size=(40, 40)), "40 × 40 pixels"),
        (png_header(5_000, 5_000), "5000 × 5000 pixels are more"),
        (png_header(9_000, 11_000), "more pixels than the 1,000 allowed"),  # Pillow warns
        (png_header(30_000, 30_000), "more pixels than the 1,000 allowed"),  # Pillow refuses
    ],
)
def test_bad_pictures(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    stored = store_images(tmp_path, ["a.png"], tmp_path / "out", max_pixels=LIMIT)["a.png"]
    assert stored.path is None
    assert stored.problem is not None
    with pytest.raises(BadImage, match=message):
        raise BadImage(stored.problem)
    assert not (tmp_path / "out").exists()


def test_the_limit_itself_is_allowed() -> None:
    assert check_image(picture(size=(25, 40)), 1000) == "png"
    with pytest.raises(BadImage, match="25 × 41 pixels are more than the 1,000 allowed"):
        check_image(picture(size=(25, 41)), 1000)


def test_paths_that_leave_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture())
    (source / "ok.png").write_bytes(picture())
    (source / "link.png").symlink_to(tmp_path / "secret.png")
    (source / "loop.png").symlink_to(source / "loop.png")
    (source / "inside.png").symlink_to(source / "ok.png")
    (source / "up").symlink_to(tmp_path)
    bad = [
        "../secret.png",
        "inner/../../secret.png",
        "inner/../ok.png",
        "..\\secret.png",
        str(tmp_path / "secret.png"),
        "C:\\secret.png",
        "link.png",
        "up/secret.png",
        "loop.png",
        "inner",
        "none.png",
        "nul\x00.png",
        "n" * 5000,
    ]
    names = [*bad, "ok.png", "inside.png"]
    stored = store_images(source, names, tmp_path / "out", max_pixels=LIMIT)
    assert [name for name in bad if stored[name].path is not None] == []
    assert stored["ok.png"].path is not None
    assert stored["inside.png"].path == stored["ok.png"].path
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 1


def test_hashes_are_those_of_storing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "b.png").write_bytes(b"broken")
    names = ["a.png", "b.png", "none.png", "../c.png"]
    stored = store_images(tmp_path, names, tmp_path / "out", max_pixels=LIMIT)
    assert hash_images(tmp_path, names, LIMIT) == {name: stored[name].digest for name in names}


def test_pictures_by_id_only_for_safe_names(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("A1.jpg", "A2.PNG", "B.txt", "C.png", "C.jpg"):
        (folder / name).write_bytes(b"")
    ids = ["A1", "A2", "B", "C", "a1", "../A1", "x/y", "é", "n" * 400, ".", ""]
    found = pictures_by_id(folder, ids)
    assert found == ["images/A1.jpg", "images/A2.PNG", None, "images/C.jpg", *[None] * 7]
    assert pictures_by_id(tmp_path / "none", ids) == [None] * len(ids)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("javascript:alert(1)", "has the scheme 'javascript'; name a path .*http or https"),
        ("file:///etc/passwd", "has the scheme 'file'"),
        ("C:/pictures/a.png", "leads outside the source folder"),
        ("gone.png", "is no file of the source folder; copy the picture there"),
    ],
)
def test_what_is_no_path_says_what_it_is(tmp_path: Path, reference: str, message: str) -> None:
    (stored,) = store_images(tmp_path, [reference], tmp_path / "out", max_pixels=LIMIT).values()
    with pytest.raises(BadImage, match=message):
        raise BadImage(stored.problem)


def test_the_scheme_of_an_address_may_be_written_in_any_case() -> None:
    assert all(is_url(text) for text in ("HTTP://a/b.jpg", "hTTps://a/b.jpg", "//a/b.jpg"))
    assert not any(is_url(text) for text in ("http:a", "images/http://a", "httpx://a", "/a"))
