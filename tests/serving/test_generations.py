"""Published catalogues: codes stay, nothing collides, damaged versions never serve."""

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_shops import LEAF, ROOT, FakeCoder, make_run

from utgrec import storage
from utgrec.errors import (
    CorruptFile,
    InputError,
    MissingStage,
    SettingsMismatch,
    StorageError,
    UnknownItem,
    UTGRecError,
)
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.drift import report_drift
from utgrec.serving.generations import GenerationStore
from utgrec.serving.pruning import prune
from utgrec.serving.rows import Rows

NAMES = [f"i{number}" for number in range(12)]


@pytest.fixture
def store(tmp_path):
    return GenerationStore(make_run(tmp_path / "run", NAMES))


@pytest.fixture
def editor(store):
    return CatalogEditor(store, FakeCoder())


def live_ids(generation):
    """Ids of the items that can be recommended."""
    rows = generation.rows
    return {i for i, live in zip(generation.catalog.item_ids, rows.live, strict=True) if live}


def codes_by_id(generation):
    """Item id → codes, also of removed items."""
    codes = map(tuple, generation.rows.codes.tolist())
    return dict(zip(generation.catalog.item_ids, codes, strict=True))


class TestFirst:
    def test_it_is_the_codes_of_the_run(self, store):
        first = store.open()
        codes = storage.read_manifest(store.run.codes("shop"), "codes")
        assert (first.number, first.parent, store.current) == (1, None, 1)
        assert first.manifest.inputs == {"codes": codes.fingerprint}
        assert first.catalog.item_ids == NAMES
        assert first.rows.live.all()
        assert (first.rows.since == 1).all()
        assert first.catalog[3].attributes["price"] == 3.0

    def test_it_is_made_once(self, store):
        before = store.path(1).stat().st_mtime_ns
        assert GenerationStore(store.run.path, "shop").open().number == 1
        assert store.path(1).stat().st_mtime_ns == before
        assert store.numbers == [1]

    def test_other_codes_in_the_run_are_noticed(self, store, tmp_path):
        other = make_run(tmp_path / "other", NAMES[:5])
        shutil.rmtree(store.run.codes("shop"))
        shutil.copytree(other / "codes" / "shop", store.run.codes("shop"))
        with pytest.raises(SettingsMismatch, match="begun with other codes"):
            GenerationStore(store.run.path)

    def test_a_run_that_cannot_be_written_says_what_to_do(self, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        run = make_run(tmp_path / "run", NAMES)
        monkeypatch.setattr(GenerationStore, "publish", refuse)
        with pytest.raises(StorageError, match=r"Read-only.*utgrec catalog list"):
            GenerationStore(run)

    def test_wrong_names(self, store, tmp_path):
        with pytest.raises(InputError, match="does not know domain 'toys'; it knows shop"):
            GenerationStore(store.run.path, "toys")
        with pytest.raises(MissingStage, match="is no run"):
            GenerationStore(tmp_path / "nothing")


class TestChanges:
    def test_add_remove_and_come_back(self, store, editor):
        before = codes_by_id(store.open())
        added = editor.add([{"item_id": "new", "title": "Hat", "price": "7,50", "stock": "true"}])
        assert (added.generation, added.active, added.delta.added) == (2, True, ["new"])
        after = store.open()
        assert codes_by_id(after) == before | {"new": added.codes["new"]}
        item = after.catalog[after.catalog.index_of("new")]
        assert (item.title, item.text, item.image) == ("Hat", "Hat.", None)
        assert item.attributes == {"category": None, "price": 7.5, "stock": True, "year": None}
        editor.remove(["new", "i3"])
        assert live_ids(store.open()) == set(NAMES) - {"i3"}
        assert codes_by_id(store.open()) == codes_by_id(after)
        back = editor.add([{"item_id": "new"}, {"item_id": "other", "text": "A fez"}])
        assert back.delta.restored == ["new"]
        assert back.delta.added == ["other"]
        assert back.codes["new"] == added.codes["new"]
        assert store.open().catalog[len(NAMES)].attributes["price"] == 7.5
        delta = storage.read_json(store.path(4) / "delta.json")
        assert delta == {"added": ["other"], "restored": ["new"], "removed": [], "replaced": []}

    def test_replace_keeps_codes_and_what_is_not_named(self, store, editor):
        before = store.open()
        made = editor.replace([{"item_id": "i2", "price": 99, "stock": None}])
        after = store.open()
        assert np.array_equal(before.rows.codes, after.rows.codes)
        assert np.array_equal(before.rows.distance, after.rows.distance)
        assert editor.coder.encoded == []  # a price needs no model
        assert made.delta.replaced == ["i2"]
        old, new = before.catalog[2], after.catalog[2]
        assert new.attributes == old.attributes | {"price": 99.0, "stock": None}
        assert (new.title, new.text) == (old.title, old.text)
        editor.replace([{"item_id": "i2", "title": "Another", "description": "thing"}])
        last = store.open()
        assert last.catalog[2].text == "Another. thing."
        assert np.array_equal(before.rows.codes, last.rows.codes)
        assert last.rows.distance[2] != before.rows.distance[2]
        assert np.array_equal(np.delete(last.rows.distance, 2), np.delete(after.rows.distance, 2))

    def test_after_a_rollback_nobody_gets_the_codes_of_others(self, store, editor):
        first = editor.add([{"item_id": "a", "title": "A"}]).codes["a"]
        assert store.rollback() == 1
        assert "a" not in store.open().catalog
        second = editor.add([{"item_id": "b", "title": "A"}])
        assert second.generation == 3
        assert second.codes["b"] != first
        generation = store.open()
        assert generation.parent == 1
        assert codes_by_id(generation)["a"] == first
        assert live_ids(generation) == {*NAMES, "b"}
        assert editor.add([{"item_id": "a", "title": "A"}]).codes["a"] == first

    def test_published_but_not_active(self, store, editor):
        made = editor.add([{"item_id": "a", "title": "A"}], activate=False)
        assert (made.generation, made.active, store.current) == (2, False, 1)
        store.activate(2)
        assert live_ids(store.open()) == {*NAMES, "a"}

    def test_everything_can_be_removed(self, store, editor):
        made = editor.remove(NAMES)
        assert made.drift.live == 0
        assert made.drift.new_conflicts is None
        assert not store.open().rows.live.any()

    def test_when_no_codes_are_left_nothing_is_published(self, store, editor):
        free = ROOT * LEAF * LEAF - len(NAMES)
        more = [{"item_id": f"n{number}", "title": "x"} for number in range(free)]
        assert editor.add(more).drift.fullest_prefix == 1.0
        editor.remove(["n0"])  # its codes stay reserved
        with pytest.raises(InputError, match="28 items do not fit"):
            editor.add([{"item_id": "last", "title": "x"}])
        assert (store.numbers, store.current) == ([1, 2, 3], 3)

    def test_the_drift_report_counts_what_happened(self, store, editor):
        more = [{"item_id": f"n{number}", "title": "x"} for number in range(8)]
        editor.add(more)
        drift = editor.remove(["i0", "n0"]).drift
        assert (drift.live, drift.new, drift.removed) == (18, 7, 2)
        assert drift.new_share == pytest.approx(7 / 18)
        assert drift.new_conflicts == pytest.approx(1.0)  # n0 alone got its nearest codes
        assert drift.histories_with_removed is None  # there is no domain folder
        assert any(reason.startswith("39% of the items are new") for reason in drift.reasons)
        assert store.drift(3)["new"] == 7

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            ({"item_id": "i1", "title": "x"}, "'i1' is already in the catalogue"),
            ({"item_id": "n"}, "'n' is without words and without picture"),
            ({"item_id": "n", "title": "  "}, "'n' is without words"),
            ({"title": "x"}, "no column for item_id"),
            ({"item_id": True, "title": "x"}, "True cannot be an id"),
            ({"item_id": "n", "titel": "x"}, "field 'titel' is not one of this catalogue's"),
            ({"item_id": "n", "title": "x", "price": "cheap"}, "price is 'cheap'.*double"),
            ({"item_id": "n", "title": "x", "price": -1}, "price is -1"),
            ({"item_id": "n", "title": "x", "year": 1.5}, "year is 1.5.*int64"),
            ({"item_id": "n", "title": "x", "stock": "perhaps"}, "stock is 'perhaps'.*bool"),
        ],
    )
    def test_what_cannot_be_added(self, store, editor, item, message):
        with pytest.raises(InputError, match=message):
            editor.add([{"item_id": "fine", "title": "y"}, item])
        assert (store.numbers, store.current) == ([1], 1)

    def test_what_else_cannot_be_done(self, store, editor):
        with pytest.raises(InputError, match="items 1 and 2 have the same id 'n'"):
            editor.add([{"item_id": "n", "title": "x"}] * 2)
        for change in (lambda ids: editor.replace([{"item_id": i} for i in ids]), editor.remove):
            with pytest.raises(UnknownItem, match="'n', 'm' are not in generation 1"):
                change(["n", "i1", "m"])
            with pytest.raises(InputError, match="no item was"):
                change([])
        with pytest.raises(InputError, match="'who' is not among the items"):
            editor.add([{"item_id": "n", "title": "x"}], {"who": b""})
        assert store.numbers == [1]


class TestLaws:
    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["add", "remove", "replace", "rollback", "activate", "prune"]),
                st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
                st.booleans(),
            ),
            max_size=8,
        )
    )
    def test_any_sequence_of_changes(self, tmp_path_factory, steps):
        """Codes are unique and never move; the live items are those a plain set would hold."""
        coder = FakeCoder()
        store = GenerationStore(make_run(tmp_path_factory.mktemp("any") / "run", ["p0", "p1"]))
        editor = CatalogEditor(store, coder)
        published = codes_by_id(store.open())
        versions = {1: ({"p0", "p1"}, None)}  # number → live items, parent
        current = 1
        for what, numbers, active in steps:
            ids = [f"p{number}" for number in numbers]
            live = set(versions[current][0])
            try:
                if what == "add":
                    made = editor.add(
                        [{"item_id": i, "title": f"t{i}"} for i in ids], activate=active
                    )
                    after = live | set(ids)
                elif what == "replace":
                    made = editor.replace(
                        [{"item_id": i, "title": f"r{i}"} for i in ids], activate=active
                    )
                    after = live
                elif what == "remove":
                    made = editor.remove(ids, activate=active)
                    after = live - set(ids)
                elif what == "rollback":
                    current = store.rollback()
                    continue
                elif what == "prune":
                    done = prune(store, numbers[0] + 1)
                    needed = {1, current, versions[current][1] or 1, max(versions)}
                    assert needed <= set(done.kept) == set(store.numbers)
                    assert set(sorted(versions)[-numbers[0] - 1 :]) <= set(done.kept)
                    assert {*done.kept, *done.generations} == set(versions)
                    versions = {number: versions[number] for number in done.kept}
                    continue
                else:
                    store.activate(numbers[0])
                    current = numbers[0]
                    continue
            except UTGRecError:
                refused = {
                    "add": bool(live & set(ids)),
                    "remove": not set(ids) <= live,
                    "replace": not set(ids) <= live,
                    "rollback": versions[current][1] not in versions,
                    "activate": numbers[0] not in versions,
                }
                assert refused[what]
                continue
            versions[made.generation] = (after, current)
            current = made.generation if active else current
            for name, codes in codes_by_id(store.open(made.generation)).items():
                assert published.setdefault(name, codes) == codes
        assert len(set(published.values())) == len(published)
        assert store.current == current
        for number, (live, parent) in versions.items():
            generation = store.open(number)
            assert live_ids(generation) == live
            assert generation.parent == parent
            known = codes_by_id(generation)
            assert known == {name: published[name] for name in known}
            assert len(known) == len(set(known.values()))


def test_changes_at_the_same_time_wait_for_each_other(store):
    def change(name):
        editor = CatalogEditor(GenerationStore(store.run.path), FakeCoder())
        return [editor.add([{"item_id": f"{name}{n}", "title": "x"}]).generation for n in range(3)]

    with ThreadPoolExecutor(3) as pool:
        numbers = [number for each in pool.map(change, "abc") for number in each]
    assert sorted(numbers) == list(range(2, 11))
    generation = store.open()
    assert live_ids(generation) == {*NAMES, *(f"{name}{n}" for name in "abc" for n in range(3))}
    assert len(set(codes_by_id(generation).values())) == len(NAMES) + 9


def test_fullness_by_hand():
    codes = np.array([[0, 1, 0], [0, 1, 1], [1, 1, 0], [0, 0, 2], [0, 1, 2], [0, 1, 3]], np.int16)
    rows = Rows(
        items=None,
        codes=codes,
        live=np.array([True, True, True, True, False, True]),
        since=np.array([1, 1, 1, 1, 2, 3], np.int32),
        conflict=np.array([True, False, False, False, True, True]),
        distance=np.array([1, 2, 3, 4, 9, 8], np.float32),
        own_picture=np.zeros(6, bool),
    )
    drift = report_drift(rows, (2, 2, 4), 0.25)
    assert (drift.live, drift.new, drift.removed) == (5, 1, 1)
    assert (drift.fullest_prefix, drift.full_prefixes) == (1.0, pytest.approx(1 / 3))
    assert drift.first_full_prefixes == 0.0
    assert (drift.first_conflicts, drift.new_conflicts) == (0.25, 1.0)
    assert (drift.first_distance, drift.new_distance) == (2.5, 8.0)
    assert len(drift.reasons) == 2  # farther from their codes, fuller prefixes


class TestDamage:
    @pytest.mark.parametrize("name", ["codes.parquet", "items.parquet", "delta.json", "drift.json"])
    def test_a_generation_that_fails_its_hashes_never_serves(self, store, editor, name):
        editor.remove(["i1"])
        store.activate(1)
        path = store.path(2) / name
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(CorruptFile, match=f"{name} is not the file its manifest names"):
            store.activate(2)
        assert store.current == 1

    def test_a_missing_file(self, store):
        (store.path(1) / "items.parquet").unlink()
        with pytest.raises(CorruptFile, match=r"items\.parquet is missing"):
            store.open()

    def test_a_copied_generation(self, store):
        shutil.copytree(store.path(1), store.path(2))
        with pytest.raises(CorruptFile, match="says it is generation 1"):
            store.activate(2)

    def test_a_removed_generation_in_between(self, store, editor):
        editor.add([{"item_id": "a", "title": "A"}])
        editor.add([{"item_id": "b", "title": "B"}])
        shutil.rmtree(store.path(3))
        shutil.copytree(store.path(2), store.path(3))
        manifest = json.loads((store.path(3) / "manifest.json").read_text())
        codes = store.path(3) / "codes.parquet"
        make_run(store.folder / "else", [*NAMES[::-1], "z"])
        shutil.copy(store.folder / "else" / "codes" / "shop" / "items.parquet", store.path(3))
        items = store.path(3) / "items.parquet"
        manifest["facts"]["number"] = 3
        manifest["files"] |= {f.name: storage.hash_file(f) for f in (codes, items)}
        (store.path(3) / "manifest.json").write_text(json.dumps(manifest))
        store.activate(2)
        with pytest.raises(CorruptFile, match="does not go on from the current one"):
            editor.add([{"item_id": "c", "title": "C"}])

    def test_a_broken_pointer(self, store):
        (store.folder / "CURRENT").write_text("two")
        with pytest.raises(CorruptFile, match="holds 'two', not the number"):
            store.open()
        store.activate(1)
        assert store.open().number == 1

    def test_every_choice_leaves_another_mark(self, store, editor):
        assert store.mark is None
        editor.remove(["i1"])
        current, marks = store.folder / "CURRENT", []
        for number in (1, 2, 2):
            store.activate(number)
            marks.append(store.mark)
        assert len(set(marks)) == 3
        # Files that cannot be told apart from outside: same name, size, time and inode.
        os.utime(current, ns=(5, 5))
        before = store.mark
        current.write_text("1\n")
        os.utime(current, ns=(5, 5))
        assert store.mark != before and store.mark[1:] == before[1:]

    def test_no_such_generation_and_none_before(self, store):
        with pytest.raises(MissingStage, match="no generation 7; the newest ones are 1"):
            store.activate(7)
        with pytest.raises(InputError, match="generation 1 is the first one"):
            store.rollback()

    def test_the_list_shows_what_is_broken(self, store, editor):
        editor.remove(["i1"])
        (store.path(1) / "manifest.json").write_text("{")
        first, second = store.listing()
        assert "not valid JSON" in first.problem
        assert (second.active, second.live, second.changes["removed"]) == (True, 11, 1)
