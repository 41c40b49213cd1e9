"""One file from a server that does what it should not: whole and right in the end, or named."""

import errno
import hashlib
import multiprocessing
import os
import random
import shutil
from types import SimpleNamespace

import httpx2
import pytest
from bad_server import bad_server

from utgrec import storage
from utgrec.data.download import DownloadConfig, Hosts, Wanted, fetch, make_client
from utgrec.errors import BadConfig, CorruptFile, DownloadFailed, StorageError

DATA = random.Random(0).randbytes(300_000)
OTHER = DATA[::-1] + b"!"
QUICK = DownloadConfig(
    attempts=3, read_timeout_s=0.3, first_wait_s=0, longest_wait_s=5, chunk_bytes=1000
)


@pytest.fixture
def server():
    with bad_server() as running:
        running.files["/x.bin"] = DATA
        yield running


class Slept(list):
    """Waits that nobody has to sit through."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        self.now += seconds

    now = 0.0


def get(server, folder, path="/x.bin", config=QUICK, sha256=None, slept=None, progress=None):
    slept = Slept() if slept is None else slept
    hosts = Hosts(2, clock=lambda: slept.now, sleep=slept)
    with make_client(config) as client:
        wanted = Wanted(server.url + path, folder / "sub" / "x.bin", sha256)
        return fetch(client, wanted, hosts, config, progress)


def ranges(server) -> list[str]:
    return [seen.get("Range", "all") for seen in server.seen]


def test_a_file(server, tmp_path):
    told = []
    path = get(server, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == DATA and [p.name for p in path.parent.iterdir()] == ["x.bin"]
    assert told == sorted(told) and told[-1] == (len(DATA), len(DATA))
    assert server.seen[0]["Accept-Encoding"] == "identity"
    assert get(server, tmp_path) == path and len(server.seen) == 1  # never fetched twice


@pytest.mark.parametrize(
    "script",
    [
        ["drop 1000"],
        ["drop 0", "drop 5"],
        ["hang 70000"],
        ["short"],
        ["drop 150000", "drop 100000", "hang 20000"],
        ["status 503", "drop 70000", "status 500", "status 429"],
        ["drop 70000", "lie"],
        ["drop 70000", "change"],
        ["drop 70000", "no range"],
        ["drop 30000"] * 9,  # each brings something: more often than `attempts`
    ],
    ids=lambda script: ", ".join(script[:4]),
)
def test_whole_in_the_end(server, tmp_path, script):
    server.script = list(script)
    path = get(server, tmp_path)
    assert path.read_bytes() == server.files["/x.bin"]
    assert server.script == []
    assert [p.name for p in path.parent.iterdir()] == ["x.bin"]


def test_it_goes_on_where_it_stopped(server, tmp_path):
    server.script = ["drop 100000", "drop 50000"]
    get(server, tmp_path)
    assert ranges(server) == ["all", "bytes=100000-", "bytes=150000-"]
    assert server.seen[1]["If-Range"].strip('"') == hashlib.md5(DATA).hexdigest()


def test_the_next_process_goes_on(server, tmp_path):
    server.script = ["drop 100000", "status 503", "status 503", "status 503"]
    with pytest.raises(
        DownloadFailed, match=r"503.*The 100,000 bytes that came are kept: run it again"
    ):
        get(server, tmp_path)
    assert not (tmp_path / "sub" / "x.bin").exists()
    assert get(server, tmp_path).read_bytes() == DATA
    assert ranges(server)[-1] == "bytes=100000-"


def test_without_ranges_or_tags_it_starts_anew(server, tmp_path):
    server.ranges = False
    server.script = ["drop 100000"]
    assert get(server, tmp_path).read_bytes() == DATA
    (tmp_path / "sub" / "x.bin").unlink()
    server.etags, server.ranges, server.seen = False, True, []
    server.script = ["drop 100000"]
    assert get(server, tmp_path).read_bytes() == DATA
    assert ranges(server) == ["all", "all"]  # nothing says that it is still the same file


def test_chunks_without_length(server, tmp_path):
    server.chunked = True
    server.script = ["short", "ok"]
    assert get(server, tmp_path).read_bytes() == DATA


def test_a_part_of_another_file_is_not_continued(server, tmp_path):
    server.script = ["drop 100000", "status 404"]
    with pytest.raises(DownloadFailed, match="404"):
        get(server, tmp_path)
    server.files["/y.bin"] = OTHER
    assert get(server, tmp_path, "/y.bin").read_bytes() == OTHER


def test_a_part_whose_notes_are_broken_starts_anew(server, tmp_path):
    server.script = ["drop 100000", "status 404"]
    with pytest.raises(DownloadFailed):
        get(server, tmp_path)
    (tmp_path / "sub" / "x.bin.part.json").write_text("{")
    assert get(server, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("script", [["drop 0"] * 9, ["hang 0"] * 9, ["status 502"] * 9])
def test_given_up(server, tmp_path, script):
    server.script = script
    with pytest.raises(DownloadFailed, match=r"could not be fetched: .* tried 3 times in a row"):
        get(server, tmp_path)
    assert not (tmp_path / "sub" / "x.bin").exists()
    assert len(server.seen) <= 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_refused_at_once(server, tmp_path, status):
    server.script = [f"status {status}"] * 3
    with pytest.raises(DownloadFailed, match=f"answered {status} .*name another mirror"):
        get(server, tmp_path)
    assert len(server.seen) == 1


def test_nobody_there(tmp_path, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadFailed, match="ConnectError"):
        get(server, tmp_path)


def test_redirects(server, tmp_path):
    assert get(server, tmp_path, "/to/to/x.bin").read_bytes() == DATA
    (tmp_path / "sub" / "x.bin").unlink()
    with pytest.raises(DownloadFailed, match="is it a loop"):
        get(server, tmp_path, "/loop")
    assert len(server.seen) < 20


def test_other_schemes_are_refused(tmp_path):
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/x", "javascript:alert(1)", "http://"):
        with make_client(QUICK) as client, pytest.raises(DownloadFailed, match="cannot be fetched"):
            fetch(client, Wanted(url, tmp_path / "x"), Hosts(1), QUICK)
    assert not (tmp_path / "x").exists()


def test_from_encrypted_to_plain_is_refused(tmp_path):
    def answer(request):
        if request.url.scheme == "https":
            return httpx2.Response(302, headers={"Location": "http://127.0.0.1/x"})
        return httpx2.Response(200, content=b"x")

    client = httpx2.Client(transport=httpx2.MockTransport(answer), follow_redirects=True)
    with client, pytest.raises(DownloadFailed, match="not encrypted"):
        fetch(client, Wanted("https://127.0.0.1/x", tmp_path / "x"), Hosts(1), QUICK)


# ----------------------------------------------------------------------------------- checksums


def test_checksums_that_fit(server, tmp_path):
    digest = hashlib.sha256(DATA).hexdigest()
    server.headers = {"X-Linked-ETag": f'"{digest}"'}
    assert get(server, tmp_path, "/to/x.bin").read_bytes() == DATA
    (tmp_path / "sub" / "x.bin").unlink()
    assert get(server, tmp_path, sha256=digest.upper()).read_bytes() == DATA


@pytest.mark.parametrize("how", ["header", "told", "digest"])
def test_checksums_that_do_not_fit(server, tmp_path, how):
    wrong = hashlib.sha256(b"other").hexdigest()
    if how == "header":
        server.headers = {"X-Linked-ETag": wrong}
    if how == "digest":
        server.headers = {"Repr-Digest": "sha-256=:2jmj7l5rSw0yVb/vlWAYkK/YBwk=:"}
    with pytest.raises(DownloadFailed, match=r"its SHA-256 is .* published is"):
        get(server, tmp_path, sha256=wrong if how == "told" else None)
    assert list((tmp_path / "sub").iterdir()) == []  # nothing of it is continued


def test_an_encoding_that_nobody_asked_for(server, tmp_path):
    server.headers = {"Content-Encoding": "br"}
    with pytest.raises(DownloadFailed, match="came encoded as br"):
        get(server, tmp_path)


# -------------------------------------------------------------------------------- waits and disk


def test_retry_after_is_obeyed_by_all(server, tmp_path):
    server.script = ["status 429 after 3", "status 503 after 2"]
    slept = Slept()
    get(server, tmp_path, slept=slept)
    assert [round(s, 3) for s in slept] == [3, 2]


def test_a_server_that_asks_for_an_hour_is_given_up(server, tmp_path):
    server.script = ["status 503 after 3600"]
    with pytest.raises(DownloadFailed, match="it asks to wait 3,600 s"):
        get(server, tmp_path)


def test_waits_double_up_to_a_limit(server, tmp_path):
    server.script = ["status 500"] * 7
    slept = Slept()
    config = DownloadConfig(attempts=8, first_wait_s=1, longest_wait_s=5)
    get(server, tmp_path, config=config, slept=slept)
    longest = [2, 4, 5, 5, 5, 5, 5]
    assert all(most / 2 <= s <= most for s, most in zip(slept, longest, strict=True))


def test_a_full_disk_is_named_and_goes_on_later(server, tmp_path, monkeypatch):
    real = os.fsync

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.script = ["drop 100000"]
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"is full .* run it again to go on"):
        get(server, tmp_path)
    monkeypatch.setattr(os, "fsync", real)
    assert get(server, tmp_path).read_bytes() == DATA


def test_no_room_is_known_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match=r"needs 300,000 more bytes, .* has room for 1,000"):
        get(server, tmp_path)


def _hold(path: str, ready, over) -> None:
    import fcntl

    with open(path, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready.set()
        over.wait(20)


def test_two_processes_do_not_write_one_file(server, tmp_path):
    (tmp_path / "sub").mkdir()
    context = multiprocessing.get_context("spawn")
    ready, over = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / "sub" / ".x.bin.lock"), ready, over))
    other.start()
    assert ready.wait(30)
    with pytest.raises(DownloadFailed, match="another process is fetching"):
        get(server, tmp_path)
    over.set()
    other.join()
    assert get(server, tmp_path).read_bytes() == DATA


# ------------------------------------------------------------------------- proxies, certificates


def test_a_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    server.files["http://nowhere.invalid/x.bin"] = DATA
    monkeypatch.setenv("HTTP_PROXY", server.url)
    with make_client(QUICK) as client:
        wanted = Wanted("http://nowhere.invalid/x.bin", tmp_path / "x.bin")
        assert fetch(client, wanted, Hosts(1), QUICK).read_bytes() == DATA
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert get(server, tmp_path).read_bytes() == DATA


def test_certificates_of_the_environment(tmp_path, monkeypatch):
    import ssl

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ssl.get_default_verify_paths().cafile or "/none")
    with make_client(QUICK):
        pass
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(BadConfig, match=r"SSL_CERT_FILE is .* no certificates"):
        make_client(QUICK)


def test_settings_are_checked():
    for wrong in ({"attempts": 0}, {"read_timeout_s": 0}, {"first_wait_s": -1}, {"redirects": -1}):
        with pytest.raises(BadConfig):
            DownloadConfig(**wrong)


def test_notes_are_read_back(tmp_path):
    (tmp_path / "x").write_text("[]")
    assert storage.read_json(tmp_path / "x") == []
    (tmp_path / "x").write_text("{")
    with pytest.raises(CorruptFile):
        storage.read_json(tmp_path / "x")
