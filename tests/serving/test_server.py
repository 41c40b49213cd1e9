"""The server as its callers see it: answers, errors, limits, keys, and changes while it serves."""

import asyncio
import base64
import dataclasses
import json
import logging
import os
import threading
import time
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import FAST, LOCAL, fine, known, serve, wrong
from small_shops import FakeCoder, png

from utgrec.errors import BadConfig, CorruptFile, InputError
from utgrec.serving import schemas, user_schemas
from utgrec.serving.app import create_app
from utgrec.serving.batching import BatchingConfig
from utgrec.serving.changes import CatalogEditor, Published
from utgrec.serving.generations import GenerationStore
from utgrec.serving.guards import MOST_HEAD_BYTES
from utgrec.serving.keys import add_key, find_key, read_keys
from utgrec.serving.service import ServiceConfig
from utgrec.serving.starting import JsonLines


@pytest.fixture(scope="module")
def client(trained, tmp_path_factory):
    """A server that no test changes."""
    import shutil

    run = tmp_path_factory.mktemp("read") / "run"
    shutil.copytree(trained, run)
    with serve(GenerationStore(run)) as client:
        yield client


@pytest.fixture
def own(store):
    """A server that a test may change, and its run."""
    with serve(store) as client:
        yield client


class TestRecommend:
    def test_it_is_what_the_engine_says(self, client):
        ids = known(client)
        body = {"histories": [ids[:3], [], ids[7:30]], "k": 7, "exclude_seen": False}
        got = fine(client.post("/v1/recommend", json=body), schemas.RecommendOut)
        assert got["generation"] == 1
        requests = schemas.RecommendIn(**body).requests()
        engine = client.app.state.service.engine
        for answer, expected in zip(got["answers"], engine.recommend(requests), strict=True):
            assert [ids.index(hit["item_id"]) for hit in answer["items"]] == [
                hit.item for hit in expected.found
            ]
            assert [hit["score"] for hit in answer["items"]] == pytest.approx(
                [hit.score for hit in expected.found]
            )
            for hit, one in zip(answer["items"], expected.found, strict=True):
                assert hit["codes"] == engine.shelf.codes[one.item].tolist()
                assert [(w["item_id"], w["shared_codes"]) for w in hit["why"]] == [
                    (ids[reason.item], reason.shared) for reason in one.why
                ]

    def test_filters(self, client):
        shelf = client.app.state.service.shelf
        brand = shelf.catalog[5].attributes["brand"]
        body = {
            "history": [],
            "k": 60,
            "filters": {
                "category": ["kitchen"],
                "price": {"min": 1, "max": 60},
                "where": {"brand": [brand, "none"]},
                "deny": [shelf.catalog.item_ids[5]],
            },
        }
        got = fine(client.post("/v1/recommend", json=body), schemas.RecommendOut)
        expected = {
            item.item_id
            for number, item in enumerate(shelf.catalog)
            if item.attributes["brand"] == brand
            and "kitchen" in item.attributes["category"]
            and 1 <= item.attributes["price"] <= 60
            and number != 5
        }
        assert {hit["item_id"] for hit in got["answers"][0]["items"]} == expected
        only = {"history": [], "filters": {"allow": sorted(expected), "where": {"brand": brand}}}
        again = fine(client.post("/v1/recommend", json=only), schemas.RecommendOut)
        assert {hit["item_id"] for hit in again["answers"][0]["items"]} == expected

    def test_unknown_ids_are_named_or_skipped_as_asked(self, client):
        body = {"history": ["nobody", known(client)[0]]}
        assert (
            "'nobody'"
            in wrong(client.post("/v1/recommend", json=body), 422, "unknown-item")["detail"]
        )
        body["unknown"] = "skip"
        got = fine(client.post("/v1/recommend", json=body), schemas.RecommendOut)
        assert got["answers"][0]["unknown"] == ["nobody"]
        assert len(got["answers"][0]["items"]) == 10

    @pytest.mark.parametrize(
        ("body", "field", "value"),
        [
            ({"history": [], "k": 0}, "body.k", "0"),
            ({"history": [], "k": 201}, "body.k", "201"),
            ({"history": [], "beam": 5000}, "body.beam", "5000"),
            ({"history": [""]}, "body.history.0", '""'),
            ({"history": ["x"] * 1001}, "body.history", None),
            ({"histories": [[]] * 65}, "body.histories", None),
            ({"histories": []}, "body.histories", "[]"),
            ({"history": [], "histories": [[]]}, "body", None),
            ({}, "body", "{}"),
            ({"history": [], "unknown": "ignore"}, "body.unknown", '"ignore"'),
            ({"history": [], "top": 3}, "body.top", "3"),
            ({"history": [], "filters": {"price": {"max": "1e999"}}}, None, None),
            ({"history": [], "filters": {"price": [1]}}, "body.filters.price", "[1]"),
            ({"history": "A,B"}, "body.history", '"A,B"'),
        ],
    )
    def test_what_is_wrong_is_named(self, client, body, field, value):
        document = wrong(client.post("/v1/recommend", json=body), 422, "invalid-input")
        found = document["errors"][0]
        assert field is None or found["field"] == field
        assert value is None or found["value"] == value
        assert found["rule"]
        assert len(found["value"]) <= 101

    def test_a_filter_that_does_not_fit(self, client):
        body = {"history": [], "filters": {"where": {"colour": "red"}}}
        document = wrong(client.post("/v1/recommend", json=body), 422, "invalid-input")
        assert (
            "no column 'colour' to filter by; it has brand, category, price" in document["detail"]
        )

    @pytest.mark.parametrize(
        "content", [b"{", b"", b"\xff\xfe", b'{"history": ' + b"[" * 50_000, b"9" * 5000]
    )
    def test_what_is_no_json(self, client, content):
        headers = {"content-type": "application/json"}
        answer = client.post("/v1/recommend", content=content, headers=headers)
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"


class TestItems:
    def test_one_item(self, client):
        shelf = client.app.state.service.shelf
        place = next(n for n, image in enumerate(shelf.catalog.images) if image)
        item = shelf.catalog[place]
        got = fine(client.get(f"/v1/items/{item.item_id}"), schemas.ItemOut)
        assert (got["title"], got["text"]) == (item.title, item.text)
        assert (got["live"], got["since"]) == (True, 1)
        assert got["attributes"] == item.attributes
        picture = client.get(got["image"])
        assert picture.content == item.image.read_bytes()
        assert picture.headers["content-type"] == "image/png"
        assert picture.headers["x-content-type-options"] == "nosniff"

    def test_similar_ones(self, client):
        codes = client.app.state.service.shelf.codes
        item_id = known(client)[4]
        got = fine(client.get(f"/v1/similar/{item_id}?k=5"), schemas.SimilarsOut)
        for one in got["items"]:
            assert codes[known(client).index(one["item_id"])][0] == codes[4][0]
        assert 0 < len(got["items"]) <= 5

    def test_what_is_not_there(self, client):
        for path in ("/v1/items/x", "/v1/similar/x", "/v1/images/x", "/v1/items/..%2f..%2fetc"):
            assert "never had" in wrong(client.get(path), 404, "not-found")["detail"]
        wrong(client.delete("/v1/items/x"), 404, "not-found")
        wrong(client.get("/v2"), 404, "not-found")
        wrong(client.put("/v1/recommend", json={}), 405, "method-not-allowed")

    def test_the_tree_of_codes(self, client):
        top = fine(client.get("/v1/codes"), schemas.PlaceOut)
        assert top["items"] == 60 == sum(branch["items"] for branch in top["branches"])
        code = top["branches"][0]["code"]
        below = fine(client.get(f"/v1/codes/{code}?examples=100"), schemas.PlaceOut)
        assert below["items"] == top["branches"][0]["items"] == len(below["examples"])
        wrong(client.get("/v1/codes/6"), 422, "invalid-input")
        wrong(client.get("/v1/codes/one"), 404, "not-found")
        wrong(client.get("/v1/codes/1?examples=-1"), 422, "invalid-input")

    def test_tokenize(self, client, trained, tmp_path):
        from utgrec.tokenizer.pretrained import ItemTokenizer

        tokenizer = ItemTokenizer.from_pretrained(trained / "tokenizer")
        picture = png(tmp_path / "x.png")
        for body, expected in (
            ({"text": "Blue cup."}, tokenizer.encode(text="Blue cup.")),
            (
                {"text": "Blue cup.", "image": base64.b64encode(picture).decode()},
                tokenizer.encode(text="Blue cup.", image=tmp_path / "x.png"),
            ),
        ):
            got = fine(client.post("/v1/tokenize", json=body), schemas.CodesOut)
            assert got["codes"] == list(expected)
        wrong(client.post("/v1/tokenize", json={}), 422, "invalid-input")
        wrong(client.post("/v1/tokenize", json={"image": "é"}), 422, "invalid-input")


class TestChanges:
    @pytest.mark.parametrize("item_id", ["new/cup ?#1", "two\nlines", "open end\n"])
    def test_an_item_is_live_with_the_answer_and_gone_with_the_next(self, own, tmp_path, item_id):
        picture = png(tmp_path / "x.png")
        item = {
            "item_id": item_id,
            "title": "Blue cup",
            "price": 3.5,
            "image": base64.b64encode(picture).decode(),
        }
        made = fine(own.post("/v1/items", json={"items": [item]}), schemas.PublishedOut)
        assert (made["generation"], made["active"]) == (2, True)
        assert made["changes"]["added"] == [item_id]
        body = {"history": [], "filters": {"allow": [item_id]}}
        got = fine(own.post("/v1/recommend", json=body), schemas.RecommendOut)
        (hit,) = got["answers"][0]["items"]
        assert (hit["item_id"], hit["codes"]) == (item_id, made["codes"][item_id])
        assert own.get(hit["image"]).content == picture
        change = {"items": [{"item_id": item_id, "price": 9}], "replace": True}
        fine(own.post("/v1/items", json=change), schemas.PublishedOut)
        path = f"/v1/items/{quote(item_id, safe='')}"
        assert own.get(path).json()["attributes"]["price"] == 9.0
        gone = fine(own.delete(path), schemas.PublishedOut)
        assert gone["changes"]["removed"] == [item_id]
        got = fine(own.post("/v1/recommend", json=body), schemas.RecommendOut)
        assert got["answers"][0]["items"] == []
        assert own.get(path).json()["live"] is False
        wrong(own.delete(path), 404, "not-found")

    def test_heads_of_answers_for_those_who_only_look(self, own):
        for path in ("/healthz", "/v1/overview", f"/v1/items/{known(own)[0]}", "/"):
            whole, head = own.get(path), own.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(whole.content))
        assert own.head("/v1/items/nothing").status_code == 404
        assert own.head("/v1/recommend").status_code == 405

    def test_old_generations_go_once_there_are_twice_as_many_as_are_kept(self, store):
        config = dataclasses.replace(FAST, keep_generations=3)
        with serve(store, config, coder=FakeCoder(6, 8)) as client:
            for number in range(8):
                item = {"item_id": f"n{number}", "title": "x"}
                fine(client.post("/v1/items", json={"items": [item]}), schemas.PublishedOut)
            until = time.monotonic() + 20
            while len(store.numbers) >= 6 and time.monotonic() < until:
                time.sleep(0.02)
            assert {1, 8, 9} <= set(store.numbers) and len(store.numbers) < 6
            assert client.post("/v1/recommend", json={"history": ["n0"]}).status_code == 200
            fine(client.post("/v1/generations", json={"rollback": True}), schemas.GenerationsOut)

    def test_changes_within_one_tick_of_the_clock_are_seen(self, own, store):
        CatalogEditor(store).remove([known(own)[0]])
        other = store.folder / "other"
        for number in (1, 2, 1):
            other.write_text(f"{number}\n")
            os.utime(other, ns=(10**18, 10**18))
            os.replace(other, store.folder / "CURRENT")
            until = time.monotonic() + 60
            while own.get("/readyz").json()["generation"] != number:
                assert time.monotonic() < until
                time.sleep(0.01)

    def test_generations_are_listed_activated_and_rolled_back(self, own):
        fine(own.delete(f"/v1/items/{known(own)[0]}"), schemas.PublishedOut)
        listed = fine(own.get("/v1/generations"), schemas.GenerationsOut)
        assert [one["active"] for one in listed["generations"]] == [False, True]
        back = own.post("/v1/generations", json={"rollback": True})
        assert fine(back, schemas.GenerationsOut)["serving"] == 1
        there = own.post("/v1/generations", json={"activate": 2})
        assert fine(there, schemas.GenerationsOut)["serving"] == 2
        wrong(own.post("/v1/generations", json={"activate": 9}), 404, "not-found")
        wrong(own.post("/v1/generations", json={}), 422, "invalid-input")
        both = {"activate": 1, "rollback": True}
        wrong(own.post("/v1/generations", json=both), 422, "invalid-input")

    def test_what_others_publish_is_served_too(self, own, store):
        first = known(own)[0]
        CatalogEditor(store).remove([first])
        for _ in range(200):
            if own.get("/readyz").json()["generation"] == 2:
                break
            time.sleep(0.02)
        assert own.get(f"/v1/items/{first}").json()["live"] is False

    def test_what_cannot_be_read_ends_no_watch(self, own, store):
        (store.folder / "CURRENT").write_bytes(b"\xff\xfe")
        for _ in range(200):
            if "utgrec_refused_generations_total 1.0" in own.get("/metrics").text:
                break
            time.sleep(0.02)
        wrong(own.get("/v1/generations"), 409, "damaged-files")
        store.activate(1)
        self.test_what_others_publish_is_served_too(own, store)

    def test_a_damaged_generation_never_serves(self, own, store):
        CatalogEditor(store).remove([known(own)[0]], activate=False)
        path = store.path(2) / "codes.parquet"
        path.write_bytes(path.read_bytes() + b"!")
        wrong(own.post("/v1/generations", json={"activate": 2}), 409, "damaged-files")
        (store.folder / "CURRENT").write_text("2\n")
        for _ in range(200):
            if "utgrec_refused_generations_total 1.0" in own.get("/metrics").text:
                break
            time.sleep(0.02)
        assert "utgrec_refused_generations_total 1.0" in own.get("/metrics").text
        assert own.get("/readyz").json() == {"status": "ready", "generation": 1}
        with pytest.raises(CorruptFile):
            create_app(store)  # and a new server does not begin with it

    def test_generations_change_under_load_without_a_failed_request(self, own, store):
        CatalogEditor(store).remove(known(own)[:30])
        stop, failed, answered = threading.Event(), [], []

        def ask():
            while not stop.is_set():
                answer = own.post("/v1/recommend", json={"history": [], "k": 60})
                if answer.status_code != 200:
                    failed.append(answer.text)
                    return
                document = answer.json()
                count = len(document["answers"][0]["items"])
                answered.append((document["generation"], count))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in (1, 2) * 6:
                assert own.post("/v1/generations", json={"activate": number}).status_code == 200
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failed == []
        assert set(answered) == {(1, 60), (2, 30)}

    @pytest.mark.parametrize(
        ("item", "words"),
        [
            ({"item_id": "n"}, "without words and without picture"),
            ({"item_id": "n", "title": "x", "colour": "red"}, "field 'colour' is not one"),
            ({"item_id": "n", "title": "x", "price": "cheap"}, "price is 'cheap'"),
            ({"item_id": "n", "title": "x", "price": 10**400}, "price is 1000"),
            ({"item_id": "n", "image": base64.b64encode(b"MZ...").decode()}, "of item 'n'"),
            ({"title": "x"}, "cannot be used: body.items.0.item_id"),
            ({"item_id": "n", "image": "???"}, "cannot be used: body.items.0.image"),
            ({"item_id": "\ud800", "title": "x"}, "cannot be used: body.items.0.item_id"),
        ],
    )
    def test_items_that_cannot_be_published(self, own, store, item, words):
        body = json.dumps({"items": [item]})
        headers = {"content-type": "application/json"}
        answer = own.post("/v1/items", content=body, headers=headers)
        assert words in wrong(answer, 422, "invalid-input")["detail"]
        assert store.numbers == [1]

    def test_a_picture_with_too_many_pixels(self, own, tmp_path):
        from PIL import Image

        Image.new("1", (20, 6)).save(tmp_path / "big.png")
        data = base64.b64encode((tmp_path / "big.png").read_bytes()).decode()
        for path, body in (
            ("/v1/items", {"items": [{"item_id": "n", "image": data}]}),
            ("/v1/tokenize", {"image": data}),
        ):
            document = wrong(own.post(path, json=body), 422, "invalid-input")
            assert "20 × 6 pixels are more than the 100 allowed" in document["detail"]


class TestGuards:
    def test_bodies_that_are_too_large(self, client):
        big = b"[" + b" " * 200_000 + b"]"

        def in_parts():
            for start in range(0, len(big), 50_000):
                yield big[start : start + 50_000]

        for content in (big, in_parts()):
            answer = client.post("/v1/recommend", content=content)
            assert "larger than 200,000 bytes" in wrong(answer, 413, "body-too-large")["detail"]

    def test_heads_that_are_too_large(self, client):
        for path, headers in (
            ("/healthz", {"x-long": "x" * MOST_HEAD_BYTES}),
            (f"/v1/items/{'x' * MOST_HEAD_BYTES}", {}),
            (f"/healthz?x={'x' * MOST_HEAD_BYTES}", {}),
        ):
            wrong(client.get(path, headers=headers), 431, "headers-too-large")
        assert client.get("/healthz", headers={"x-long": "x" * 30_000}).status_code == 200

    def test_other_names_are_refused_without_keys(self, client):
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
            wrong(client.get("/readyz", headers={"host": host}), 421, "wrong-host")
        for host in ("127.0.0.1:8000", "[::1]:8000", "[::1]", "LOCALHOST"):
            assert client.get("/readyz", headers={"host": host}).status_code == 200

    def test_keys_and_their_roles(self, store, tmp_path):
        path = tmp_path / "keys.json"
        words = {role: add_key(path, role, role) for role in ("read", "write")}
        assert not any(word in path.read_text() for word in words.values())
        assert path.stat().st_mode & 0o077 == 0
        with serve(store, keys=read_keys(path)) as client:

            def status(method, url, word, **given):
                headers = {"host": "shop.example"}
                if word:
                    headers["authorization"] = f"Bearer {word}"
                return client.request(method, url, headers=headers, **given).status_code

            asked = {"json": {"history": []}}
            first = f"/v1/items/{known(client)[0]}"
            for word, read, write in (
                (None, 401, 401),
                ("guess", 401, 401),
                (words["read"], 200, 403),
                (words["write"], 200, 200),
            ):
                assert status("POST", "/v1/recommend", word, **asked) == read
                assert status("GET", "/metrics", word) == read
                assert status("GET", first, word) == read
                assert status("DELETE", first, word) == write
            assert status("GET", "/healthz", None) == 200
            assert status("GET", "/readyz", None) == 200
            answer = client.get(first)
            assert answer.headers["www-authenticate"] == "Bearer"
            wrong(answer, 401, "unauthorized")

    def test_every_route_but_the_open_ones_asks_for_a_key(self, store, tmp_path):
        add_key(tmp_path / "keys.json", "x", "read")
        with serve(store, keys=read_keys(tmp_path / "keys.json")) as client:
            document = client.get("/openapi.json").json()
            open_ones = set()
            for path, methods in document["paths"].items():
                for method in methods:
                    url = path.replace("{item_id}", "x").replace("{codes}", "1")
                    if client.request(method, url, json={}).status_code != 401:
                        open_ones.add((method, path))
            assert open_ones == {("get", "/healthz"), ("get", "/readyz")}

    def test_files_of_keys(self, tmp_path):
        path = tmp_path / "keys.json"
        with pytest.raises(InputError, match="there is no file"):
            read_keys(path)
        word = add_key(path, "a", "read")
        with pytest.raises(BadConfig, match="has a key 'a'"):
            add_key(path, "a", "write")
        assert find_key(read_keys(path), word).name == "a"
        assert find_key(read_keys(path), word + "x") is None
        path.write_text('{"keys": [{"name": "a", "role": "all", "sha256": "0"}]}')
        with pytest.raises(CorruptFile, match="no known role"):
            read_keys(path)
        path.write_text("[]")
        with pytest.raises(CorruptFile, match="not a file of keys"):
            read_keys(path)

    def test_a_logged_error_says_what_and_where_without_its_message(self):
        try:
            raise ValueError("what the caller sent")
        except ValueError as error:
            record = logging.makeLogRecord(
                {"msg": "a search failed", "exc_info": (ValueError, error, error.__traceback__)}
            )
        written = JsonLines().format(record)
        line = json.loads(written)
        assert (line["event"], line["error"]) == ("a search failed", "ValueError")
        assert line["at"][-1].startswith(__file__)
        assert "caller sent" not in written

    def test_logs_and_figures_hold_nothing_of_the_caller(self, client, caplog):
        secret = "my-very-own-history"
        with caplog.at_level(logging.INFO):
            client.post("/v1/recommend", json={"history": [secret]})
            client.get(f"/v1/items/{secret}?{secret}", headers={"x-request-id": secret})
            client.request(secret.upper(), f"/{secret}")
        records = [record for record in caplog.records if record.name == "utgrec.serving.access"]
        assert [record.facts["status"] for record in records] == [422, 404, 404]
        assert records[1].facts["route"] == "/v1/items/{item_id:id}"
        assert secret not in "".join(str(record.__dict__) for record in records).lower()
        figures = client.get("/metrics").text
        assert secret not in figures.lower()
        assert 'utgrec_requests_total{method="other",route="unmatched",status="404"} 1.0' in figures
        assert "utgrec_live_items 60.0" in figures

    def test_what_breaks_inside_is_not_shown(self, store, caplog, monkeypatch):
        with serve(store) as client:
            shelf = client.app.state.service.shelf

            def broken(*_):
                raise ValueError("a secret of the caller")

            monkeypatch.setattr(type(shelf), "search", broken)
            answer = client.post("/v1/recommend", json={"history": []})
            document = wrong(answer, 500, "internal")
            assert "secret" not in answer.text
            assert answer.headers["x-request-id"] in document["detail"]
            record = next(r for r in caplog.records if r.name == "utgrec.serving.access")
            assert record.facts["error"] == "RuntimeError"
            assert "secret" not in str(record.facts)


class TestLoad:
    def test_too_many_are_refused_with_a_time_and_all_others_answered(self, store):
        config = ServiceConfig(batching=BatchingConfig(most_waiting=4, most_together=2))
        app = create_app(store, config)

        async def main():
            transport = httpx2.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx2.AsyncClient(transport=transport, base_url=LOCAL) as client,
            ):
                return await asyncio.gather(
                    *(client.post("/v1/recommend", json={"history": []}) for _ in range(40))
                )

        answers = asyncio.run(main())
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(answers) == 40
        assert {answer.status_code for answer in answers} == {200, 429}
        assert 0 < len(refused) < 40
        for answer in refused:
            wrong(answer, 429, "overloaded")
            assert 1 <= int(answer.headers["retry-after"]) <= 60

    def test_stopping_answers_what_was_accepted(self, store):
        app = create_app(store, FAST)

        async def main():
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as client:
                async with app.router.lifespan_context(app):
                    asked = [
                        asyncio.create_task(client.post("/v1/recommend", json={"history": []}))
                        for _ in range(20)
                    ]
                    removed = asyncio.create_task(client.delete(f"/v1/items/{known_id}"))
                    while not app.state.service.batcher.waiting:
                        await asyncio.sleep(0)
                late = await client.get("/readyz")
                refused = await client.post("/v1/recommend", json={"history": []})
                return await asyncio.gather(*asked, removed), late, refused

        known_id = app.state.service.shelf.catalog.item_ids[0]
        answers, late, refused = asyncio.run(main())
        assert [answer.status_code for answer in answers] == [200] * 21
        assert (late.status_code, late.json()["status"]) == (503, "draining")
        assert "about to stop" in wrong(refused, 429, "overloaded")["detail"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


class TestFuzz:
    @settings(
        max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.data())
    def test_nothing_a_caller_sends_breaks_the_server(self, client, data):
        """Bodies around those that OpenAPI describes; the catalogue is never changed by them."""
        fields = {
            "/v1/recommend": [*schemas.RecommendIn.model_fields],
            "/v1/tokenize": [*schemas.TextIn.model_fields],
            "/v1/generations": ["activated"],
            "/v1/items": ["items", "replace"],
        }
        path = data.draw(st.sampled_from(sorted(fields)))
        value = st.one_of(
            JSON,
            st.lists(st.sampled_from([*known(client)[:5], "?"]), max_size=3),
            st.fixed_dictionaries(
                {},
                optional={
                    "category": JSON,
                    "price": st.fixed_dictionaries({}, optional={"min": JSON, "max": JSON}),
                    "where": st.dictionaries(st.sampled_from(["brand", "price", "x"]), JSON),
                    "deny": JSON,
                },
            ),
        )
        body = data.draw(st.dictionaries(st.sampled_from(fields[path]), value) | JSON)
        answer = client.post(
            path, content=json.dumps(body), headers={"content-type": "application/json"}
        )
        assert answer.status_code in (200, 400, 422)
        if answer.status_code != 200:
            wrong(answer, answer.status_code, answer.json()["type"].rpartition(":")[2])
        assert client.app.state.service.store.numbers == [1]


def test_openapi_names_every_operation_once_and_shortly(client):
    paths = client.get("/openapi.json").json()["paths"]
    names = [one["operationId"] for methods in paths.values() for one in methods.values()]
    assert len(names) == len(set(names)) > 20
    assert {"recommend", "get_item", "add_items", "recommend_to_user", "codes_below"} <= set(names)
    assert max(map(len, names)) <= 24


def test_openapi_has_examples_for_every_body(client):
    document = client.get("/openapi.json").json()
    bodies = {
        content["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for methods in document["paths"].values()
        for operation in methods.values()
        if "application/json" in (content := operation.get("requestBody", {})).get("content", {})
    }
    assert len(bodies) == 5
    found = document["components"]["schemas"]
    models = vars(schemas) | vars(user_schemas)
    for name in bodies - {"ItemsIn"}:
        for example in found[name]["examples"]:
            models[name].model_validate(example)
    assert found["NewItemIn"]["examples"]
    for example in found["RecommendOut"]["examples"]:
        parsed = schemas.RecommendOut.model_validate(example, strict=True)
        assert parsed.model_dump() == example


def test_openapi_has_an_example_or_a_default_for_every_parameter(client):
    document = client.get("/openapi.json").json()
    bare = [
        (path, one["name"])
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for one in operation.get("parameters", [])
        if not {"default", "examples"} & {*one, *one["schema"]}
    ]
    assert bare == []


def test_what_is_published_is_documented():
    assert set(schemas.PublishedOut.model_fields) == {
        "generation",
        "active",
        "changes",
        "codes",
        "drift",
    }
    assert set(Published._fields) == {"generation", "active", "codes", "delta", "drift"}
