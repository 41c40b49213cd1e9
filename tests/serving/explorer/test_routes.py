"""What the page asks over HTTP: answers as described, limits, keys, changes; its own files."""

import base64
import json

import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from utgrec.serving.app import create_app
from utgrec.serving.explorer import page, schemas
from utgrec.serving.explorer.page import TICKET_S, Tickets
from utgrec.serving.generations import GenerationStore
from utgrec.serving.keys import Key, add_key, read_keys

LOCAL = "http://localhost"


@pytest.fixture(scope="module")
def client(run_copy):
    with TestClient(create_app(GenerationStore(run_copy)), base_url=LOCAL) as client:
        yield client


def fine(answer, model):
    """The answer's body, after checking that it is what OpenAPI says."""
    assert answer.status_code == 200, answer.text
    document, adapter = answer.json(), TypeAdapter(model)
    assert adapter.dump_python(adapter.validate_python(document, strict=True)) == document
    return document


def test_the_overview(client):
    got = fine(client.get("/v1/overview"), schemas.OverviewOut)
    assert (got["domain"], got["generation"], got["items"]) == ("kitchen", 1, 60)
    assert [len(hues) for hues in got["hues"]] == got["sizes"] == [6, 8, 8]
    assert got["report"] and got["may_change"] and got["filters"]
    assert 30 < got["pictured"] < 60


def test_the_tree_leads_to_every_item(client):
    def walk(codes):
        place = fine(client.get(f"/v1/tree/{'/'.join(map(str, codes))}"), schemas.TreeOut)
        assert place["codes"] == codes and place["generation"] == 1
        if len(codes) == 3:
            (item,) = place["covers"]
            assert item["codes"] == codes and place["items"] == 1
            return [item["item_id"]]
        return [one for b in place["branches"] for one in walk([*codes, b["code"]])]

    ids = client.app.state.service.shelf.catalog.item_ids
    assert sorted(walk([])) == sorted(ids)
    assert client.get("/v1/tree/a").status_code == 404
    assert client.get("/v1/tree/99").status_code == 422


def test_search_and_cards(client):
    catalog = client.app.state.service.shelf.catalog
    first = catalog[7]
    got = fine(client.get("/v1/items", params={"query": first.title, "k": 3}), schemas.FoundOut)
    assert first.item_id in [item["item_id"] for item in got["items"]]
    assert {item["price"] for item in got["items"] if item["item_id"] == first.item_id} == {
        first.attributes["price"]
    }
    asked = {"item_id": [catalog.item_ids[3], "none", catalog.item_ids[1]]}
    got = fine(client.get("/v1/cards", params=asked), schemas.CardsOut)
    assert [item["item_id"] for item in got["items"]] == [catalog.item_ids[3], catalog.item_ids[1]]
    assert got["unknown"] == ["none"]
    for wrong in ({}, {"query": ""}, {"query": "x" * 201}, {"query": "a", "k": 101}):
        assert client.get("/v1/items", params=wrong).status_code == 422
    assert client.get("/v1/cards").status_code == 422


def test_facets_are_what_recommendations_can_be_filtered_by(client):
    found = fine(client.get("/v1/facets"), schemas.FacetsOut)["facets"]
    assert [facet["name"] for facet in found] == ["brand", "category", "price", "in_stock"]
    assert [facet["kind"] for facet in found] == ["words", "words", "numbers", "flags"]
    for facet in found:
        for entry in facet["values"][:3]:
            body = {"history": [], "k": 60, "filters": {"where": {facet["name"]: entry["value"]}}}
            items = client.post("/v1/recommend", json=body).json()["answers"][0]["items"]
            assert len(items) == entry["items"]


def test_changes_and_drift(run_copy, csv_shop, client):
    new = [json.loads(line) for line in (csv_shop / "new_items.jsonl").read_text().splitlines()]
    for item in new:
        if name := item.pop("image", None):
            item["image"] = base64.b64encode((csv_shop / name).read_bytes()).decode()
    store = GenerationStore(run_copy)
    ids = [item["item_id"] for item in new]
    try:
        assert client.post("/v1/items", json={"items": new}).status_code == 200
        assert client.delete(f"/v1/items/{ids[0]}").status_code == 200
        newest, added, first = fine(client.get("/v1/changes"), list[schemas.ChangesOut])
        assert [one["number"] for one in (newest, added, first)] == [3, 2, 1]
        assert newest["active"] and newest["changed"]["removed"]["items"] == 1
        assert [item["item_id"] for item in added["changed"]["added"]["examples"]] == ids
        assert added["drift"]["new"] == 6 and first["drift"] == {}
        # Search, tree and overview follow the generation that serves.
        found = client.get("/v1/items", params={"query": ids[1]}).json()
        assert (found["generation"], found["items"][0]["item_id"]) == (3, ids[1])
        removed = client.get("/v1/items", params={"query": ids[0]}).json()["items"][0]
        assert (removed["item_id"], removed["live"]) == (ids[0], False)
        assert client.get("/v1/overview").json()["removed"] == 1
        assert client.get("/v1/tree").json()["items"] == 65
        assert len(client.get("/v1/changes?newest=1").json()) == 1
        (store.path(3) / "drift.json").write_text("{")
        told = fine(client.get("/v1/changes"), list[schemas.ChangesOut])
        assert told[0]["problem"] and told[0]["changed"] == {} and not told[1]["problem"]
        (store.path(2) / "manifest.json").write_text("{}")
        damaged = fine(client.get("/v1/changes"), list[schemas.ChangesOut])[1]
        assert damaged["problem"] and damaged["changed"] == {}
    finally:
        client.post("/v1/generations", json={"activate": 1})
    assert client.get("/v1/items", params={"query": ids[1]}).json()["total"] == 0


class TestPage:
    def test_every_file_has_its_type_and_a_strict_policy(self, client):
        files = [path.relative_to(page.WEB) for path in page.WEB.rglob("*") if path.is_file()]
        assert len(files) > 12
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        for file in files:
            answer = client.get("/" if file.name == "index.html" else f"/explorer/{file}")
            assert answer.status_code == 200
            kind = kinds.get(file.suffix, "text/html")
            assert answer.headers["content-type"].partition(";")[0] == kind
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            again = client.get(answer.url, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")

    def test_nothing_is_inline_and_nothing_comes_from_elsewhere(self):
        html = (page.WEB / "index.html").read_text()
        assert " style=" not in html and " onclick=" not in html and "<style" not in html
        assert html.count("<script") == 1 and 'src="explorer/app.js"' in html
        for path in page.WEB.rglob("*.*"):
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in text and "https://" not in text, path
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write"):
                assert word not in text, path

    def test_files_stay_short_and_say_what_they_are_for(self):
        for path in [*page.WEB.rglob("*.js"), *page.WEB.rglob("*.css")]:
            text = path.read_text()
            assert len(text.splitlines()) <= 400, path
            assert text.startswith(("// ", "/* ")), path

    @pytest.mark.parametrize(
        "name", ["../app.py", "%2e%2e/app.py", "views", "", "app.js/", "views/../app.js"]
    )
    def test_other_files_cannot_be_had(self, client, name):
        answer = client.get(f"/explorer/{name}")
        assert answer.status_code == 404 or answer.url.path == "/explorer/app.js"
        assert "create_app" not in answer.text


class TestReport:
    def test_it_can_do_nothing(self, client):
        assert fine(client.get("/v1/report"), schemas.ReportOut) == {"url": "/report"}
        answer = client.get("/report")
        assert "A report" in answer.text
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox; default-src 'none'") and "script" not in policy

    def test_without_a_report(self, store, client):
        store.run.path.joinpath("report.html").unlink(missing_ok=True)
        with TestClient(create_app(store), base_url=LOCAL) as other:
            assert other.get("/v1/report").json() == {"url": None}
            answer = other.get("/report")
            assert answer.status_code == 404 and "utgrec report" in answer.json()["detail"]
            assert other.get("/v1/overview").json()["report"] is False

    def test_tickets_end_and_cannot_be_made_up(self):
        tickets = Tickets((Key("a", "read", "0" * 64),))
        ticket = tickets.make(now=1000.0).removeprefix("?ticket=")
        assert tickets.is_good(ticket, now=1000.0 + TICKET_S)
        assert not tickets.is_good(ticket, now=1002.0 + TICKET_S)
        until, _, signature = ticket.partition(".")
        assert not tickets.is_good(f"{int(until) + 9}.{signature}", now=1000.0)
        for wrong in ("", ".", "1", f"{until}.", f"{until}.é", f"²{ticket}", "9" * 9999):
            assert not tickets.is_good(wrong, now=0.0)
        assert Tickets((Key("a", "read", "0" * 64),)).is_good(ticket, now=1000.0)
        assert not Tickets((Key("b", "read", "1" * 64),)).is_good(ticket, now=1000.0)
        assert Tickets(None).is_good("") and Tickets(None).make() == ""


def test_with_keys_the_page_is_open_and_everything_else_is_not(run_copy, tmp_path):
    path = tmp_path / "keys.json"
    words = {role: add_key(path, role, role) for role in ("read", "write")}
    app = create_app(GenerationStore(run_copy), keys=read_keys(path))
    with TestClient(app, base_url=LOCAL) as client:
        assert client.get("/").status_code == client.get("/explorer/app.js").status_code == 200
        asked = ("overview", "items?query=a", "cards?item_id=a", "tree", "tree/1", "facets")
        for route in (*asked, "changes", "report"):
            assert client.get(f"/v1/{route}").status_code == 401
        assert client.get("/report").status_code == 401
        for role, word in words.items():
            headers = {"authorization": f"Bearer {word}"}
            got = client.get("/v1/overview", headers=headers).json()
            assert got["may_change"] is (role == "write")
        url = client.get("/v1/report", headers=headers).json()["url"]
        assert client.get(url).status_code == 200  # with the ticket alone
