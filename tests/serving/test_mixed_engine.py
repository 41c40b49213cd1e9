"""A server mixes the voices of a recommender as evaluation does, in every generation."""

import dataclasses
import shutil

import pytest
import torch
from small_shops import FakeCoder

import utgrec
from mini_run import mini_domains, mini_recipe
from utgrec.decoding.mixed import MixedSearch
from utgrec.recommender.mixing import Mixing
from utgrec.recommender.ranker import SIGNS, Ranker
from utgrec.recommender.train import read_memory
from utgrec.runs import RunFolder, run_recipe
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.engine import Engine, Request
from utgrec.serving.filters import Condition, Filters
from utgrec.serving.generations import GenerationStore
from utgrec.stages import StageResult, run_stage


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


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """A run whose candidates are put in order, by a ranker of random weights."""
    folder = tmp_path_factory.mktemp("ranked")
    base = mini_recipe()
    decoding = dataclasses.replace(base.decoding, beam=10, precision="fp32")
    recipe = dataclasses.replace(base, decoding=decoding)
    run_recipe(recipe, mini_domains(folder / "market", ("kitchen",)), folder / "run")
    out = RunFolder(folder / "run").ranker
    shutil.rmtree(out)
    random = torch.Generator().manual_seed(1)
    keys = read_memory(RunFolder(folder / "run").recommender).companions.keys
    ranker = Ranker(
        mean=torch.zeros(SIGNS),
        deviation=torch.ones(SIGNS),
        inner=torch.randn(2, SIGNS, 8, generator=random),
        inner_bias=torch.zeros(2, 1, 8),
        outer=torch.randn(2, 8, 1, generator=random),
        keys=keys,
        taken=torch.arange(len(keys)) + 1,
        candidates=15,
    )

    def make(work):
        ranker.save(work.folder / "kitchen.safetensors")
        return StageResult({})

    run_stage(out, stage="ranker", config={}, inputs={}, make=make)
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


def test_the_engine_puts_candidates_in_order_as_the_library_does(ranked, tmp_path):
    engine, loaded = Engine(GenerationStore(ranked, write=False)), utgrec.load(ranked)
    ids = loaded.catalog.item_ids
    shutil.copytree(ranked, tmp_path / "run", ignore=shutil.ignore_patterns("ranker"))
    plain = utgrec.load(tmp_path / "run")
    for history in (ids[:3], ids[20:45], []):
        answer = [(ids[hit.item], hit.score) for hit in one(engine, history=history, k=12).found]
        expected = [(entry.item.item_id, entry.score) for entry in loaded.recommend(history, 12)]
        mixture = [entry.item.item_id for entry in plain.recommend(history, 12)]
        assert [item for item, _ in answer] == [item for item, _ in expected]
        assert [score for _, score in answer] == pytest.approx([s for _, s in expected], abs=1e-5)
        assert [item for item, _ in answer] != mixture


def test_what_is_put_in_order_follows_the_catalogue(ranked, tmp_path):
    shutil.copytree(ranked, tmp_path / "run")
    store = GenerationStore(tmp_path / "run")
    editor, ids = CatalogEditor(store, FakeCoder(6, 8)), store.open().catalog.item_ids
    editor.add([{"item_id": "new", "title": "New", "price": 5.0}])
    editor.remove(ids[:20])
    engine = Engine(store)
    assert engine.shelf._search.ranker is not None
    names = engine.shelf.catalog.item_ids
    for k in (4, 99):  # fewer than the candidates, and more
        found = one(engine, history=(ids[0], ids[30]), k=k).found
        scores = [hit.score for hit in found]
        assert scores == sorted(scores, reverse=True)
        assert len({hit.item for hit in found}) == len(found)
        if k == 99:
            assert {names[hit.item] for hit in found} == {*ids[20:], "new"} - {ids[30]}


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
