"""A stage is made once: skipped when it is done, refused when the settings differ."""

import subprocess
import sys

import pytest

from utgrec import stages, storage
from utgrec.errors import SettingsMismatch
from utgrec.stages import StageResult, run_stage


@pytest.fixture
def out(tmp_path):
    """Where the stage goes."""
    return tmp_path / "out"


def run(out, *, config=None, inputs=None, make=None, calls=None):
    """Run a stage that writes one file."""

    def write(work):
        if calls is not None:
            calls.append(work)
        (work.folder / "result").write_text("done")
        return StageResult({"n": 1})

    return run_stage(
        out,
        stage="codes",
        config={"a": {"b": 1, "c": 2}} if config is None else config,
        inputs={"domain x": "1"} if inputs is None else inputs,
        make=make or write,
    )


def times(folder):
    """Modification time of everything in a folder."""
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_the_manifest_says_what_was_made(out):
    manifest = run(out)
    assert manifest == storage.read_manifest(out, "codes")
    assert manifest.facts == {"n": 1}
    assert list(manifest.files) == ["result"]
    assert manifest.measured["peak_memory_mib"] > 1


def test_a_second_call_does_nothing(out):
    calls = []
    first = run(out, calls=calls)
    before = times(out.parent)
    assert run(out, calls=calls) == first
    assert len(calls) == 1
    assert times(out.parent) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": {"a": {"b": 1, "c": 3}}}, r"other settings \(a\.c: 2 there, 3 asked\)"),
        ({"config": {"a": {"b": 1}}}, r"other settings \(a\.c: 2 there, None asked\)"),
        ({"inputs": {"domain x": "2"}}, r"other input \(domain x\)"),
        ({"inputs": {"domain x": "1", "domain y": "1"}}, r"other input \(domain y\)"),
    ],
)
def test_other_settings_are_refused_and_named(out, change, named):
    run(out)
    before = times(out)
    with pytest.raises(SettingsMismatch, match=named):
        run(out, **change)
    assert times(out) == before


def test_an_interrupted_stage_counts_as_absent_and_keeps_its_checkpoints(out):
    def fail(work):
        work.checkpoints.mkdir()
        (work.checkpoints / "step").write_text("7")
        (work.folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out, make=fail)
    assert storage.find_manifest(out, "codes") is None
    assert not out.exists()

    def go_on(work):
        assert (work.checkpoints / "step").read_text() == "7"
        assert list(work.folder.iterdir()) == []
        (work.folder / "result").write_text("done")
        return StageResult({}, earlier_s=100.0)

    manifest = run(out, make=go_on)
    assert 100 <= manifest.measured["wall_s"] < 160
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_folder_without_manifest_is_replaced(out):
    out.mkdir()
    (out / "half").write_text("half")
    run(out)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "result"]


def test_checkpoints_of_a_finished_stage_are_removed_later_too(out):
    """A kill between the last rename and the removal of the checkpoints leaves them behind."""
    run(out)
    work = out.parent / ".out.work"
    work.mkdir()
    (work / "step").write_text("7")
    run(out)
    assert not work.exists()


def test_more_measurements_are_kept_apart_from_facts(out):
    def make(work):
        return StageResult({"n": 1}, measured={"ms_per_user": 0.5})

    manifest = run(out, make=make)
    assert manifest.measured["ms_per_user"] == 0.5
    assert "ms_per_user" not in manifest.facts


def test_peak_memory_is_in_mib():
    # A Python process holds more than 5 MiB and, here, less than 100 GiB: the unit is neither
    # bytes nor KiB nor GiB.
    assert 5 < stages.peak_memory_mib() < 100 * 1024


def test_peak_memory_is_that_of_this_program():
    """A small program started by a large one; `ru_maxrss` would be that of the large one."""
    ballast = bytearray(300 * 2**20)
    code = "from utgrec.stages import peak_memory_mib; print(peak_memory_mib())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert stages.peak_memory_mib() > len(ballast) / 2**20
    assert float(done.stdout) < 200
