"""A file of histories in, a file of recommendations out: the same answers, resumed and whole."""

import json
import shutil
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_shops import FakeCoder, jsonl
from typer.testing import CliRunner

from utgrec.cli import app
from utgrec.errors import BadConfig, BadTable, InputError, UnknownItem
from utgrec.serving import bulk
from utgrec.serving.bulk import read_histories, recommend_file
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.engine import Engine, Request
from utgrec.serving.filters import Condition, Filters
from utgrec.serving.generations import GenerationStore
from utgrec.stages import StageResult, run_stage

ASKED = Request(history=(), k=4, beam=10)


@pytest.fixture(scope="module")
def engine(trained):
    return Engine(GenerationStore(trained, write=False))


@pytest.fixture
def source(engine, tmp_path):
    """Eleven histories, one of them empty."""
    ids = engine.shelf.catalog.item_ids
    rows = [{"user_id": f"u{n}", "history": ids[n : 2 * n]} for n in range(11)]
    return jsonl(tmp_path / "histories.jsonl", rows)


def one_file(work):
    (work.folder / "note.txt").write_text("another ranker")
    return StageResult({})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_is_what_the_engine_says(engine, source, tmp_path):
    out = tmp_path / "out.jsonl"
    assert recommend_file(engine, source, out, ASKED, at_once=4) == (11, 0, 1)
    ids = engine.shelf.catalog.item_ids
    for row, found in zip(lines(source), lines(out), strict=True):
        (answer,) = engine.recommend([Request(history=tuple(row["history"]), k=4, beam=10)])
        assert found["user_id"] == row["user_id"]
        assert [hit["item_id"] for hit in found["items"]] == [ids[hit.item] for hit in answer.found]
        assert [hit["score"] for hit in found["items"]] == pytest.approx(
            [hit.score for hit in answer.found], abs=2e-6
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["histories.jsonl", "out.jsonl"]


def test_parquet_in_and_out_is_the_same(engine, source, tmp_path):
    rows = lines(source)
    table = pa.table({name: [row[name] for row in rows] for name in ("user_id", "history")})
    pq.write_table(table, tmp_path / "h.parquet", row_group_size=3)
    recommend_file(engine, source, tmp_path / "a.jsonl", ASKED, at_once=4)
    recommend_file(engine, tmp_path / "h.parquet", tmp_path / "b.parquet", ASKED, at_once=3)
    found = pq.read_table(tmp_path / "b.parquet").to_pylist()
    for one, other in zip(lines(tmp_path / "a.jsonl"), found, strict=True):
        assert other["user_id"] == one["user_id"]
        assert other["item_ids"] == [hit["item_id"] for hit in one["items"]]
        assert other["scores"] == pytest.approx([hit["score"] for hit in one["items"]], rel=1e-6)
        assert other["unknown"] == []


def test_what_was_stopped_goes_on(engine, source, tmp_path, monkeypatch):
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    recommend_file(engine, source, whole, ASKED, at_once=4)
    calls = []
    real = engine.recommend

    def stops(requests):
        calls.append(len(requests))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(requests)

    monkeypatch.setattr(engine, "recommend", stops)
    with pytest.raises(KeyboardInterrupt):
        recommend_file(engine, source, out, ASKED, at_once=4)
    assert not out.exists()  # nothing half done is shown
    assert recommend_file(engine, source, out, ASKED, at_once=4) == (11, 8, 1)
    assert calls == [4, 4, 3, 3]
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("change", ["asked", "source", "ranker"])
def test_what_was_stopped_does_not_go_on_with_something_else(
    trained, source, tmp_path, monkeypatch, change
):
    shutil.copytree(trained, tmp_path / "run")
    engine = Engine(GenerationStore(tmp_path / "run"))
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "_join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            recommend_file(engine, source, out, ASKED, at_once=4)
    asked = Request(history=(), k=5) if change == "asked" else ASKED
    if change == "source":
        jsonl(source, [{"history": []}] * 11)
    if change == "ranker":
        folder = engine.store.run.ranker
        shutil.rmtree(folder)
        run_stage(folder, stage="ranker", config={}, inputs={}, make=one_file)
    assert recommend_file(engine, source, out, asked, at_once=4).before == 0
    assert len(lines(out)[0]["items"]) == asked.k


def test_filters_and_unknown_items(engine, tmp_path):
    shelf = engine.shelf
    brand = shelf.catalog[5].attributes["brand"]
    source = jsonl(tmp_path / "h.jsonl", [{"history": ["?", shelf.catalog.item_ids[0]]}])
    filters = Filters(where=(("brand", Condition(any_of=(brand,))),))
    asked = Request(history=(), k=60, filters=filters, unknown="skip")
    recommend_file(engine, source, tmp_path / "o.jsonl", asked)
    (found,) = lines(tmp_path / "o.jsonl")
    expected = {item.item_id for item in shelf.catalog if item.attributes["brand"] == brand}
    got = {hit["item_id"] for hit in found["items"]}
    assert got == expected - {shelf.catalog.item_ids[0]}
    assert found["unknown"] == ["?"]
    with pytest.raises(UnknownItem, match=r"h\.jsonl, line 1: not in this catalogue: '\?'"):
        recommend_file(engine, source, tmp_path / "o2.jsonl", ASKED)
    bad = Request(history=(), filters=Filters(where=(("colour", Condition(any_of=("x",))),)))
    with pytest.raises(InputError, match="line 1: the catalogue has no column 'colour'"):
        recommend_file(engine, jsonl(source, [{"history": []}]), tmp_path / "o3.jsonl", bad)
    assert not (tmp_path / "o2.jsonl").exists() and not (tmp_path / "o3.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"history": "A,B"}', "line 2: history is 'A,B', it must be a list"),
        ('{"user_id": "u"}', "line 2: history is None"),
        ('{"history": [true]}', "line 2: True in history is not the id"),
        ('{"history": [], "user_id": []}', r"line 2: user_id \[\] is not an id"),
        ("[1]", r"line 2 is \[1\], not an object"),
        ("{", "line 2 is not JSON"),
        ("[" * 9000, "line 2 is not JSON"),
    ],
)
def test_lines_that_cannot_be_read(engine, tmp_path, text, message):
    source = tmp_path / "h.jsonl"
    source.write_text('{"history": []}\n' + text + "\n")
    with pytest.raises(BadTable, match=message):
        recommend_file(engine, source, tmp_path / "o.jsonl", ASKED)
    assert not (tmp_path / "o.jsonl").exists()


def test_files_that_cannot_be_read(engine, tmp_path, source, monkeypatch):
    (tmp_path / "h.parquet").write_bytes(b"none")
    with pytest.raises(BadTable, match="no Parquet file"):
        list(read_histories(tmp_path / "h.parquet"))
    pq.write_table(pa.table({"items": [["A"]]}), tmp_path / "h.parquet")
    with pytest.raises(BadTable, match="no column history; it has items"):
        list(read_histories(tmp_path / "h.parquet"))
    pq.write_table(pa.table({"history": [["A"]]}), tmp_path / "h.parquet")
    damaged = bytearray((tmp_path / "h.parquet").read_bytes())
    damaged[4:44] = b"\xff" * 40
    (tmp_path / "h.parquet").write_bytes(damaged)
    with pytest.raises(BadTable, match=r"h\.parquet is damaged .*; write it anew"):
        list(read_histories(tmp_path / "h.parquet"))
    (tmp_path / "h.jsonl").write_bytes(b'{"history": ["\xff"]}')
    with pytest.raises(BadTable, match="is not UTF-8"):
        list(read_histories(tmp_path / "h.jsonl"))
    monkeypatch.setattr(bulk, "LONGEST_LINE", 100)
    (tmp_path / "h.jsonl").write_text('{"history": [' + '"A", ' * 100)
    with pytest.raises(BadTable, match="a line of over 100 characters"):
        list(read_histories(tmp_path / "h.jsonl"))
    with pytest.raises(BadConfig, match=r"must end in \.jsonl, \.ndjson, \.parquet"):
        recommend_file(engine, source, tmp_path / "o.csv", ASKED)
    with pytest.raises(BadConfig, match="is the file that is read"):
        recommend_file(engine, source, source, ASKED)


def test_reading_takes_no_more_memory_for_a_longer_file(tmp_path):
    def peak(count):
        path = jsonl(tmp_path / "long.jsonl", [{"history": ["A"] * 50}] * count)
        tracemalloc.start()
        assert sum(1 for _ in read_histories(path)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what is imported once
    assert peak(20_000) < peak(2_000) + 200_000


class TestCommand:
    def call(self, *words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    def test_the_serving_generation_is_used_and_named(self, store, tmp_path):
        run = store.run.path
        CatalogEditor(store, FakeCoder(6, 8)).add([{"item_id": "new", "title": "New"}])
        ask = ("recommend", run, "--item", "new", "--k", 60, "--json")
        found = json.loads(self.call(*ask).stdout)
        assert (found["generation"], found["history"]) == (2, ["new"])
        assert len(found["recommendations"]) == 60
        old = self.call(*ask, "--generation", 1, code=1)
        assert json.loads(old.stdout)["error"]["type"] == "UnknownItem"
        skipped = json.loads(self.call(*ask, "--generation", 1, "--unknown", "skip").stdout)
        assert (skipped["generation"], skipped["unknown"]) == (1, ["new"])
        said = self.call("recommend", run, "--item", "new").stderr
        assert "generation 2 of the catalogue: 61 items" in said

    def test_nothing_is_written_into_the_run(self, trained, tmp_path):
        shutil.copytree(trained, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "generations", ignore_errors=True)
        done = self.call("recommend", tmp_path / "run", "--history", "KIT00001")
        assert "the catalogue of the run: 60 items" in done.stderr
        assert not (tmp_path / "run" / "generations").exists()

    def test_a_file_with_filters(self, store, tmp_path):
        source = jsonl(tmp_path / "h.jsonl", [{"user_id": 7, "history": ["KIT00001"]}])
        item = store.open().catalog[3]
        options = [
            "--k", 60, "--category", "kitchen", "--min-price", item.attributes["price"],
            "--where", f"brand={item.attributes['brand']}", "--where",
            f"price={item.attributes['price']}", "--deny", "KIT00009", "--keep-seen",
        ]  # fmt: skip
        command = ("recommend", store.run.path, "--from", source, "--out", tmp_path / "o.jsonl")
        done = json.loads(self.call(*command, *options, "--json").stdout)
        assert (done["histories"], done["done_before"], done["generation"]) == (1, 0, 1)
        (found,) = lines(tmp_path / "o.jsonl")
        assert found["user_id"] == "7"
        assert item.item_id in {hit["item_id"] for hit in found["items"]}
        assert "1 histories answered" in self.call(*command).stdout

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (["--from", "h.jsonl"], 2, "belong together"),
            (["--out", "h.jsonl"], 2, "belong together"),
            (["--from", "h.jsonl", "--out", "o.jsonl", "--item", "A"], 2, "not both"),
            (["--item", "KIT00001", "--where", "brand"], 2, "must be NAME=VALUE"),
            (["--item", "KIT00001", "--where", "price=cheap"], 1, "price must be a number"),
            (["--item", "KIT00001", "--where", "colour=red"], 1, "no column 'colour'"),
            (["--item", "KIT00001", "--generation", "9"], 1, "no generation 9"),
            (["--from", "none.jsonl", "--out", "o.jsonl"], 1, "No such file"),
        ],
    )
    def test_wrong_usage(self, trained, options, code, message):
        assert message in self.call("recommend", trained, *options, code=code).output
