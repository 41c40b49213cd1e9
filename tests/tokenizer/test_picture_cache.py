"""What is computed of pictures once: cached equals uncached, and nothing computed is lost."""

import errno
import logging
import multiprocessing
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import PIXELS, write_model
from small_items import LATENTS, draw_picture

from utgrec import storage
from utgrec.errors import BadConfig, SettingsMismatch, StorageError, WorkerDied
from utgrec.tokenizer import cache as cache_module
from utgrec.tokenizer import picture_reading
from utgrec.tokenizer.backbone import Backbone
from utgrec.tokenizer.backbone_config import MachineSettings, PretrainedBackboneConfig
from utgrec.tokenizer.cache import RowCache, shard_name
from utgrec.tokenizer.latents import PatchPCA
from utgrec.tokenizer.picture_reading import plan_cache, read_pictures
from utgrec.tokenizer.workers import in_workers

PICTURES = 9


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), "qwen2_vl")


def open_backbone(model, **machine):
    low, high = PIXELS["qwen2_vl"]
    settings = PretrainedBackboneConfig(
        name=str(model),
        dtype="bfloat16",
        lora=None,
        min_pixels=low,
        max_pixels=high,
        machine=MachineSettings(**{"workers": 0, **machine}),
    )
    return Backbone(model, settings).eval()


@pytest.fixture(scope="module")
def backbone(model):
    return open_backbone(model)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Pictures of many sizes, two of them the same, and two items without."""
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for number in range(PICTURES):
        found.append(folder / f"{number}.png")
        draw_picture(40 + 9 * number, 90 - 5 * number, seed=number % 8 or 8).save(found[-1])
    (folder / "8.png").write_bytes((folder / "0.png").read_bytes())
    return [*found[:4], None, *found[4:], None]


@pytest.fixture(scope="module")
def pca():
    return PatchPCA.fit([draw_picture(60, 60, seed=7)], LATENTS)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(picture_reading, "AT_ONCE", 2)


@pytest.fixture
def vision(backbone, monkeypatch):
    """Counts the pieces that the vision tower reads; can fail before one of them."""
    seen = {"pieces": 0, "fails_at": -1}
    compute = Backbone.processed_features

    def counted(self, processed):
        if seen["pieces"] == seen["fails_at"]:
            raise KeyboardInterrupt
        seen["pieces"] += 1
        return compute(self, processed)

    monkeypatch.setattr(Backbone, "processed_features", counted)
    return seen


def assert_equal(one, two):
    every = np.arange(len(one.grids))
    # Batches of other sizes round differently in bfloat16.
    torch.testing.assert_close(
        one.features.take(every).float(), two.features.take(every).float(), atol=0.05, rtol=0.05
    )
    for row in every:
        assert len(one.features.take(np.array([row]))) == one.grids[row].prod()
    assert np.array_equal(one.grids, two.grids)
    assert np.array_equal(one.latent_rows >= 0, two.latent_rows >= 0)
    if len(one.latents) and one.latents.shape[2] > 1:
        shown = one.latent_rows >= 0
        torch.testing.assert_close(
            one.latents[one.latent_rows[shown]], two.latents[two.latent_rows[shown]]
        )
    assert one.unreadable == two.unreadable


class TestSameNumbers:
    def test_cached_equals_uncached(self, backbone, paths, pca, tmp_path, vision):
        plain = read_pictures(paths, backbone, pca)
        first = read_pictures(paths, backbone, pca, cache=tmp_path)
        done = vision["pieces"]
        second = read_pictures(paths, backbone, pca, cache=tmp_path)
        assert vision["pieces"] == done  # nothing was computed twice
        assert_equal(first, plain)
        assert_equal(second, plain)
        every = np.arange(len(paths))
        assert torch.equal(first.features.take(every), second.features.take(every))

    def test_other_items_find_what_is_there(self, backbone, paths, pca, tmp_path, vision):
        read_pictures(paths, backbone, pca, cache=tmp_path)
        vision["fails_at"] = vision["pieces"]
        order = [8, 4, 0, 2]
        some = read_pictures([paths[i] for i in order], backbone, pca, cache=tmp_path)
        assert_equal(some, read_all(backbone, paths, pca, order, vision))

    def test_a_picture_met_twice_is_computed_once(self, backbone, paths, tmp_path):
        plan = plan_cache(paths, backbone, None, tmp_path)
        assert plan.pictures == PICTURES - 1

    def test_latents_alone_are_added_without_the_vision_tower(
        self, backbone, paths, pca, tmp_path, vision
    ):
        read_pictures(paths, backbone, None, cache=tmp_path)
        vision["fails_at"] = vision["pieces"]
        both = read_pictures(paths, backbone, pca, cache=tmp_path)
        vision["fails_at"] = -1
        assert_equal(both, read_pictures(paths, backbone, pca))

    def test_workers_change_nothing(self, model, backbone, paths, pca, tmp_path):
        many = open_backbone(model, workers=2)
        assert_equal(read_pictures(paths, many, pca), read_pictures(paths, backbone, pca))
        assert_equal(
            read_pictures(paths, many, pca, cache=tmp_path), read_pictures(paths, backbone, pca)
        )

    def test_few_files_are_mapped_at_once(self, backbone, paths, pca, tmp_path, monkeypatch):
        """A system maps 65,530 files at most; four million pictures are more shards than that."""
        expected = read_pictures(paths, backbone, pca)
        read = read_pictures(paths, backbone, pca, cache=tmp_path)
        files = len(read.features.parts) - 1
        assert files > 2
        monkeypatch.setattr("utgrec.tokenizer.rows.MAPPED", 2)
        mapped, kept = [], RowCache._map
        monkeypatch.setattr(
            RowCache, "_map", lambda self, name: mapped.append(name) or kept(self, name)
        )
        read = read_pictures(paths, backbone, pca, cache=tmp_path)
        assert mapped == []  # before anything is read
        assert_equal(read, expected)
        assert read.features.parts._mapped.cache_info().currsize == 2
        assert len(set(mapped)) >= files

    def test_a_file_that_goes_while_it_is_used_is_named(self, backbone, paths, tmp_path):
        read = read_pictures(paths, backbone, None, cache=tmp_path)
        for path in tmp_path.rglob("*.rows"):
            path.unlink()
        with pytest.raises(StorageError, match="cannot be read any more"):
            read.features.take(np.array([0]))

    def test_rows_stay_on_disk(self, backbone, paths, tmp_path):
        read = read_pictures(paths, backbone, None, cache=tmp_path)
        assert len(read.features.parts) > 2
        assert read.features.dtype == torch.bfloat16
        size = sum(path.stat().st_size for path in tmp_path.rglob("*.rows"))
        tokens = int(read.grids[:8].prod(axis=1).sum() + read.grids[8:].prod(axis=1).sum())
        assert size < tokens * backbone.feature_width * 2 + 1


def read_all(backbone, paths, pca, order, vision):
    vision["fails_at"] = -1
    return read_pictures([paths[i] for i in order], backbone, pca)


class TestBeforehand:
    def test_the_size_is_announced_and_right(self, backbone, paths, pca, tmp_path, caplog):
        plan = plan_cache(paths, backbone, pca, tmp_path)
        with caplog.at_level(logging.INFO):
            read_pictures(paths, backbone, pca, cache=tmp_path)
        assert f"computing 8 of {PICTURES} pictures" in caplog.text
        size = sum(path.stat().st_size for path in tmp_path.rglob("*.rows"))
        assert size == plan.bytes > 0
        assert plan_cache(paths, backbone, pca, tmp_path) == (0, 0)

    def test_it_is_not_filled_beyond_its_limit(self, model, paths, tmp_path, vision):
        small = open_backbone(model, cache_gib=1e-6)
        with pytest.raises(BadConfig, match="beyond its limit of 1e-06 GiB; raise the limit"):
            read_pictures(paths, small, None, cache=tmp_path)
        assert vision["pieces"] == 0

    def test_a_disk_without_room_is_found_before_work_starts(
        self, backbone, paths, tmp_path, vision, monkeypatch
    ):
        usage = type("Usage", (), {"free": 10})
        monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(StorageError, match=r"its disk has 0\.00 GiB left"):
            read_pictures(paths, backbone, None, cache=tmp_path)
        assert vision["pieces"] == 0

    def test_other_settings_have_another_cache(self, model, backbone, paths, pca, tmp_path):
        read_pictures(paths, backbone, pca, cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        other = open_backbone(model)
        other.picture_processor.size = {"shortest_edge": 4 * 28**2, "longest_edge": 6 * 28**2}
        read = read_pictures(paths, other, pca, cache=tmp_path)
        assert read.grids.prod(axis=1).max() <= 6
        assert len(list(tmp_path.iterdir())) == 3

    def test_a_cache_of_other_settings_in_its_place_is_refused(self, tmp_path):
        made = RowCache(tmp_path, "features", {"a": 1}, 4, torch.float32)
        storage.write_json(made.folder / "settings.json", {"a": 2})
        with pytest.raises(SettingsMismatch, match="delete it, and it is made again"):
            RowCache(tmp_path, "features", {"a": 1}, 4, torch.float32)


class TestInterruptions:
    def test_what_was_done_is_kept(self, backbone, paths, pca, tmp_path, vision):
        vision["fails_at"] = 2
        with pytest.raises(KeyboardInterrupt):
            read_pictures(paths, backbone, pca, cache=tmp_path)
        vision["fails_at"] = -1
        assert plan_cache(paths, backbone, pca, tmp_path).pictures == 4
        again = read_pictures(paths, backbone, pca, cache=tmp_path)
        assert vision["pieces"] == 4
        assert_equal(again, read_pictures(paths, backbone, pca))

    def test_a_full_disk(self, backbone, paths, tmp_path, vision, monkeypatch):
        fsync, calls = os.fsync, []

        def full(descriptor):
            calls.append(descriptor)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        RowCache(tmp_path, "features", backbone.describe(), 32, torch.bfloat16)
        monkeypatch.setattr(cache_module.os, "fsync", full)
        with pytest.raises(StorageError, match="the disk is full; what is finished stays"):
            read_pictures(paths, backbone, None, cache=tmp_path)
        monkeypatch.setattr(cache_module.os, "fsync", fsync)
        assert not list(tmp_path.rglob("*.partial"))
        before = vision["pieces"]
        assert_equal(
            read_pictures(paths, backbone, None, cache=tmp_path),
            read_pictures(paths, backbone, None),
        )
        assert before == 3

    @pytest.mark.parametrize("damage", ["rows cut", "rows gone", "index cut"])
    def test_a_broken_shard_is_made_again_and_no_other(
        self, backbone, paths, tmp_path, vision, caplog, damage
    ):
        read_pictures(paths, backbone, None, cache=tmp_path)
        rows, index = (sorted(tmp_path.rglob(f"*{end}"))[1] for end in (".rows", ".safetensors"))
        if damage == "rows cut":
            rows.write_bytes(rows.read_bytes()[:-1])
        elif damage == "rows gone":
            rows.unlink()
        else:
            index.write_bytes(index.read_bytes()[:-5])
        before = vision["pieces"]
        again = read_pictures(paths, backbone, None, cache=tmp_path)
        assert vision["pieces"] == before + 1
        assert "is made again" in caplog.text
        assert_equal(again, read_pictures(paths, backbone, None))

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("cached", [False, True])
    def test_a_broken_picture_in_the_middle(
        self, model, paths, pca, tmp_path, caplog, workers, cached
    ):
        many = open_backbone(model, workers=workers)
        data = Path(paths[2]).read_bytes()
        (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
        (tmp_path / "text.png").write_text("not found")
        draw_picture(600, 2, seed=1).save(tmp_path / "thin.png")  # which the model refuses
        os.mkfifo(tmp_path / "pipe.png")
        names, lost = ("cut.png", "text.png", "no.png", "thin.png", "pipe.png"), [2, 6, 7, 8, 9]
        broken = [*paths]
        for row, name in zip(lost, names, strict=True):
            broken[row] = tmp_path / name
        folder = tmp_path / "cache" if cached else None
        for _ in range(2):
            read = read_pictures(broken, many, pca, cache=folder)
            assert read.unreadable == lost
            rest = [row for row in range(len(paths)) if row not in lost]
            whole = read_pictures(paths, many, pca)
            assert np.array_equal(read.grids[rest], whole.grids[rest])
            assert (read.grids[lost] == 0).all()
            assert len(read.features.take(np.array(lost))) == 0
            assert read.latent_rows[2] == -1
        assert "cut.png" in caplog.text
        assert "thin.png cannot be read by the model (absolute aspect ratio" in caplog.text


class TestSeveralProcesses:
    def start(self, backbone, paths, cache, gate, die_after):
        """A process that waits for the gate, fills the cache, and tells how many pieces it did."""
        told = cache.parent / f"told-{die_after}"

        def work():
            compute, done = backbone.processed_features, 0

            def counted(processed):
                nonlocal done
                if done == die_after:
                    os._exit(9)  # as if killed, with locks held
                done += 1
                time.sleep(0.05)
                return compute(processed)

            backbone.processed_features = counted
            gate.wait()
            read_pictures(paths, backbone, None, cache=cache)
            told.write_text(str(done))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
        return process, told

    def test_they_share_the_work_and_survive_one_that_dies(self, backbone, paths, tmp_path):
        gate, cache = multiprocessing.get_context("fork").Event(), tmp_path / "cache"
        dead, _ = self.start(backbone, paths, cache, gate, die_after=1)
        two = [self.start(backbone, paths, cache, gate, die_after) for die_after in (90, 91)]
        gate.set()
        for process, _ in ((dead, None), *two):
            process.join(timeout=60)
        shares = [int(told.read_text()) for _, told in two]
        # Four pieces, none of them done twice; the dead one finished one of them at most.
        assert len(list(cache.rglob("*.index.safetensors"))) == 4
        assert sum(shares) in (3, 4)
        assert min(shares) >= 1
        assert_equal(
            read_pictures(paths, backbone, None, cache=cache),
            read_pictures(paths, backbone, None),
        )


def test_a_worker_that_dies_is_named():
    def fail(number):
        if number == 3:
            os._exit(1)
        return number

    with pytest.raises(WorkerDied, match="use fewer workers"):
        list(in_workers(fail, range(10), 2))


def test_workers_keep_the_order_and_pass_errors_on():
    assert list(in_workers(lambda x: x * x, range(50), 2)) == [x * x for x in range(50)]

    def refuse(number):
        raise ValueError(f"no {number}")

    with pytest.raises(ValueError, match="no 0"):
        list(in_workers(refuse, range(5), 2))


def test_shards_are_named_by_what_they_hold():
    one, two = b"a" * 32, b"b" * 32
    assert shard_name([one]) != shard_name([two]) != shard_name([one, two])
