"""Whatever is wrong with a request, the answer is a problem document that names it."""

import base64
import errno
import io
import os
import struct
import zlib

import pytest
from PIL import Image
from served import FAST, fine, known, serve, wrong
from small_shops import FakeCoder, png

from utgrec.serving import schemas
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.problem_schema import Problem


@pytest.fixture
def own(store):
    with serve(store, coder=FakeCoder(6, 8)) as client:
        yield client


def bomb(width, height):
    """A PNG of a few hundred bytes that claims to have very many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class TestBodies:
    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
    def test_only_json_is_taken(self, own, kind):
        headers = {} if kind is None else {"content-type": kind}
        for path in ("/v1/recommend", "/v1/items", "/v1/events", "/v1/nothing"):
            answer = own.post(path, content=b'{"history": []}', headers=headers)
            document = wrong(answer, 415, "unsupported-media-type")
            assert (kind or "no stated type") in document["detail"]
        for kind in ("application/json", "Application/JSON; charset=utf-8"):
            answer = own.post(
                "/v1/recommend", content=b'{"history": []}', headers={"content-type": kind}
            )
            assert answer.status_code == 200

    def test_other_methods_and_routes(self, own):
        for method, path in (
            ("PATCH", "/v1/recommend"),
            ("DELETE", "/v1/generations"),
            ("POST", "/healthz"),
        ):
            answer = own.request(method, path, json={})
            (error,) = wrong(answer, 405, "method-not-allowed")["errors"]
            assert answer.headers["allow"]
            assert error["rule"] == f"is one of {answer.headers['allow']}"
        for path in ("/v1", "/v1/nothing", "/.git/config", "/%00"):
            wrong(own.get(path), 404, "not-found")


class TestFields:
    def test_unknown_ids_are_named_where_they_are(self, own):
        ids = known(own)
        body = {
            "history": [ids[0], "nobody", "x" * 300],
            "filters": {"deny": [ids[1], "no1"], "allow": ["no2"]},
        }
        errors = wrong(own.post("/v1/recommend", json=body), 422, "unknown-item")["errors"]
        assert [(one["field"], one["value"][:8]) for one in errors] == [
            ("body.history.1", '"nobody"'),
            ("body.history.2", '"xxxxxxx'),
            ("body.filters.allow.0", '"no2"'),
            ("body.filters.deny.1", '"no1"'),
        ]
        assert all(one["rule"] == "is in the catalogue" for one in errors)
        assert max(len(one["value"]) for one in errors) <= 101
        several = {"histories": [ids[:2], [ids[0], "nobody"]]}
        errors = wrong(own.post("/v1/recommend", json=several), 422, "unknown-item")["errors"]
        assert [one["field"] for one in errors] == ["body.histories.1.1"]

    @pytest.mark.parametrize(
        ("filters", "field", "value", "rule"),
        [
            ({"where": {"colour": "red"}}, "where.colour", '["red"]', "no column 'colour'"),
            ({"where": {"brand": {"min": 1}}}, "where.brand", '{"min": 1.0}', "are for numbers"),
            ({"where": {"price": [2, "low"]}}, "where.price", '[2, "low"]', "is none of them"),
            ({"where": {"price": {}}}, "where.price", "{}", "is empty"),
            ({"where": {"price": None}}, "where.price", "null", "valid object"),
            ({"where": {"price": [[3]]}}, "where.price.0", "[3]", "a valid string; or: "),
            ({"where": {"price": {"min": "low"}}}, "where.price.min", '"low"', "a valid number"),
            ({"where": {"price": {"least": 1}}}, "where.price.least", "1", "not permitted"),
            ({"price": {}}, "price", "{}", "is empty"),
            ({"price": 5}, "price", "5", "valid object"),
            ({"category": "toys"}, "category", '"toys"', "a valid list"),
            ({"where": {"price": [1, 10**400]}}, "where.price", "1" + "0" * 99 + "…", "64-bit"),
        ],
        ids=lambda one: str(one)[:40],
    )
    def test_filters_that_do_not_fit(self, own, filters, field, value, rule):
        body = {"history": [], "filters": filters}
        document = wrong(own.post("/v1/recommend", json=body), 422, "invalid-input")
        told = {one["field"]: one for one in document["errors"]}
        error = told[f"body.filters.{field}"]
        assert error["value"] == value
        assert rule in error["rule"]
        assert "BoundsIn" not in str(document) and "dictionary" not in str(document)

    @pytest.mark.parametrize(
        ("item", "field", "value", "rule"),
        [
            ({"item_id": "KIT00001"}, "item_id", '"KIT00001"', "is not in the catalogue"),
            ({"item_id": "A"}, "item_id", '"A"', "has words or a picture"),
            ({"item_id": "A", "titel": "x"}, "titel", '"x"', "is a field of this catalogue"),
            ({"item_id": "A", "price": "a lot"}, "price", '"a lot"', "can be kept as double"),
            ({"item_id": "B", "title": "x"}, "item_id", '"B"', "names one item"),
            (
                {"item_id": "A", "image": base64.b64encode(b"GIF").decode()},
                "image",
                "3 bytes",
                "cannot be decoded",
            ),
        ],
    )
    def test_items(self, own, item, field, value, rule):
        items = {"items": [{"item_id": "B", "title": "fine"}, item]}
        document = wrong(own.post("/v1/items", json=items), 422, "invalid-input")
        (error,) = document["errors"]
        assert (error["field"], error["value"]) == (f"body.items.1.{field}", value)
        assert error["rule"].startswith(rule)
        assert "0x" not in document["detail"]  # where an object was in memory
        assert own.app.state.service.store.numbers == [1]

    def test_generations_are_told_without_the_servers_folders(self, own, store):
        document = wrong(own.post("/v1/generations", json={"activate": 9}), 404, "not-found")
        assert document["detail"] == "there is no generation 9; the newest ones are 1"
        for answer in (own.post("/v1/generations", json={"rollback": True}), own.get("/report")):
            assert answer.status_code in (404, 422)
            assert str(store.run.path) not in answer.text

    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "field", "value"),
        [
            ("GET", "/v1/items/none", None, 404, "path.item_id", '"none"'),
            ("DELETE", "/v1/items/none", None, 404, "path.item_id", '"none"'),
            ("GET", "/v1/similar/none", None, 404, "path.item_id", '"none"'),
            ("GET", "/v1/codes/1/99", None, 422, "path.codes", "1/99"),
            ("GET", "/v1/codes/one", None, 404, "path.codes", '"one"'),
            ("GET", "/v1/tree/1/1/1/1", None, 422, "path.codes", "1/1/1/1"),
            ("GET", "/v1/nothing", None, 404, "path", '"/v1/nothing"'),
            ("PATCH", "/v1/recommend", {}, 405, "method", '"PATCH"'),
            ("POST", "/v1/generations", {"activate": 9}, 404, "body.activate", "9"),
            ("POST", "/v1/generations", {"rollback": True}, 422, "body.rollback", "true"),
            ("POST", "/v1/tokenize", {"image": "TVo="}, 422, "body.image", "2 bytes"),
            (
                "POST",
                "/v1/items",
                {"replace": True, "items": [{"item_id": "no", "price": 1}]},
                422,
                "body.items.0.item_id",
                '"no"',
            ),
        ],
    )
    def test_paths_and_other_parts(self, own, method, path, body, status, field, value):
        answer = own.request(method, path, json=body)
        name = answer.json()["type"].rpartition(":")[2]
        (error,) = wrong(answer, status, name)["errors"]
        assert (error["field"], error["value"]) == (field, value)

    def test_damaged_files_are_told_without_the_servers_folders(self, own, store, caplog):
        CatalogEditor(store).remove([known(own)[0]], activate=False)
        path = store.path(2) / "codes.parquet"
        path.write_bytes(path.read_bytes() + b"!")
        document = wrong(own.post("/v1/generations", json={"activate": 2}), 409, "damaged-files")
        assert str(store.folder) not in str(document) and "codes.parquet" not in str(document)
        assert str(path) in caplog.text
        manifest = store.path(2) / "manifest.json"
        manifest.write_text("{")
        answer = fine(own.get("/v1/generations"), schemas.GenerationsOut)
        assert str(store.folder) not in str(answer)
        assert [bool(one["problem"]) for one in answer["generations"]] == [False, True]

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
    def test_a_disk_that_cannot_be_written(self, own, store, monkeypatch, caplog, number):
        def refuse(*_):
            raise OSError(number, os.strerror(number), str(store.folder))

        monkeypatch.setattr("utgrec.serving.generations.storage.write_text", refuse)
        answer = own.post("/v1/generations", json={"activate": 1})
        document = wrong(answer, 503, "unavailable")
        assert answer.headers["retry-after"] and str(store.folder) not in str(document)
        assert os.strerror(number) in caplog.text
        monkeypatch.undo()
        fine(own.post("/v1/generations", json={"activate": 1}), schemas.GenerationsOut)

    def test_what_is_no_json_is_told_apart_from_wrong_fields(self, own):
        headers = {"content-type": "application/json"}
        answer = own.post("/v1/recommend", content=b'{"history": [}', headers=headers)
        assert "no JSON" in wrong(answer, 400, "bad-request")["detail"]

    @pytest.mark.parametrize(
        "content", [b'{"history": ["\xff"]}', b'{"k": ' + b"9" * 5000 + b"}", b"[" * 50_000]
    )
    def test_json_that_cannot_be_read_is_the_fault_of_the_body(self, own, content):
        headers = {"content-type": "application/json"}
        answer = own.post("/v1/recommend", content=content, headers=headers)
        document = wrong(answer, 400, "bad-request")
        assert "no JSON that can be read" in document["detail"]
        assert [one["field"] for one in document["errors"]] == ["body"]

    def test_events(self, own, tmp_path):
        event = {"event_id": "e", "user_id": "u", "item_id": "?"}
        wrong(own.post("/v1/events", json={"events": [event]}), 404, "not-found")


class TestPictures:
    def put(self, client, item_id, data, kind="image/png"):
        headers = {"content-type": kind}
        return client.put(f"/v1/images/{item_id}", content=data, headers=headers)

    def test_a_picture_is_what_its_bytes_are(self, own, tmp_path):
        item_id = known(own)[3]
        codes = own.get(f"/v1/items/{item_id}").json()["codes"]
        data = png(tmp_path / "x.png")
        made = fine(self.put(own, item_id, data, "text/html"), schemas.PublishedOut)
        assert made["changes"]["replaced"] == [item_id]
        got = own.get(f"/v1/images/{item_id}")
        assert (got.content, got.headers["content-type"]) == (data, "image/png")
        assert own.get(f"/v1/items/{item_id}").json()["codes"] == codes
        # Whoever keeps it asks each time, and is only sent it when it is another one.
        again = {"if-none-match": got.headers["etag"]}
        assert got.headers["cache-control"] == "private, no-cache"
        kept = own.get(f"/v1/images/{item_id}", headers=again)
        assert (kept.status_code, kept.content) == (304, b"")
        self.put(own, item_id, png(tmp_path / "y.png", "blue"))
        other = own.get(f"/v1/images/{item_id}", headers=again)
        assert other.status_code == 200 and other.content != data
        wrong(self.put(own, "nothing", data), 404, "not-found")

    def test_what_is_no_picture_is_refused_whatever_it_claims(self, own):
        item_id = known(own)[3]
        svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
        tiff = io.BytesIO()
        Image.new("RGB", (4, 4)).save(tiff, "TIFF")
        for data in (b"", svg, b"GIF89a", tiff.getvalue(), b"\x89PNG\r\n\x1a\n" + b"\0" * 99):
            document = wrong(self.put(own, item_id, data), 422, "invalid-input")
            assert "cannot be decoded" in document["detail"]
            assert document["errors"][0]["field"] == "body"
        assert own.app.state.service.store.numbers == [1]
        assert not (own.app.state.service.store.folder / "images").exists()

    @pytest.mark.parametrize(("width", "height"), [(101, 1), (60_000, 60_000), (2**31 - 1, 1)])
    def test_a_pixel_bomb_is_refused_before_it_is_decoded(self, own, width, height):
        data = bomb(width, height)
        assert len(data) < 1000
        item = {"item_id": "new", "title": "x", "image": base64.b64encode(data).decode()}
        for answer in (
            self.put(own, known(own)[3], data),
            own.post("/v1/items", json={"items": [item]}),
            own.post("/v1/tokenize", json={"image": item["image"]}),
        ):
            assert "pixels" in wrong(answer, 422, "invalid-input")["detail"]
        assert FAST.max_pixels == 100

    def test_callers_names_are_never_paths(self, own, tmp_path):
        data = png(tmp_path / "x.png")
        item_id = "../../../etc/passwd\0.png"
        item = {"item_id": item_id, "title": "x", "image": base64.b64encode(data).decode()}
        answer = own.post("/v1/items", json={"items": [item]})
        assert answer.status_code in (200, 422)
        folder = own.app.state.service.store.folder
        names = {path.name for path in folder.rglob("*.png")}
        assert all(len(name.partition(".")[0]) == 64 for name in names)


def test_openapi_names_every_problem(own):
    document = own.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            answers = operation["responses"]
            assert {"404", "413", "415", "422", "429", "500", "503"} <= set(answers), path
            for status, answer in answers.items():
                if status < "400" or (path, status) == ("/readyz", "503"):
                    continue
                schema = answer["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (path, status)


def test_problems_are_what_openapi_says(own):
    schemas = own.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["Problem"]["properties"]["errors"]["items"] == {
        "$ref": "#/components/schemas/FieldProblem"
    }
    answers = [
        own.get("/v1/items/nobody"),
        own.post("/v1/recommend", json={"history": ["x" * 300] * 50, "k": 0}),
        own.post("/v1/recommend", content=b"{", headers={"content-type": "application/json"}),
        own.patch("/v1/items"),
        own.get("/v1/nothing"),
        own.get("/healthz", headers={"host": "elsewhere.example"}),
    ]
    assert [answer.status_code for answer in answers] == [404, 422, 400, 405, 404, 421]
    for answer in answers:
        found = Problem.model_validate_json(answer.content, strict=True)
        assert found.model_dump() == answer.json() and found.status == answer.status_code
