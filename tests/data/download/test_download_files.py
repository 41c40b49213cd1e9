"""Several files: some at a time, per host; dry runs write nothing; offline asks nobody."""

import dataclasses
import random

import pytest
from bad_server import bad_server

from utgrec.data.download import DownloadConfig, Hosts, Wanted, download, list_files
from utgrec.errors import DownloadFailed

DATA = {f"/{n}": random.Random(n).randbytes(2000 + n) for n in range(8)}
QUICK = DownloadConfig(attempts=2, read_timeout_s=1, first_wait_s=0)


@pytest.fixture
def server():
    with bad_server() as running:
        running.files = dict(DATA)
        yield running


def wanted(server, folder):
    return [Wanted(server.url + name, folder / name[1:]) for name in DATA]


def test_all_of_them(server, tmp_path):
    server.script = ["drop 500", "status 503", "slow 0", "slow 0", "slow 0", "drop 7"]
    told = []
    # Whichever file meets them, one alone may meet all three that bring it nothing.
    patient = dataclasses.replace(QUICK, attempts=5)
    paths = download(wanted(server, tmp_path), patient, lambda *args: told.append(args))
    assert {path.name: path.read_bytes() for path in paths} == {n[1:]: d for n, d in DATA.items()}
    assert server.busiest <= QUICK.per_host
    work, done, total, note = told[-1]
    assert (work, note) == ("download (MiB)", "8 files") and done == total
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(name[1:] for name in DATA)


def test_more_connections_if_told(server, tmp_path):
    server.script = ["slow 0"] * 8
    download(wanted(server, tmp_path), DownloadConfig(per_host=4))
    assert server.busiest > 2


def test_one_that_fails_is_named_and_the_others_stay(server, tmp_path):
    del server.files["/5"]
    with pytest.raises(DownloadFailed, match="/5: the server answered 404"):
        download(wanted(server, tmp_path), QUICK)
    assert (tmp_path / "0").read_bytes() == DATA["/0"] and not (tmp_path / "5").exists()


def test_a_dry_run_lists_sizes_and_writes_nothing(server, tmp_path):
    (tmp_path / "0").write_bytes(DATA["/0"])
    (tmp_path / "1.part").write_bytes(DATA["/1"][:500])
    server.files["/nohead"] = b"y" * 77
    del server.files["/7"]
    server.headers = {"X-Linked-ETag": "a" * 64}
    before = sorted(tmp_path.iterdir())
    files = [*wanted(server, tmp_path), Wanted(server.url + "/nohead", tmp_path / "n")]
    files.append(Wanted("http://127.0.0.1:1/x", tmp_path / "m"))
    listed = list_files(files, QUICK)
    assert sorted(tmp_path.iterdir()) == before
    assert [each.bytes for each in listed] == [*range(2000, 2007), None, 77, None]
    assert [each.there for each in listed] == [2000, 500, *[0] * 8]
    assert [each.missing for each in listed[:3]] == [0, 1501, 2002]
    assert listed[2].sha256 == "a" * 64
    assert "404" in listed[7].problem and "ConnectError" in listed[9].problem
    assert listed[3].problem is None


@pytest.mark.parametrize("what", [download, list_files])
def test_offline_asks_nobody(server, tmp_path, monkeypatch, what):
    monkeypatch.setenv("UTGREC_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="UTGREC_OFFLINE forbids the network"):
        what(wanted(server, tmp_path), QUICK)
    for name, data in DATA.items():
        (tmp_path / name[1:]).write_bytes(data)
    assert len(what(wanted(server, tmp_path), QUICK)) == 8
    assert server.seen == []


def test_a_pause_holds_for_one_host_only():
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    hosts = Hosts(1, clock=lambda: now[0], sleep=sleep)
    hosts.pause("a", 5)
    hosts.pause("a", 2)
    with hosts.turn("b"):
        assert slept == []
    with hosts.turn("a"):
        assert slept == [5]
