"""A folder is whole or absent, at whatever moment its writer stops."""

import dataclasses
import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors import SafetensorError

from utgrec import exchange, storage
from utgrec.errors import CorruptFile, FormatVersionError, MissingStage, StorageError


def names(folder):
    """Everything in a folder, hidden things included."""
    return sorted(path.name for path in folder.iterdir())


def left_by(name, process=4_194_304, thread=None, machine=None):
    """The name of what a writer leaves behind; Linux gives no process so large a number."""
    machine = storage._machine() if machine is None else machine
    return f".{name}.{machine}-{process}-{thread or process}.partial"


def in_child(work):
    """Do something in a process of its own; its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def make(folder, text="new"):
    """Write a folder with one file."""
    with storage.new_folder(folder) as partial:
        (partial / "file").write_text(text)


def finish(folder, **changes):
    """Write a finished stage of two files."""
    values = {"stage": "codes", "config": {"a": 1}, "inputs": {"x": "1"}, **changes}
    with storage.new_folder(folder) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "b.txt").write_text("b")
        (partial / "a.txt").write_text("a")
        return storage.write_manifest(partial, **values)


class TestNewFolder:
    def test_the_folder_appears_when_the_block_ends(self, tmp_path):
        with storage.new_folder(tmp_path / "deep" / "out") as partial:
            (partial / "file").write_text("new")
            assert not (tmp_path / "deep" / "out").exists()
        assert (tmp_path / "deep" / "out" / "file").read_text() == "new"
        assert names(tmp_path / "deep") == ["out"]

    def test_an_error_leaves_nothing(self, tmp_path):
        with pytest.raises(RuntimeError), storage.new_folder(tmp_path / "out") as partial:
            (partial / "file").write_text("new")
            raise RuntimeError
        assert names(tmp_path) == []

    def test_an_error_leaves_what_was_there(self, tmp_path):
        make(tmp_path / "out", "old")
        with pytest.raises(RuntimeError), storage.new_folder(tmp_path / "out") as partial:
            (partial / "file").write_text("new")
            raise RuntimeError
        assert names(tmp_path) == ["out"]
        assert (tmp_path / "out" / "file").read_text() == "old"

    def test_what_was_there_is_replaced_as_a_whole(self, tmp_path):
        make(tmp_path / "out", "old")
        (tmp_path / "out" / "extra").write_text("old")
        make(tmp_path / "out")
        assert names(tmp_path) == ["out"]
        assert names(tmp_path / "out") == ["file"]
        assert (tmp_path / "out" / "file").read_text() == "new"

    @pytest.mark.parametrize("calls", [1, 2])
    def test_a_stop_between_the_renames_loses_nothing(self, tmp_path, monkeypatch, calls):
        """Stop before the first and before the second rename: the old folder can be had back."""
        make(tmp_path / "out", "old")
        monkeypatch.setattr(exchange, "swap", lambda one, other: False)  # a system without it
        replace, left = os.replace, [calls]

        def stop(source, target):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "out")
        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(RuntimeError), storage.new_folder(tmp_path / "out"):
            raise RuntimeError  # a later attempt that fails too
        assert names(tmp_path) == ["out"]
        assert (tmp_path / "out" / "file").read_text() == "old"

    def test_what_killed_runs_left_behind_is_removed(self, tmp_path):
        # The brackets would be a pattern if the name were not escaped.
        for stale in (left_by("a[b]"), ".a[b].replaced"):
            (tmp_path / stale).mkdir()
        others = [left_by("a"), left_by("a[b].json"), left_by("ab")]
        for other in others:
            (tmp_path / other).mkdir()
        (tmp_path / "a[b]").mkdir()
        make(tmp_path / "a[b]")
        assert names(tmp_path) == sorted([*others, "a[b]"])

    def test_a_change_of_directory_inside_does_not_matter(self, tmp_path, monkeypatch):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        from pathlib import Path

        with storage.new_folder(Path("out")) as partial:
            monkeypatch.chdir(tmp_path / "elsewhere")
            (partial / "file").write_text("new")
        assert (tmp_path / "out" / "file").is_file()


class TestFiles:
    def test_json_comes_back_in_order_and_readable(self, tmp_path):
        value = {"z": [1, 2.5, None, True], "a": {"ü": "茶"}}
        storage.write_json(tmp_path / "x.json", value)
        assert storage.read_json(tmp_path / "x.json") == value
        text = (tmp_path / "x.json").read_text(encoding="utf-8")
        assert text.index('"z"') < text.index('"a"')
        assert "茶" in text
        assert names(tmp_path) == ["x.json"]

    def test_not_a_number_is_refused_and_the_old_file_stays(self, tmp_path):
        storage.write_json(tmp_path / "x.json", 1)
        with pytest.raises(ValueError, match="JSON"):
            storage.write_json(tmp_path / "x.json", float("nan"))
        assert storage.read_json(tmp_path / "x.json") == 1

    def test_a_stop_before_the_rename_keeps_the_old_file(self, tmp_path, monkeypatch):
        storage.write_text(tmp_path / "x", "old")
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            storage.write_text(tmp_path / "x", "new")
        assert (tmp_path / "x").read_text() == "old"

    def test_what_killed_runs_left_behind_is_removed(self, tmp_path):
        for stale in (left_by("x[1].json"), left_by("x1.json")):
            (tmp_path / stale).write_text("half")
        storage.write_json(tmp_path / "x[1].json", 1)
        assert names(tmp_path) == [left_by("x1.json"), "x[1].json"]

    def test_whose_number_is_ours_now_has_left_it_behind(self, tmp_path):
        """A process that starts again in a container often has the number of the one before."""
        (tmp_path / left_by("x", os.getpid())).write_text("half")
        storage.write_text(tmp_path / "x", "whole")
        assert names(tmp_path) == ["x"]

    def test_another_machine_may_be_at_work_until_it_is_quiet_for_long(self, tmp_path):
        other = tmp_path / left_by("x", machine="elsewhere")
        other.write_text("half")
        storage.write_text(tmp_path / "x", "whole")
        assert other.is_file()
        long_ago = time.time() - storage.ELSEWHERE_S - 1
        os.utime(other, (long_ago, long_ago))
        storage.write_text(tmp_path / "x", "whole")
        assert names(tmp_path) == ["x"]

    def test_many_writers_of_one_file_and_one_folder_do_not_disturb_each_other(self, tmp_path):
        """Threads of several processes write the same names again and again; none fails."""

        def work(number):
            for turn in range(60):
                storage.write_json(tmp_path / "x.json", [number, turn])
                with storage.new_file(tmp_path / "y") as partial:
                    partial.write_text("whole")

        def threads(number):
            with ThreadPoolExecutor(3) as pool:
                list(pool.map(work, range(10 * number, 10 * number + 3)))

        children = [in_child(lambda number=number: threads(number)) for number in range(3)]
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        assert storage.read_json(tmp_path / "x.json")[1] == 59
        assert names(tmp_path) == ["x.json", "y"]

    def test_a_folder_on_its_way_is_not_taken_for_a_leftover(self, tmp_path):
        with storage.new_folder(tmp_path / "out") as partial:
            (partial / "file").write_text("first")
            child = in_child(lambda: make(tmp_path / "out", "second"))
            assert os.waitpid(child, 0)[1] == 0
            assert (partial / "file").read_text() == "first"
        assert (tmp_path / "out" / "file").read_text() == "first"
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}"])
    def test_broken_json_is_named(self, tmp_path, content):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(CorruptFile, match=r"x\.json is not valid JSON"):
            storage.read_json(tmp_path / "x.json")


class TestManifest:
    def test_it_comes_back(self, tmp_path):
        written = finish(tmp_path / "out", facts={"n": 1}, measured={"wall_s": 0.5})
        assert storage.read_manifest(tmp_path / "out", "codes") == written
        assert storage.find_manifest(tmp_path / "out", "codes") == written

    def test_it_names_every_file_but_itself_and_hidden_ones(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / ".hidden").write_text("x")
        (tmp_path / "out" / "a").write_text("")
        manifest = storage.write_manifest(tmp_path / "out", stage="codes", config={}, inputs={})
        # The SHA-256 of nothing is well known.
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        assert manifest.files == {"a": empty}
        again = storage.write_manifest(tmp_path / "out", stage="codes", config={}, inputs={})
        assert again == manifest

    def test_files_in_folders_have_portable_names(self, tmp_path):
        assert list(finish(tmp_path / "out").files) == ["a.txt", "sub/b.txt"]

    def test_a_folder_without_it_counts_as_absent(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "weights").write_text("x")
        for folder in (tmp_path / "out", tmp_path / "nowhere"):
            assert storage.find_manifest(folder, "codes") is None
            with pytest.raises(MissingStage, match=f"{folder} holds no finished codes"):
                storage.read_manifest(folder, "codes")

    def test_another_stage_is_refused(self, tmp_path):
        finish(tmp_path / "out")
        with pytest.raises(StorageError, match="holds a 'codes', not a 'tokenizer'"):
            storage.find_manifest(tmp_path / "out", "tokenizer")

    def test_another_format_version_is_refused_whatever_else_it_holds(self, tmp_path):
        finish(tmp_path / "out")
        path = tmp_path / "out" / "manifest.json"
        path.write_text(json.dumps({"format_version": 99, "new": 1, "package_version": "9.9"}))
        with pytest.raises(FormatVersionError, match=r"99.*reads version 1.*\(9\.9\)"):
            storage.read_manifest(tmp_path / "out", "codes")

    @pytest.mark.parametrize("change", [{"unknown": 1}, {"files": None}, None])
    def test_what_is_no_manifest_is_refused(self, tmp_path, change):
        finish(tmp_path / "out")
        path = tmp_path / "out" / "manifest.json"
        values = json.loads(path.read_text())
        if change is None:
            values = [values]
        elif "files" in change:
            del values["files"]
        else:
            values |= change
        path.write_text(json.dumps(values))
        with pytest.raises(CorruptFile, match="is not a manifest"):
            storage.read_manifest(tmp_path / "out", "codes")


class TestFingerprints:
    def test_content_only(self, tmp_path):
        first = finish(tmp_path / "a")
        second = finish(tmp_path / "b", measured={"wall_s": 9.0}, facts={"n": 2}, config={"a": 2})
        assert first.fingerprint == second.fingerprint
        (tmp_path / "b" / "a.txt").write_text("changed")
        third = storage.write_manifest(tmp_path / "b", stage="codes", config={}, inputs={})
        assert third.fingerprint != first.fingerprint
        assert dataclasses.replace(first, stage="other").fingerprint != first.fingerprint

    def test_what_it_was_made_from_only(self, tmp_path):
        manifest = finish(tmp_path / "a")
        asked = storage.recipe_fingerprint
        assert manifest.recipe_fingerprint == asked("codes", {"a": 1}, {"x": "1"})
        others = [
            asked("other", {"a": 1}, {"x": "1"}),
            asked("codes", {"a": 2}, {"x": "1"}),
            asked("codes", {"a": 1}, {"x": "2"}),
            asked("codes", {"a": 1}, {"y": "1"}),
        ]
        assert manifest.recipe_fingerprint not in others


class TestCheckFile:
    def test_the_file_that_was_written(self, tmp_path):
        manifest = finish(tmp_path / "out")
        path = storage.check_file(tmp_path / "out", manifest, "sub/b.txt")
        assert path.read_text() == "b"

    def test_a_changed_a_missing_and_a_foreign_file(self, tmp_path):
        manifest = finish(tmp_path / "out")
        (tmp_path / "out" / "a.txt").write_text("A")
        (tmp_path / "out" / "foreign").write_text("x")
        (tmp_path / "out" / "sub" / "b.txt").unlink()
        for name, complaint in (
            ("a.txt", "is not the file its manifest names"),
            ("foreign", "is not the file its manifest names"),
            ("sub/b.txt", "is missing"),
        ):
            with pytest.raises(CorruptFile, match=complaint):
                storage.check_file(tmp_path / "out", manifest, name)


class TestFullDisk:
    """Whatever is written, a full disk is named, nothing half stays, and the old stays whole."""

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            SafetensorError("Error: I/O error: No space left on device (os error 28)"),
            OSError("No space left on device (os error 28)"),  # as Polars says it: no number
        ],
    )
    def test_files_and_folders(self, tmp_path, error):
        storage.write_text(tmp_path / "a.txt", "old")
        with (
            pytest.raises(StorageError, match=r"the disk of .* is full .* run the same command"),
            storage.new_file(tmp_path / "a.txt") as partial,
        ):
            partial.write_text("half")
            raise error
        with (
            pytest.raises(StorageError, match=r"the disk of .* is full"),
            storage.new_folder(tmp_path / "folder") as partial,
        ):
            (partial / "b.txt").write_text("half")
            raise error
        assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
        assert (tmp_path / "a.txt").read_text() == "old"

    @pytest.mark.parametrize(
        "error", [OSError(errno.EFBIG, "File too large"), OSError("File too large (os error 27)")]
    )
    def test_a_limit_on_the_size_of_files(self, tmp_path, error):
        with (
            pytest.raises(StorageError, match=r"largest size allowed there .*ulimit.*run the same"),
            storage.new_file(tmp_path / "a.txt"),
        ):
            raise error
        assert list(tmp_path.iterdir()) == []

    def test_who_knows_better_what_to_do_says_so(self, tmp_path):
        with (
            pytest.raises(StorageError, match=r"is full \(no room\); nothing is left") as caught,
            storage.room(tmp_path, "nothing is left"),
            storage.new_folder(tmp_path / "folder"),
        ):
            raise OSError(errno.ENOSPC, "no room")
        assert "run the same command" not in str(caught.value)

    def test_other_errors_stay_what_they_are(self, tmp_path):
        with pytest.raises(OSError, match="denied"), storage.new_file(tmp_path / "a.txt"):
            raise OSError(errno.EACCES, "denied")
        with pytest.raises(SafetensorError), storage.new_folder(tmp_path / "folder"):
            raise SafetensorError("no such tensor")
