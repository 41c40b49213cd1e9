"""Fetching from a server that misbehaves: a named outcome for everything, no more than asked."""

import asyncio
import gzip
import shutil
import time

import pytest
from picture_shops import files_of, outcomes_of, rows_of, write_pictured
from picture_web import Reply, Request, picture, serving

from utgrec import Domain
from utgrec.data.pictures.fetch import fetch_images
from utgrec.data.pictures.options import ImageOptions
from utgrec.data.pictures.outcomes import FINAL, MEANINGS, TEMPORARY
from utgrec.errors import BadConfig, BadTable, SettingsMismatch, StorageError
from utgrec.storage import hash_file

LOCAL = {"allow_private_addresses": True, "workers": 1}
QUICK = {"attempts": 1, "timeout_s": 1.0, "read_timeout_s": 0.4, "connect_timeout_s": 0.4}


def drip(request: Request):
    """A byte now and then, for ever."""

    async def write():
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(1000):
            request.writer.write(b"x")
            await request.writer.drain()
            await asyncio.sleep(0.05)

    return write()


def hang(request: Request):
    async def write():
        await asyncio.sleep(30)

    return write()


def half(request: Request):
    async def write():
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(100))
        await request.writer.drain()

    return write()


def endless(request: Request):
    """Ten gigabytes, made as they are read."""

    async def write():
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        for _ in range(10_000):
            request.writer.write(bytes(1_000_000))
            await request.writer.drain()

    return write()


def endless_chunks(request: Request):
    async def write():
        request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10_000):
            request.writer.write(b"%x\r\n" % 1_000_000 + bytes(1_000_000) + b"\r\n")
            await request.writer.drain()

    return write()


def no_http(request: Request):
    async def write():
        request.writer.write(b"220 smtp.example ESMTP\r\n\r\n")
        await request.writer.drain()

    return write()


def drop(request: Request):
    async def write():
        return None

    return write()


GZIP = (("Content-Encoding", "gzip"),)
ANSWERS = {
    "/good.jpg": (Reply(picture(1)), "stored"),
    "/good.html": (
        Reply(picture(2, kind="PNG"), headers=(("Content-Type", "text/html"),)),
        "stored",
    ),
    "/large.png": (Reply(picture(3, (400, 400), "PNG")), "stored"),  # more than stays in memory
    "/packed.jpg": (Reply(gzip.compress(picture(4)), headers=GZIP), "stored"),
    "/moved.jpg": (Reply(status=302, headers=(("Location", "/good.jpg"),)), "stored"),
    "/page.jpg": (Reply(b"<!doctype html><h1>Sorry</h1>"), "not a picture"),
    "/drawing.svg": (Reply(b"<svg xmlns='x'/>"), "unsupported format"),
    "/cut.jpg": (Reply(picture(5, (60, 60))[:-900]), "broken picture"),
    "/nothing.jpg": (Reply(), "empty"),
    "/many-pixels.png": (Reply(picture(6, (900, 900), "PNG")), "too many pixels"),
    "/packed-bomb.jpg": (Reply(gzip.compress(bytes(50_000_000)), headers=GZIP), "too many bytes"),
    "/packed-cut.jpg": (Reply(gzip.compress(picture(7))[:-300], headers=GZIP), "broken picture"),
    "/packed-odd.jpg": (Reply(b"x", headers=(("Content-Encoding", "br"),)), "bad response"),
    "/loop.jpg": (Reply(status=301, headers=(("Location", "/loop.jpg"),)), "too many redirects"),
    "/nowhere.jpg": (Reply(status=302), "bad redirect"),
    "/to-file.jpg": (Reply(status=302, headers=(("Location", "file:///x"),)), "bad redirect"),
    "/to-user.jpg": (
        Reply(status=302, headers=(("Location", "http://u:p@127.0.0.1/"),)),
        "credentials in address",
    ),
    "/none.jpg": (Reply(status=404), "not found"),
    "/gone.jpg": (Reply(status=410), "not found"),
    "/secret.jpg": (Reply(status=403), "not allowed"),
    "/teapot.jpg": (Reply(status=418), "refused"),
    "/no-content.jpg": (Reply(status=204), "refused"),
    "/broken.jpg": (Reply(status=500), "server error"),
    "/endless.jpg": (endless, "too many bytes"),
    "/endless-chunks.jpg": (endless_chunks, "too many bytes"),
    "/drip.jpg": (drip, "timeout"),
    "/hang.jpg": (hang, "timeout"),
    "/half.jpg": (half, "connection lost"),
    "/drop.jpg": (drop, "connection lost"),
    "/no-http.jpg": (no_http, "bad response"),
}
UNASKED = {
    "file:///etc/passwd": "scheme not allowed",
    "javascript:alert(1)": "scheme not allowed",
    "http://user:secret@127.0.0.1/a.jpg": "credentials in address",
    "http://[::1": "bad address",
    "http://127.0.0.1:1/a.jpg": "connection failed",
    "http://nobody.invalid/a.jpg": "unknown host",
}


def answer(request: Request):
    reply = ANSWERS[request.path][0]
    return reply if isinstance(reply, Reply) else reply(request)


@pytest.fixture(scope="module")
def misbehaved(tmp_path_factory):
    """A domain after a run over everything that can go wrong."""
    folder = tmp_path_factory.mktemp("misbehaved") / "shop"
    options = ImageOptions(max_bytes=3_000_000, max_pixels=700_000, **QUICK, **LOCAL)
    with serving(answer) as web:
        urls = [*map(web.url, ANSWERS), *UNASKED, None]
        write_pictured(folder, urls)
        before = files_of(folder)
        manifest = fetch_images(folder, options)
    return folder, web, before, manifest


def test_everything_gets_its_name(misbehaved):
    folder, web, _, manifest = misbehaved
    wanted = {web.url(path): outcome for path, (_, outcome) in ANSWERS.items()} | UNASKED
    found = outcomes_of(folder)
    assert found.pop(None) == "no address"
    assert found == wanted
    assert sum(manifest.facts["images"]["outcomes"].values()) == len(wanted) + 1
    assert "secret" not in str([row["detail"] for row in rows_of(folder)])


def test_temporary_is_told_from_final(misbehaved):
    for row in rows_of(misbehaved[0]):
        assert row["temporary"] == (row["outcome"] in TEMPORARY)
    assert not set(TEMPORARY) & set(FINAL) and set(TEMPORARY) | set(FINAL) < set(MEANINGS)


def test_the_domain_stays_whole(misbehaved):
    folder, web, before, manifest = misbehaved
    domain = Domain.open(folder)
    assert domain.manifest == manifest
    after = files_of(folder)
    rewritten = {"items.parquet", "domain.json", "image_outcomes.parquet"}
    assert {name: data for name, data in before.items() if name not in rewritten}.items() <= (
        after.items()
    )
    assert {name: hash_file(folder / name) for name in manifest.files} == manifest.files
    pictures = [image for image in domain.catalog.images if image is not None]
    assert len(pictures) == 5 and len(set(pictures)) == 4  # good.jpg and moved.jpg are one
    assert manifest.facts["counts"]["items_with_image"] == 5
    assert [path.name for path in folder.parent.iterdir()] == ["shop"]  # nothing is left behind
    moved = next(row for row in rows_of(folder) if row["url"] == web.url("/moved.jpg"))
    assert moved["final_url"] == web.url("/good.jpg")


def test_limits_cut_the_stream(misbehaved):
    _, web, _, _ = misbehaved
    assert web.asked["/loop.jpg"] == 6  # one and five redirects
    assert web.asked["/endless.jpg"] == web.asked["/endless-chunks.jpg"] == 1


# ------------------------------------------------------------------------------- again and again


def test_a_rerun_repairs_only_what_failed_for_a_while(tmp_path):
    well = False

    def handler(request: Request) -> Reply:
        if request.path == "/sick.jpg" and not well:
            return Reply(status=500)
        return Reply(status=404) if request.path == "/none.jpg" and not well else Reply(picture(1))

    options = ImageOptions(attempts=1, **LOCAL)
    with serving(handler) as web:
        urls = [web.url(path) for path in ("/good.jpg", "/sick.jpg", "/none.jpg")]
        folder = write_pictured(tmp_path / "shop", [*urls, urls[0]])
        first = fetch_images(folder, options)
        assert first.facts["images"]["outcomes"] == {"not found": 1, "server error": 1, "stored": 2}
        assert web.asked["/good.jpg"] == 1  # though two items name it
        well = True
        second = fetch_images(folder, options)
        assert second.facts["images"]["outcomes"] == {"not found": 1, "stored": 3}
        assert web.asked["/good.jpg"] == web.asked["/none.jpg"] == 1
        assert fetch_images(folder, options) == second
        assert web.asked["/none.jpg"] == 1
        third = fetch_images(folder, ImageOptions(retry=("all",), **LOCAL))
        assert third.facts["images"]["outcomes"] == {"stored": 4}
        assert web.asked["/good.jpg"] == 1 and web.asked["/none.jpg"] == 2
        # A picture that is gone, or damaged, is fetched again …
        image = Domain.open(folder).catalog.images[0]
        assert image is not None
        whole = image.read_bytes()
        image.unlink()
        image.write_bytes(b"damaged")
        fourth = fetch_images(folder, options)
        assert image.read_bytes() == whole and fourth.fingerprint == third.fingerprint
        # … and another size is a question, not a mixture.
        with pytest.raises(SettingsMismatch, match="at most 512 pixels, 16 are asked"):
            fetch_images(folder, ImageOptions(max_side=16, **LOCAL))
        small = fetch_images(folder, ImageOptions(max_side=16, refetch=True, **LOCAL))
        assert {row["width"] for row in rows_of(folder)} == {16}
        assert len(small.files) == len(third.files)


def test_local_pictures_stay(tmp_path):
    with serving(lambda request: Reply(picture(1))) as web:
        urls = [web.url("/a.jpg"), web.url("/b.jpg")]
        folder = write_pictured(tmp_path / "shop", urls, ["images/aa/own.png", None])
        for _ in range(2):
            fetch_images(folder, ImageOptions(**LOCAL))
            assert outcomes_of(folder) == {urls[0]: "has a picture", urls[1]: "stored"}
            assert Domain.open(folder).catalog.images[0] == folder / "images/aa/own.png"
        assert web.asked.total() == 1
        fetch_images(folder, ImageOptions(refetch=True, **LOCAL))
        assert outcomes_of(folder)[urls[0]] == "has a picture" and web.asked.total() == 2


def test_temporary_failures_are_tried_again_in_the_same_run(tmp_path):
    def handler(request: Request) -> Reply:
        return Reply(picture(1)) if web.asked[request.path] == 3 else Reply(status=502)

    with serving(handler) as web:
        folder = write_pictured(tmp_path / "shop", [web.url("/a.jpg")])
        manifest = fetch_images(folder, ImageOptions(attempts=3, **LOCAL))
    assert manifest.facts["images"]["outcomes"] == {"stored": 1}


# ------------------------------------------------------------------------------------ politeness


def test_retry_after_is_kept(tmp_path):
    """While a host rests nothing at all is asked of it, by no other connection either."""
    times = []

    def handler(request: Request):
        times.append(time.monotonic())
        if len(times) == 1:
            return Reply(status=429, headers=(("Retry-After", "1"),))
        return slow(len(times))

    async def slow(number: int) -> Reply:
        await asyncio.sleep(0.3 if number == 2 else 0)
        return Reply(picture(number))

    with serving(handler) as web:
        folder = write_pictured(tmp_path / "shop", [web.url(f"/{n}.jpg") for n in range(5)])
        manifest = fetch_images(folder, ImageOptions(per_host=2, **LOCAL))
    assert manifest.facts["images"]["outcomes"] == {"stored": 5}
    assert len(times) == 6 and all(moment - times[0] >= 1 for moment in times[2:])


def test_a_host_that_asks_for_too_long_is_left(tmp_path):
    headers = (("Retry-After", "Fri, 31 Dec 2100 23:59:59 GMT"),)
    with serving(lambda request: Reply(status=503, headers=headers)) as web:
        folder = write_pictured(tmp_path / "shop", [web.url(f"/{n}.jpg") for n in range(40)])
        manifest = fetch_images(folder, ImageOptions(per_host=2, **LOCAL))
    assert manifest.facts["images"]["outcomes"] == {"busy": 40}
    assert web.asked.total() <= 4


def test_no_more_connections_than_allowed(tmp_path):
    async def slow() -> Reply:
        await asyncio.sleep(0.02)
        return Reply(picture(1))

    with serving(lambda request: slow()) as web:
        folder = write_pictured(tmp_path / "shop", [web.url(f"/{n}.jpg") for n in range(40)])
        fetch_images(folder, ImageOptions(per_host=4, **LOCAL))
        assert web.most == 4 and web.asked.total() == 40
        shutil.rmtree(folder)
        write_pictured(folder, [web.url(f"/{n}.jpg") for n in range(12)])
        web.most = 0
        fetch_images(folder, ImageOptions(per_host=8, connections=3, **LOCAL))
        assert web.most == 3


def test_a_dead_host_does_not_hold_up_the_others(tmp_path):
    def handler(request: Request):
        return Reply(picture(1)) if request.path == "/good.jpg" else hang(request)

    options = ImageOptions(per_host=4, **{**QUICK, "read_timeout_s": 0.2}, **LOCAL)
    with serving(handler) as dead, serving(handler) as alive:
        # Two names of one machine are two hosts.
        names = [f"http://localhost:{dead.port}/{n}.jpg" for n in range(60)]
        folder = write_pictured(tmp_path / "shop", [*names, alive.url("/good.jpg")])
        manifest = fetch_images(folder, options)
    outcomes = manifest.facts["images"]["outcomes"]
    assert outcomes["stored"] == 1
    assert outcomes["timeout"] + outcomes["host given up"] == 60
    assert outcomes["timeout"] <= 24 and dead.asked.total() <= 24


# ---------------------------------------------------------------------------------------- errors


def test_a_full_disk_stops_with_a_next_step_and_loses_nothing(tmp_path, monkeypatch):
    from utgrec.data.pictures.journal import Workspace

    with serving(lambda request: Reply(picture(len(request.path)))) as web:
        folder = write_pictured(tmp_path / "shop", [web.url("/" + "x" * n) for n in range(1, 21)])
        before, noted = files_of(folder), []

        def note(self, url, result):
            if len(noted) == 7:
                with journal.writing(self.folder):
                    raise OSError(28, "No space left on device")
            noted.append(url)
            whole(self, url, result)

        from utgrec.data.pictures import journal

        whole = Workspace.note
        with monkeypatch.context() as patch:
            patch.setattr(Workspace, "note", note)
            with pytest.raises(
                StorageError, match=r"No space left on device.*run the same command"
            ):
                fetch_images(folder, ImageOptions(**LOCAL))
        assert files_of(folder) == before
        asked = web.asked.copy()
        manifest = fetch_images(folder, ImageOptions(**LOCAL))
        assert manifest.facts["images"]["outcomes"] == {"stored": 20}
        kept = {"/" + url.rpartition("/")[2] for url in noted}
        assert all(web.asked[path] == asked[path] for path in kept)


def test_what_cannot_begin(tmp_path):
    folder = write_pictured(tmp_path / "shop", ["http://127.0.0.1:1/a.jpg"])
    with pytest.raises(BadTable, match=r"no column 'pictures'.*image_url"):
        fetch_images(folder, ImageOptions(column="pictures"))
    for wrong in ({"retry": ("sometimes",)}, {"per_host": 0}, {"max_pixels": 10**9}):
        with pytest.raises(BadConfig):
            ImageOptions(**wrong)


def test_one_at_a_time(tmp_path):
    from utgrec.data.pictures.journal import open_workspace

    folder = write_pictured(tmp_path / "shop", [None])
    with open_workspace(folder), pytest.raises(StorageError, match="another process"):
        fetch_images(folder)


def test_a_domain_changed_meanwhile_is_left_alone(tmp_path):
    def handler(request: Request) -> Reply:
        write_pictured(folder, [web.url("/a.jpg"), None])
        return Reply(picture(1))

    with serving(handler) as web:
        folder = write_pictured(tmp_path / "shop", [web.url("/a.jpg")])
        with pytest.raises(SettingsMismatch, match="was changed while"):
            fetch_images(folder, ImageOptions(**LOCAL))
        assert len(Domain.open(folder).catalog) == 2
