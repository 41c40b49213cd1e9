"""The command: files from a mirror, what a dry run lists, the counts of the paper in words."""

import json
import sys
from pathlib import Path

import pytest
from amazon_shop import CATEGORY, as_bytes, some_shop, write
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "download"))

from bad_server import bad_server

from utgrec.cli import app
from utgrec.data.amazon2023 import presets
from utgrec.data.amazon2023.presets import CATEGORIES, PRESETS, find_category


def run(*words, code=0):
    result = CliRunner().invoke(app, ["prepare", "amazon2023", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def mirror():
    reviews, items = some_shop()
    with bad_server() as server:
        server.files = {
            f"/raw/review_categories/{CATEGORY}.jsonl": as_bytes(reviews),
            f"/raw/meta_categories/meta_{CATEGORY}.jsonl": as_bytes(items),
        }
        yield server


def test_from_a_mirror_that_breaks_off_to_a_domain(tmp_path, mirror, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mirror.script = ["drop 5000"]
    shown = run("instrument", "--mirror", mirror.url, "--json")
    facts = json.loads(shown.stdout)["domains"][CATEGORY]
    assert facts["domain"] == f"domains/{CATEGORY}"
    assert facts["read"] == {"items": 40, "interactions": 540}
    place = tmp_path / "amazon2023" / "raw" / "review_categories" / f"{CATEGORY}.jsonl"
    assert place.read_bytes() == mirror.files[f"/raw/review_categories/{CATEGORY}.jsonl"]
    asked = len(mirror.seen)
    again = run("Instrument", "--mirror", mirror.url, "--offline")
    assert len(mirror.seen) == asked
    assert "Not the paper's domain: users" in again.stdout
    inspected = CliRunner().invoke(app, ["inspect", f"domains/{CATEGORY}"])
    assert inspected.exit_code == 0 and "Guitar" in inspected.stdout


def test_a_dry_run_lists_and_writes_nothing(tmp_path, mirror, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = json.loads(run("instrument", "--mirror", mirror.url, "--dry-run", "--json").stdout)
    sizes = {Path(row["path"]).name: row["missing"] for row in listed["files"]}
    assert sizes == {path.rpartition("/")[2]: len(data) for path, data in mirror.files.items()}
    assert list(tmp_path.iterdir()) == []
    assert "unknown size" in run("game", "--mirror", mirror.url, "--dry-run").stdout
    assert "not here" in run("game", "--dry-run", "--offline").stdout


def test_what_is_missing_is_named(tmp_path, mirror, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "lacks Video_Games.jsonl" in run("game", "--offline", code=1).stderr
    assert "answered 404" in run("game", "--mirror", mirror.url, code=1).stderr
    assert "did you mean Musical_Instruments" in run("Musical", "--offline", code=2).stderr
    assert "--mirror is 'nowhere'" in run("game", "--mirror", "nowhere", code=2).stderr
    monkeypatch.setenv("UTGREC_OFFLINE", "1")
    assert "forbids the network" in run("game", code=1).stderr


def test_counts_that_equal_the_papers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "amazon2023", *some_shop())
    found = json.loads(run("instrument", "--offline", "--json").stdout)["domains"][CATEGORY]
    counts = presets.Counts(**found["paper"]["found"])
    changed = tuple(p._replace(counts=counts) if p.category == CATEGORY else p for p in PRESETS)
    monkeypatch.setattr(presets, "PRESETS", changed)
    assert data.is_dir()
    shown = run("instrument", "--offline", "--out", "again").stdout
    assert "training pairs equal the paper's" in shown
    none = found["paper"] | {"stated": None}
    assert none["law"]


def test_the_papers_counts_keep_the_law():
    assert len(PRESETS) == 9 and {preset.category for preset in PRESETS} <= set(CATEGORIES)
    assert sum(preset.role == "pretrain" for preset in PRESETS) == 5
    for preset in PRESETS:
        assert find_category(preset.short) == find_category(preset.category) == preset.category
        if preset.counts is not None:
            counts = preset.counts
            assert counts.training_pairs == counts.interactions - 3 * counts.users
