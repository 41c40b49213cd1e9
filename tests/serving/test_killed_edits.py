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


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """Every process that was killed, and the one that was not."""
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
    return [json.loads(line) for line in done.stdout.splitlines()]


def live(store):
    generation = store.open()
    rows = generation.rows
    return [i for i, on in zip(generation.catalog.item_ids, rows.live, strict=True) if on]


def test_every_moment_was_tried(attempts):
    assert [attempt["killed"] for attempt in attempts] == [True] * (len(attempts) - 1) + [False]
    assert len(attempts) > 10


def test_the_last_complete_generation_serves_and_the_change_can_be_done_again(attempts):
    before = [*(f"i{number}" for number in range(6)), "old"]
    served = []
    for attempt in attempts:
        run = Path(attempt["run"])
        store = GenerationStore(run)
        found = live(store)
        served.append(found == [*before, "new"])
        assert found in (before, [*before, "new"])
        assert served[-1] or not run.with_name(run.name.replace("run", "acknowledged")).exists()
        codes = {row.tobytes() for row in store.open().rows.codes}
        assert len(codes) == len(store.open().rows.codes)
        editor = CatalogEditor(store, FakeCoder())
        if served[-1]:
            editor.remove(["new"])
        editor.add([{"item_id": "new", "title": "new"}])
        assert live(store) == [*before, "new"]
        hidden = {path.name for path in store.folder.rglob(".*")}
        assert not any(name.startswith(".0000") or name.startswith(".CURRENT") for name in hidden)
    assert served == sorted(served)  # once it serves, it serves
    assert served[-1] and not served[0]
