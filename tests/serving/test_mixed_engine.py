"""A server mixes the voices of a recommender as evaluation does, in every generation."""

import dataclasses

import pytest
from small_shops import FakeCoder

import utgrec
from mini_run import mini_domains, mini_recipe
from utgrec.decoding.mixed import MixedSearch
from utgrec.recommender.mixing import Mixing
from utgrec.runs import run_recipe
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.engine import Engine, Request
from utgrec.serving.filters import Condition, Filters
from utgrec.serving.generations import GenerationStore


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A run whose network, item vectors, counts and contents all speak."""
    folder = tmp_path_factory.mktemp("mixed")
    base = mini_recipe()
    decoding = dataclasses.replace(
        base.decoding,
        beam=10,
        precision="fp32",
        mixing=Mixing(vectors=2.0, companions=0.3, contents=0.2),
    )
    recipe = dataclasses.replace(base, decoding=decoding)
    run_recipe(recipe, mini_domains(folder / "market", ("kitchen",)), folder / "run")
    return folder / "run"


def one(engine, **given):
    (answer,) = engine.recommend([Request(**given)])
    assert not isinstance(answer, Exception), answer
    return answer


def test_the_engine_says_what_the_library_says(mixed):
    engine = Engine(GenerationStore(mixed, write=False))
    assert isinstance(engine.shelf._search, MixedSearch)
    loaded = utgrec.load(mixed)
    ids = loaded.catalog.item_ids
    for history in (ids[:3], ids[20:45], []):
        answer = one(engine, history=tuple(history), k=12)
        expected = loaded.recommend(history, 12)
        assert [ids[hit.item] for hit in answer.found] == [e.item.item_id for e in expected]
        assert [hit.score for hit in answer.found] == pytest.approx(
            [e.score for e in expected], abs=1e-5
        )


def test_changes_and_filters_hold_for_all_voices(mixed):
    store = GenerationStore(mixed)
    editor, ids = CatalogEditor(store, FakeCoder(6, 8)), store.open().catalog.item_ids
    editor.add([{"item_id": "new", "title": "New", "price": 5.0}])
    editor.remove(ids[:20])
    engine = Engine(store)
    catalog = engine.shelf.catalog
    everything = one(engine, history=(ids[0], ids[30]), k=99)
    found = {catalog.item_ids[hit.item] for hit in everything.found}
    assert found == {*ids[20:], "new"} - {ids[30]}
    filters = Filters(where=(("price", Condition(at_most=20)),))
    cheap = one(engine, history=(ids[0],), k=99, filters=filters)
    expected = {
        item.item_id
        for item in catalog
        if item.item_id in {*ids[20:], "new"} and (item.attributes["price"] or 99) <= 20
    }
    assert {catalog.item_ids[hit.item] for hit in cheap.found} == expected
    assert len(one(engine, history=(ids[0],), k=3, filters=filters).found) == min(3, len(expected))


def test_a_new_item_is_found_by_what_it_says(mixed):
    """Nobody took it, its codes are as good as random, and no network has seen it."""
    store = GenerationStore(mixed)
    catalog = store.open().catalog
    like = catalog[30]
    CatalogEditor(store, FakeCoder(6, 8)).add(
        [
            {"item_id": "twin", "title": like.title, "text": like.text},
            {"item_id": "stranger", "title": "Zxqv", "text": "Zxqv wvqz."},
        ]
    )
    engine = Engine(store)
    recommender = engine._recommender
    for model in (recommender.network, recommender.lean):
        assert len(model.words.table) == len(catalog) + 2
    for history in ((like.item_id,), (catalog.item_ids[50], like.item_id)):
        answer = one(engine, history=history, k=len(catalog))
        place = {
            engine.shelf.catalog.item_ids[hit.item]: place for place, hit in enumerate(answer.found)
        }
        assert place["twin"] < 5 < place["stranger"]
    back = one(engine, history=("twin",), k=5)
    assert like.item_id in {engine.shelf.catalog.item_ids[hit.item] for hit in back.found}
