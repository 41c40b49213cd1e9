"""Killed at any moment: the domain is the old or the new one, and going on ends like one run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from picture_shops import files_of, write_pictured
from picture_web import Reply, Request, Web, picture, serving

from utgrec import Domain
from utgrec.data.pictures.fetch import fetch_images
from utgrec.data.pictures.journal import open_workspace
from utgrec.data.pictures.options import ImageOptions
from utgrec.data.pictures.outcomes import Result

PROGRAM = Path(__file__).with_name("fetch_and_die.py")
OPTIONS = ImageOptions(allow_private_addresses=True, workers=1, attempts=1)


def handler(request: Request) -> Reply:
    number = int(request.path.strip("/").partition(".")[0])
    if number % 5 == 4:
        return Reply(status=404 if number % 2 else 500)
    return Reply(picture(number % 9))


def run(folder: Path, how: str, number: int = 0) -> int:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), how, str(number)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    full = how == "room" and "StorageError: cannot write to" in done.stderr
    assert full or done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def web():
    with serving(handler) as found:
        yield found


@pytest.fixture(scope="module")
def whole(web: Web, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], str]:
    """The files and the fingerprint after a run that nobody disturbed."""
    folder = shop(web, tmp_path_factory.mktemp("whole"))
    manifest = fetch_images(folder, OPTIONS)
    return without_manifest(folder), manifest.fingerprint


def shop(web: Web, folder: Path) -> Path:
    return write_pictured(folder / "shop", [web.url(f"/{n}.jpg") for n in range(40)])


def without_manifest(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(folder).items() if name != "domain.json"}


def check(folder: Path, whole: tuple[dict[str, bytes], str], before: dict[str, bytes]) -> None:
    """The old or the new domain, readable at once."""
    assert without_manifest(folder) in (before, whole[0])
    assert len(Domain.open(folder).catalog) == 40


@pytest.mark.parametrize(("how", "number"), [("notes", 1), ("notes", 23), ("notes", 40)])
def test_killed_while_fetching(web: Web, whole, tmp_path: Path, how: str, number: int) -> None:
    folder = shop(web, tmp_path)
    before = without_manifest(folder)
    assert run(folder, how, number) == -signal.SIGKILL
    check(folder, whole, before)
    journal = tmp_path / ".shop.images" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    assert len(lines) == number
    kept = sum('"server error"' not in line for line in lines)  # that one is tried again
    with open(journal, "a") as stream:
        stream.write('["http://half')  # and a torn line, as a kill within a write leaves it
    asked = web.asked.total()
    manifest = fetch_images(folder, OPTIONS)
    assert (without_manifest(folder), manifest.fingerprint) == whole
    assert web.asked.total() - asked == 40 - kept
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_killed_at_a_random_moment(web: Web, whole, tmp_path: Path) -> None:
    rng = random.Random(0)
    folder = shop(web, tmp_path)
    before = without_manifest(folder)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), "end", "0"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.3, 1.5))
        process.kill()
        process.wait()
        check(folder, whole, before)
    manifest = fetch_images(folder, OPTIONS)
    assert (without_manifest(folder), manifest.fingerprint) == whole


@pytest.mark.parametrize("number", [-1, 1])
def test_killed_around_the_swap(web: Web, whole, tmp_path: Path, number: int) -> None:
    """Before the swap there is the old domain, after it the new one."""
    folder = shop(web, tmp_path)
    before = without_manifest(folder)
    # Renames of this process alone: settings.json, domain.json, the swap.
    assert run(folder, "renames", 3 * number) == -signal.SIGKILL
    check(folder, whole, before)
    assert (without_manifest(folder) == before) == (number > 0)
    manifest = fetch_images(folder, OPTIONS)
    assert (without_manifest(folder), manifest.fingerprint) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


@pytest.mark.parametrize("room", [4000, 400])
def test_a_full_disk_half_way(web: Web, whole, tmp_path: Path, room: int) -> None:
    """The journal ends in the middle of a line; with less room no picture fits either."""
    folder = shop(web, tmp_path)
    before = without_manifest(folder)
    assert run(folder, "room", room) == 1
    check(folder, whole, before)
    journal = (tmp_path / ".shop.images" / "journal.jsonl").read_bytes()
    assert len(journal) <= room
    assert room == 400 or (len(journal) == room and not journal.endswith(b"\n"))
    manifest = fetch_images(folder, OPTIONS)
    assert (without_manifest(folder), manifest.fingerprint) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_a_torn_line_costs_no_other(tmp_path: Path) -> None:
    for url in ("http://a/1", "http://a/2"):
        with open_workspace(tmp_path / "shop") as workspace:
            workspace.start(512)
            workspace.note(url, Result("not found"))
        with open(workspace.folder / "journal.jsonl", "a") as stream:
            stream.write('["http://half')
    with open_workspace(tmp_path / "shop") as workspace:
        assert list(workspace.start(512)) == ["http://a/1", "http://a/2"]
    with open_workspace(tmp_path / "shop") as workspace:
        assert workspace.start(256) == {}  # pictures of another size are not mixed in
