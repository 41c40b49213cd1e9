"""The engine: filters are brute force, company changes nothing, generations are exchanged whole."""

import itertools
import shutil
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_shops import FakeCoder

from utgrec.errors import BadConfig, CorruptFile, InputError, UnknownItem
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.engine import Engine, Request
from utgrec.serving.filters import Condition, Filters
from utgrec.serving.generations import GenerationStore
from utgrec.serving.likeness import look_up, similar_items


@pytest.fixture(scope="module")
def engine(trained, tmp_path_factory):
    """An engine that no test changes; some items are removed, one is new."""
    run = tmp_path_factory.mktemp("engine") / "run"
    shutil.copytree(trained, run)
    store = GenerationStore(run)
    editor = CatalogEditor(store, FakeCoder(6, 8))
    editor.remove(store.open().catalog.item_ids[:4])
    editor.add([{"item_id": "new", "title": "New", "price": 5.0, "categories": ["fresh"]}])
    return Engine(store)


def one(engine, **given):
    """The answer to one request."""
    (answer,) = engine.recommend([Request(**given)])
    if isinstance(answer, Exception):
        raise answer
    return answer


def ids(answer):
    return [answer.shelf.catalog.item_ids[found.item] for found in answer.found]


def everything(engine, history):
    """Score of every live item, from a beam that holds the whole catalogue."""
    shelf = engine.shelf
    answer = one(engine, history=history, k=len(shelf.live), beam=4096, exclude_seen=False)
    return {shelf.catalog.item_ids[found.item]: found.score for found in answer.found}


def brute_force(engine, request):
    """The ids that a request must get, best first: score everything, then filter in Python."""
    filters = request.filters
    scores = everything(engine, request.history)
    kept = []
    for item in engine.shelf.catalog:
        values = item.attributes
        ok = item.item_id in scores and item.item_id not in filters.deny
        ok &= filters.allow is None or item.item_id in filters.allow
        ok &= not (request.exclude_seen and item.item_id in request.history)
        for name, condition in filters.where:
            value = values[name]
            entries = value if isinstance(value, list) else [] if value is None else [value]
            ok &= any(
                (condition.any_of is None or entry in condition.any_of)
                and (condition.at_least is None or entry >= condition.at_least)
                and (condition.at_most is None or entry <= condition.at_most)
                for entry in entries
            )
        if ok:
            kept.append(item.item_id)
    return sorted(kept, key=lambda item_id: -scores[item_id])


def requests(engine):
    """Any request with known ids."""
    catalog = engine.shelf.catalog
    known = st.sampled_from(catalog.item_ids)
    brands = st.sampled_from(sorted({item.attributes["brand"] or "" for item in catalog}))
    words = {word for item in catalog for word in item.attributes["category"] or []}
    price = st.floats(0, 80)
    conditions = st.one_of(
        st.tuples(
            st.just("price"),
            st.builds(Condition, at_least=st.none() | price, at_most=price),
        ),
        st.tuples(
            st.just("brand"),
            st.builds(Condition, any_of=st.lists(brands, min_size=1, max_size=3).map(tuple)),
        ),
        st.tuples(
            st.just("category"),
            st.builds(
                Condition,
                any_of=st.lists(
                    st.sampled_from([*sorted(words), "none"]), min_size=1, max_size=2
                ).map(tuple),
            ),
        ),
    )
    filters = st.builds(
        Filters,
        where=st.lists(conditions, max_size=2).map(tuple),
        allow=st.none() | st.lists(known, max_size=30).map(tuple),
        deny=st.lists(known, max_size=10).map(tuple),
    )
    return st.builds(
        Request,
        history=st.lists(known, max_size=6).map(tuple),
        k=st.integers(1, 70),
        beam=st.just(4096),
        filters=filters,
        exclude_seen=st.booleans(),
    )


class TestRecommend:
    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.data())
    def test_filters_are_brute_force(self, engine, data):
        """With a beam as wide as the catalogue, exactly the best of what is left comes back."""
        request = data.draw(requests(engine))
        expected = brute_force(engine, request)
        (answer,) = engine.recommend([request])
        assert not isinstance(answer, Exception)
        scores = everything(engine, request.history)
        found = ids(answer)
        assert set(found) <= set(expected)
        assert len(found) == min(request.k, len(expected))
        np.testing.assert_allclose(
            [hit.score for hit in answer.found],
            [scores[item_id] for item_id in expected[: request.k]],
            atol=1e-4,
        )

    def test_what_others_asked_for_changes_no_answer(self, engine):
        def asked(value):
            filters = Filters(where=(("price", Condition(any_of=(value,))),))
            return engine.recommend([Request(history=(), filters=filters)])[0]

        assert asked(1).found == asked(1.0).found == []
        assert "is a column of numbers" in str(asked(True))  # equal to 1 in Python

    def test_bounds_are_included_and_what_has_no_value_meets_nothing(self, engine):
        catalog = engine.shelf.catalog
        price = catalog[20].attributes["price"]
        exact = Condition(at_least=price, at_most=price)
        answer = one(engine, history=(), k=99, filters=Filters(where=(("price", exact),)))
        assert catalog.item_ids[20] in ids(answer)
        anything = Condition(any_of=tuple({item.attributes["brand"] for item in catalog} - {None}))
        answer = one(engine, history=(), k=99, filters=Filters(where=(("brand", anything),)))
        assert len(answer.found) == 56 and "new" not in ids(answer)

    @pytest.mark.parametrize("beam", [1, 10])
    def test_k_items_come_back_whatever_the_beam(self, engine, beam):
        catalog = engine.shelf.catalog
        history = tuple(catalog.item_ids[5:8])
        for limit, k in itertools.product([3, 20, 100], [1, 7, 60]):
            filters = Filters(where=(("price", Condition(at_most=limit)),))
            request = Request(history=history, k=k, beam=beam, filters=filters)
            expected = brute_force(engine, request)
            answer = one(engine, history=history, k=k, beam=beam, filters=filters)
            assert len(answer.found) == min(k, len(expected))
            assert set(ids(answer)) <= set(expected)

    def test_company_changes_nothing(self, engine):
        catalog = engine.shelf.catalog
        filters = [
            Filters(),
            Filters(deny=tuple(catalog.item_ids[10:30])),
            Filters(where=(("price", Condition(at_most=30.0)),)),
        ]
        asked = [
            Request(history=tuple(catalog.item_ids[n : n + size]), k=k, filters=f)
            for n, (size, k, f) in enumerate(itertools.product([0, 1, 7], [3, 10], filters))
        ]
        together = engine.recommend(asked)
        for request, answer in zip(asked, together, strict=True):
            (alone,) = engine.recommend([request])
            assert ids(alone) == ids(answer)
            np.testing.assert_allclose(
                [hit.score for hit in alone.found], [hit.score for hit in answer.found], atol=1e-5
            )

    def test_removed_items_are_readable_but_never_recommended(self, engine):
        catalog = engine.shelf.catalog
        gone = catalog.item_ids[:4]
        with_gone = one(engine, history=tuple(gone), k=60)
        assert len(with_gone.found) == 57
        assert not set(ids(with_gone)) & set(gone)
        assert "new" in ids(with_gone)
        without = one(engine, history=(), k=60)
        scores = [hit.score for hit in with_gone.found]
        assert scores != [hit.score for hit in without.found]  # they are read

    def test_why_names_items_that_begin_with_the_same_codes(self, engine):
        catalog, codes = engine.shelf.catalog, engine.shelf.codes
        history = tuple(catalog.item_ids[20:40])
        answer = one(engine, history=history, k=40)
        explained = 0
        for hit in answer.found:
            shared = {
                catalog.index_of(i): next(
                    (n for n in range(3) if codes[catalog.index_of(i)][n] != codes[hit.item][n]),
                    3,
                )
                for i in history
            }
            for reason in hit.why:
                assert shared[reason.item] == reason.shared >= 1
            assert len(hit.why) == min(3, sum(n > 0 for n in shared.values()))
            best = sorted(shared.values(), reverse=True)
            assert [reason.shared for reason in hit.why] == best[: len(hit.why)]
            explained += bool(hit.why)
        assert explained > 10

    def test_unknown_ids(self, engine):
        known = engine.shelf.catalog.item_ids[9]
        filters = Filters(deny=("nobody",), allow=(known, "ghost"))
        with pytest.raises(UnknownItem, match="'who', 'nobody', 'ghost'; correct the ids"):
            one(engine, history=("who", known), filters=filters)
        answer = one(
            engine, history=("who", known), filters=filters, unknown="skip", exclude_seen=False
        )
        assert answer.unknown == ["who", "nobody", "ghost"]
        assert ids(answer) == [known]

    def test_an_error_stays_with_its_request(self, engine):
        good = Request(history=())
        bad = Request(history=("who",))
        first, second, third = engine.recommend([good, bad, good])
        assert isinstance(second, UnknownItem)
        assert ids(first) == ids(third) != []

    @pytest.mark.parametrize(
        ("name", "condition", "message"),
        [
            ("colour", Condition(any_of=("red",)), "no column 'colour' to filter by; it has brand"),
            ("text", Condition(any_of=("x",)), "no column 'text'"),
            ("brand", Condition(at_least=3.0), "brand is a column of words, bounds are for"),
            ("brand", Condition(any_of=(3,)), "brand is a column of words, 3 is none of them"),
            ("price", Condition(any_of=("3",)), 'price is a column of numbers, "3" is none'),
            ("price", Condition(any_of=(True,)), "price is a column of numbers, true is none"),
            ("price", Condition(), "the condition on price is empty"),
        ],
    )
    def test_conditions_that_do_not_fit(self, engine, name, condition, message):
        with pytest.raises(InputError, match=message):
            one(engine, history=(), filters=Filters(where=((name, condition),)))

    def test_settings_outside_their_range(self):
        with pytest.raises(BadConfig, match="k must be at least 1, got 0"):
            Request(history=(), k=0)
        with pytest.raises(BadConfig, match="beam must be at least 1, got 0"):
            Request(history=(), beam=0)


class TestGenerations:
    def test_a_new_item_is_served_and_a_removed_one_is_not(self, store):
        engine, editor = Engine(store), CatalogEditor(store)
        assert not engine.refresh()
        editor.add([{"item_id": "x", "title": "Espresso cup", "price": 3.0}])
        assert "x" not in ids(one(engine, history=(), k=100))
        assert engine.refresh()
        assert "x" in ids(one(engine, history=(), k=100))
        editor.remove(["x"])
        engine.refresh()
        assert "x" not in ids(one(engine, history=("x",), k=100))
        store.activate(1)
        engine.refresh()
        with pytest.raises(UnknownItem):
            one(engine, history=("x",))

    def test_a_damaged_one_does_not_serve(self, store):
        engine = Engine(store)
        CatalogEditor(store, FakeCoder(6, 8)).add([{"item_id": "x", "title": "X"}])
        path = store.path(2) / "codes.parquet"
        path.write_bytes(path.read_bytes() + b"!")
        with pytest.raises(CorruptFile):
            engine.refresh()
        assert engine.shelf.number == 1
        assert len(one(engine, history=(), k=5).found) == 5

    def test_no_request_sees_two_generations(self, store):
        """While generations change all the time, every answer is whole and out of one of them."""
        engine = Engine(store)
        CatalogEditor(store, FakeCoder(6, 8)).remove(store.open().catalog.item_ids[:50])
        lives = {number: store.open(number).rows.live for number in store.numbers}
        stop, seen = threading.Event(), set()

        def change():
            while not stop.is_set():
                for number in store.numbers:
                    store.activate(number)
                    engine.refresh()

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(200):
                answer = one(engine, history=(), k=100, beam=100)
                live = lives[answer.shelf.number]
                assert sorted(hit.item for hit in answer.found) == np.flatnonzero(live).tolist()
                seen.add(answer.shelf.number)
                if len(seen) == 2:
                    break
        finally:
            stop.set()
            thread.join()
        assert seen == {1, 2}


class TestLikeness:
    def test_similar_items_share_the_longest_beginnings(self, engine):
        quantizer = FakeCoder(6, 8).quantizer
        shelf = engine.shelf
        for item in (0, 7, 33):
            found = similar_items(shelf, item, 8, quantizer)
            shared = [
                next((n for n in range(3) if a[n] != b[n]), 3)
                for a, b in ((row, shelf.codes[item]) for row in shelf.codes)
            ]
            expected = sorted(
                (n for i, n in enumerate(shared) if shelf.live[i] and i != item and n), reverse=True
            )
            assert [one.shared for one in found] == expected[:8]
            state = (
                quantizer.embed(torch.from_numpy(shelf.codes.astype(np.int64))).sum(dim=1).detach()
            )
            for one_found in found:
                gap = (state[one_found.item] - state[item]).square().sum()
                assert one_found.distance == pytest.approx(float(gap), rel=1e-4, abs=1e-5)
                assert shared[one_found.item] == one_found.shared
            keys = [(-one.shared, one.distance) for one in found]
            assert keys == sorted(keys)

    def test_the_tree_holds_every_live_item_once(self, engine):
        def leaves(prefix):
            place = look_up(engine.shelf, prefix, 3)
            assert sum(branch.items for branch in place.branches) in (0, place.items)
            if not place.branches:
                assert len(prefix) == 3
                return place.examples
            below = [leaves([*prefix, branch.code]) for branch in place.branches]
            for branch, items in zip(place.branches, below, strict=True):
                assert branch.items == len(items)
            return [item for items in below for item in items]

        assert sorted(leaves([])) == np.flatnonzero(engine.shelf.live).tolist()

    @pytest.mark.parametrize("prefix", [[6], [-1], [0, 8], [0, 0, 0, 0]])
    def test_no_such_place(self, engine, prefix):
        with pytest.raises(InputError, match="each from 0 to below 6, 8, 8"):
            look_up(engine.shelf, prefix, 3)
