"""Old generations go, what the catalogue depends on stays."""

import shutil

import pytest
from small_shops import FakeCoder, make_run, png

from utgrec.errors import BadConfig, CorruptFile, MissingStage
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.generations import GenerationStore
from utgrec.serving.pruning import prune


@pytest.fixture
def store(tmp_path):
    """Seven generations; the fifth serves."""
    store = GenerationStore(make_run(tmp_path / "run", ["a", "b", "c"]))
    editor = CatalogEditor(store, FakeCoder())
    for number in range(6):
        editor.add([{"item_id": f"n{number}", "title": "x"}])
    store.activate(5)
    return store


def test_what_is_needed_stays(store):
    done = prune(store, 1)
    assert done.kept == store.numbers == [1, 4, 5, 7]
    assert (done.generations, done.pictures) == ([2, 3, 6], 0)
    assert store.current == 5
    assert store.rollback() == 4
    with pytest.raises(MissingStage, match="no generation 3"):
        store.rollback()
    assert prune(store, 100) == ([], 0, [1, 4, 5, 7])


def test_codes_that_were_given_away_stay_reserved(store):
    given = {i: tuple(c) for i, c in zip(*_items_and_codes(store.open(7)), strict=True)}
    store.activate(1)
    prune(store, 1)
    made = CatalogEditor(store, FakeCoder()).add([{"item_id": "z", "title": "x"}])
    assert made.generation == 8
    assert made.codes["z"] not in given.values()
    assert dict(zip(*_items_and_codes(store.open(8)), strict=True)) | given == dict(
        zip(*_items_and_codes(store.open(8)), strict=True)
    )


def _items_and_codes(generation):
    return generation.catalog.item_ids, [tuple(row) for row in generation.rows.codes.tolist()]


def test_pictures_go_with_the_last_generation_that_shows_them(store, tmp_path):
    editor = CatalogEditor(store, FakeCoder())
    pictures = [png(tmp_path / f"{colour}.png", colour) for colour in ("red", "green", "blue")]
    editor.add([{"item_id": "p", "title": "p"}, {"item_id": "q", "title": "q"}],
               {"p": pictures[0], "q": pictures[1]})  # fmt: skip
    editor.replace([{"item_id": "p"}], {"p": pictures[2]})
    shown = store.open().catalog
    assert prune(store, 3).pictures == 0  # generation 8 shows the first one
    assert prune(store, 1).pictures == 0  # so does the parent
    editor.remove(["n0"])
    editor.remove(["n1"])
    assert prune(store, 1).pictures == 0  # too young: it may belong to a change on its way
    assert prune(store, 1, old_s=-1).pictures == 1
    left = {path.read_bytes() for path in (store.folder / "images").glob("*/*")}
    assert left == set(pictures[1:])
    for item_id, expected in (("p", pictures[2]), ("q", pictures[1])):
        assert shown[shown.index_of(item_id)].image.read_bytes() == expected


def test_what_a_killed_call_left_is_tidied_up(store):
    shutil.copytree(store.path(2), store.folder / ".000002.removed")
    shutil.rmtree(store.path(2))
    prune(store, 9)
    assert not (store.folder / ".000002.removed").exists()


def test_nothing_goes_if_something_that_stays_is_damaged(store):
    path = store.path(5) / "items.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptFile):
        prune(store, 1)
    assert store.numbers == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(BadConfig, match="at least 1 generation is kept, got 0"):
        prune(store, 0)
