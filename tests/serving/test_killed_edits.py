"""Whatever moment a change is killed at: the last complete generation serves, and nothing is lost.

Deaths between two steps on one file are all covered by those before each operation on a file.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_shops import FakeCoder

from utgrec.serving.changes import CatalogEditor
from utgrec.serving.generations import GenerationStore
from utgrec.serving.pruning import prune

CHANGES = ("add", "replace", "remove", "activate", "rollback", "prune")
BEFORE = [*(f"i{number}" for number in range(6)), "older", "old"]


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """Change → every process that was killed at it, and the one that was not."""
    here = Path(__file__).parent
    folder = tmp_path_factory.mktemp("killed")
    paths = [str(here), str(here.parent), *sys.path]
    done = subprocess.run(
        [sys.executable, str(here / "killed_edits.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        attempt = json.loads(line)
        found.setdefault(attempt["change"], []).append(attempt)
    return found


def live(store):
    generation = store.open()
    rows = generation.rows
    return [i for i, on in zip(generation.catalog.item_ids, rows.live, strict=True) if on]


def title(store, item_id):
    catalog = store.open().catalog
    return catalog[catalog.index_of(item_id)].title if item_id in catalog else None


def acknowledged(attempt):
    run = Path(attempt["run"])
    return run.with_name(f"acknowledged-{run.name}").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_every_moment_was_tried(attempts, change):
    killed = [attempt["killed"] for attempt in attempts[change]]
    assert killed == [True] * (len(killed) - 1) + [False]
    least = {"add": 15, "replace": 10, "remove": 10, "activate": 3, "rollback": 3, "prune": 3}
    assert len(killed) >= least[change]


@pytest.mark.parametrize(
    ("change", "is_done"),
    [
        ("add", lambda store: live(store) == [*BEFORE, "new"]),
        ("replace", lambda store: title(store, "old") == "another"),
        ("remove", lambda store: "old" not in live(store)),
        ("activate", lambda store: store.current == 1),
        ("rollback", lambda store: store.current == 3),
        ("prune", lambda store: store.numbers == [1, 3, 4]),
    ],
)
def test_a_change_is_done_or_not_and_what_was_answered_is_done(attempts, change, is_done):
    done = []
    for attempt in attempts[change]:
        store = GenerationStore(attempt["run"])
        done.append(is_done(store))
        if not done[-1]:
            assert not acknowledged(attempt)
            assert (live(store), title(store, "old"), store.current) == (BEFORE, "old", 4)
        codes = store.open().rows.codes
        assert len({row.tobytes() for row in codes}) == len(codes)
    assert done == sorted(done)  # once it is done, it stays done
    assert done[-1] and not done[0]


@pytest.mark.parametrize("change", CHANGES)
def test_it_can_be_done_again_and_leaves_nothing_behind(attempts, change):
    for attempt in attempts[change]:
        store = GenerationStore(attempt["run"])
        store.activate(max(store.numbers))
        editor = CatalogEditor(store, FakeCoder())
        if "new" in live(store):
            editor.remove(["new"])
        editor.add([{"item_id": "new", "title": "new"}])
        assert "new" in live(store)
        prune(store, 1, old_s=-1)
        assert len(store.numbers) <= 3
        hidden = {path.name for path in store.folder.rglob(".*")}
        assert hidden <= {".lock"}, hidden
