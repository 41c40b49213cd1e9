"""Bulk encoding: the same codes however it is cut, stopped, ordered or shared out."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_items import TEXTS, draw_picture, small_config, write_pictures, write_small_domain

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.errors import BadTable, InputError, SettingsMismatch, StorageError
from utgrec.tokenizer import bulk, pretrained
from utgrec.tokenizer.backbone import Backbone
from utgrec.tokenizer.bulk_workers import BulkSettings, encode_items
from utgrec.tokenizer.pretrained import ItemTokenizer
from utgrec.tokenizer.train import train_tokenizer

COUNT = 60


class Killed(Exception):
    """What stands for a kill."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """A tokenizer that was trained for a moment."""
    folder = tmp_path_factory.mktemp("bulk")
    domain = write_small_domain(folder / "shop", [[0, 1, 3, 2, 7], [4, 6, 0, 1], [3, 2, 7, 4]])
    train_tokenizer([Domain.open(domain)], small_config(), folder / "tokenizer")
    return folder / "tokenizer"


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Sixty items in two files of small row groups; a broken picture, a lost one, one outside."""
    folder = tmp_path_factory.mktemp("items")
    pictures = [path and f"pictures/{path.name}" for path in write_pictures(folder / "pictures")]
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    rng = np.random.default_rng(0)
    texts = [f"{TEXTS[row % 8]} {rng.integers(1000)}" for row in range(COUNT)]
    texts[9] = None
    images = [pictures[row % 8] for row in range(COUNT)]
    draw_picture(600, 2, seed=1).save(folder / "pictures" / "thin.png")  # the model refuses it
    images[11], images[23], images[40] = "pictures/broken.png", "pictures/lost.png", "../x.png"
    images[44], images[51] = "pictures/thin.png", "pictures/\0.png"
    table = pa.table(
        {
            "item_id": [f"i{row}" for row in range(COUNT)],
            "price": pa.array(range(COUNT)),  # a column that nobody reads
            "text": texts,
            "image": images,
        }
    )
    pq.write_table(table[:37], folder / "a.parquet", row_group_size=10)
    pq.write_table(table[37:], folder / "b.parquet", row_group_size=7)
    return folder


def read(out: Path) -> dict[str, tuple[int, ...]]:
    """The codes of every item."""
    tables = [pq.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    table = pa.concat_tables(tables)
    rows = zip(table["item_id"].to_pylist(), table["codes"].to_pylist(), strict=True)
    return {item: tuple(codes) for item, codes in rows}


@pytest.fixture(scope="module")
def whole(tokenizer, shop, tmp_path_factory) -> Path:
    """All items in one pass."""
    out = tmp_path_factory.mktemp("whole") / "codes"
    encode_items(tokenizer, shop, out)
    return out


def test_shards_in_any_cut_are_one_pass(tokenizer, shop, whole, tmp_path):
    for number, (rows, at_once) in enumerate([(1, 7), (13, 5), (25, 100)]):
        out = tmp_path / str(number)
        made = encode_items(tokenizer, shop, out, BulkSettings(shard_rows=rows, at_once=at_once))
        assert read(out) == read(whole)
        assert made.facts["shards"] == -(-37 // rows) + -(-23 // rows)
        assert max(pq.read_metadata(path).num_rows for path in out.glob("part-*")) <= rows


def test_another_order_gives_the_same_codes(tokenizer, shop, whole, tmp_path):
    table = pa.concat_tables([pq.read_table(shop / name) for name in ("a.parquet", "b.parquet")])
    order = np.random.default_rng(1).permutation(COUNT)
    pq.write_table(table.take(order), tmp_path / "mixed.parquet")
    settings = BulkSettings(at_once=11, images=shop)
    encode_items(tokenizer, tmp_path / "mixed.parquet", tmp_path / "out", settings)
    assert read(tmp_path / "out") == read(whole)


def test_codes_are_those_of_encode(tokenizer, shop, whole):
    opened = ItemTokenizer.from_pretrained(tokenizer)
    table, codes = pq.read_table(shop / "a.parquet"), read(whole)
    for row in (0, 2, 5):
        text, image = (table[name][row].as_py() for name in ("text", "image"))
        found = opened.encode(text=text, image=image and shop / image)
        assert codes[table["item_id"][row].as_py()] == found


def test_items_with_a_broken_picture_go_by_their_words_and_are_listed(tokenizer, shop, whole):
    problems = pq.read_table(whole / "problems.parquet").to_pylist()
    told = {row["item_id"]: row["problem"] for row in problems}
    assert set(told) == {"i9", "i11", "i23", "i40", "i44", "i51"}
    assert told["i9"] == "no text"
    assert "broken.png' cannot be read" in told["i11"] and "lost.png" in told["i23"]
    assert "thin.png' cannot be read" in told["i44"]
    assert all("is no path inside" in told[item] for item in ("i40", "i51"))
    facts = storage.read_manifest(whole, bulk.STAGE).facts
    assert facts == {"items": COUNT, "shards": 2, "pictures_not_read": 5, "items_without_text": 1}
    text = pq.read_table(shop / "a.parquet")["text"][11].as_py()
    assert read(whole)["i11"] == ItemTokenizer.from_pretrained(tokenizer).encode(text=text)


def test_kept_features_are_used_and_no_others_are_kept(
    tokenizer, shop, whole, tmp_path, monkeypatch
):
    """Features of millions of items would fill any disk."""
    monkeypatch.setenv(storage.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "FEW", 0)
    encode_items(tokenizer, shop, tmp_path / "first")
    assert read(tmp_path / "first") == read(whole)
    assert not list((tmp_path / "cache").rglob("*.rows"))
    shown = sorted((shop / "pictures").glob("[0-9].png"))
    ItemTokenizer.from_pretrained(tokenizer).read([""] * len(shown), shown)  # as training does
    seen = []
    compute = Backbone.processed_features
    monkeypatch.setattr(
        Backbone, "processed_features", lambda *given: seen.append(1) or compute(*given)
    )
    encode_items(tokenizer, shop, tmp_path / "second", BulkSettings(at_once=7))
    assert read(tmp_path / "second") == read(whole) and not seen


@pytest.mark.filterwarnings("ignore:.*which is a no-op")  # weights have no numbers there
def test_it_works_where_the_machine_is_fastest(tokenizer, shop, tmp_path, monkeypatch):
    """No GPU here: a device without memory stands for one."""
    monkeypatch.setattr(bulk, "own_device", lambda: torch.device("meta"))
    encoder = bulk.ShardEncoder(bulk.make_plan(tokenizer, shop), tmp_path, None, at_once=4)
    devices = {value.device.type for value in encoder.tokenizer.model.state_dict().values()}
    assert devices == {"meta"}


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_killed_run_goes_on(tokenizer, shop, whole, tmp_path, monkeypatch, after):
    """Killed at any rename: what is there stays, and nothing is done twice."""
    out, replace, left = tmp_path / "out", os.replace, [after]
    settings = BulkSettings(shard_rows=10)

    def stop(source, target):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(Killed):
            encode_items(tokenizer, shop, out, settings)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(kept) == after - 1  # the first rename is the plan's
    assert storage.find_manifest(out, bulk.STAGE) is None
    encode_items(tokenizer, shop, out, settings)
    assert read(out) == read(whole)
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert not list(out.glob(".*"))


def test_a_full_disk_is_told_and_a_run_goes_on(tokenizer, shop, whole, tmp_path, monkeypatch):
    out, write, calls = tmp_path / "out", pq.write_table, []

    def full(table, path, **options):
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(StorageError, match=r"the disk of .*out is full .*to continue"):
            encode_items(tokenizer, shop, out, BulkSettings(shard_rows=10))
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(kept) == 2 and not list(out.glob(".*"))
    encode_items(tokenizer, shop, out, BulkSettings(shard_rows=10))
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert read(out) == read(whole)


@pytest.mark.slow
def test_a_disk_that_is_really_full(tokenizer, shop, whole, tmp_path):
    """A disk of 64 KiB in memory, for the codes and for the cache; then it is made larger."""
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    can = [*alone, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(can, capture_output=True).returncode:
        pytest.skip("nobody may mount a disk here")
    disk, items = tmp_path / "disk", tmp_path / "items"
    disk.mkdir()
    shutil.copytree(shop, items)
    program = [sys.executable, str(Path(__file__).with_name("small_disk.py"))]
    arguments = [str(tokenizer), str(items), str(disk)]
    done = subprocess.run([*alone, *program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "codes is full" in told["encode"] and "the disk is full" in told["cache"]
    assert told["encode kept"] > 3 and told["cache kept"] > 5
    assert told["encode partial"] == told["cache partial"] == []
    assert told["encode again"] == [] and told["cache again"] == []  # nothing was made twice
    assert told["rows"] == 64
    assert read(items / "encoded") == read(whole)


def test_an_item_between_two_codes_is_encoded_by_itself(
    tokenizer, shop, whole, tmp_path, monkeypatch
):
    """With a slack that makes every item unsure, the codes are those of items alone: the same."""
    asked = []
    states = ItemTokenizer.states

    def watch(self, items, progress=None, rows=None):
        asked.append(rows)
        return states(self, items, rows=rows)

    monkeypatch.setattr(ItemTokenizer, "states", watch)
    monkeypatch.setattr(bulk.ShardEncoder, "_measure", lambda *_: 1e9)
    encode_items(tokenizer, shop / "b.parquet", tmp_path / "out")
    assert len([rows for rows in asked if rows is not None]) == 23
    assert read(tmp_path / "out") == {key: read(whole)[key] for key in read(tmp_path / "out")}


def test_margins_are_distances_to_the_border(tokenizer):
    quantizer = ItemTokenizer.from_pretrained(tokenizer).model.quantizer
    root = quantizer.root.vectors.detach()
    halfway = (root[0] + root[1]) / 2
    states = torch.zeros(2, 3, root.shape[1])
    states[:, 0] = halfway
    direction = (root[0] - root[1]) / (root[0] - root[1]).norm()
    states[1, 0] += 1e-3 * direction
    found = bulk.margins(quantizer, states)
    nearest = (states[:, 0, None] - root).norm(dim=-1).topk(2, largest=False).indices
    if set(nearest[0].tolist()) == {0, 1}:  # no third code lies nearer
        assert found[0] < 1e-5 and found[1] <= 1.001e-3


class TestRefusals:
    def test_what_is_no_parquet_or_lacks_a_column(self, tokenizer, tmp_path):
        with pytest.raises(InputError, match="no Parquet file"):
            encode_items(tokenizer, tmp_path / "nowhere.parquet", tmp_path / "out")
        (tmp_path / "x.parquet").write_bytes(b"text")
        with pytest.raises(BadTable, match="cannot be read as Parquet"):
            encode_items(tokenizer, tmp_path / "x.parquet", tmp_path / "out")
        pq.write_table(pa.table({"item_id": ["a"], "title": ["b"]}), tmp_path / "x.parquet")
        with pytest.raises(BadTable, match="no column text"):
            encode_items(tokenizer, tmp_path / "x.parquet", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_an_output_folder_of_something_else(self, tokenizer, shop, whole, tmp_path):
        with pytest.raises(SettingsMismatch, match="other shards"):
            encode_items(tokenizer, shop, whole, BulkSettings(shard_rows=7))
        shutil.copytree(shop, tmp_path / "shop")
        pq.write_table(pq.read_table(shop / "b.parquet")[1:], tmp_path / "shop" / "b.parquet")
        with pytest.raises(SettingsMismatch, match="other inputs"):
            encode_items(tokenizer, tmp_path / "shop", whole)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "letter.txt").write_text("dear")
        with pytest.raises(InputError, match="not empty"):
            encode_items(tokenizer, shop, tmp_path / "full")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize("ray", [False, True])
def test_workers_write_what_one_process_writes(tokenizer, shop, whole, tmp_path, ray, capfd):
    if ray:
        import ray as cluster

        cluster.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        settings = BulkSettings(shard_rows=10, workers=2, ray=ray)
        encode_items(tokenizer, shop, tmp_path / "out", settings)
    finally:
        if ray:
            cluster.shutdown()
    assert read(tmp_path / "out") == read(whole)
    assert "Loading weights" not in capfd.readouterr().err  # no bars of transformers
