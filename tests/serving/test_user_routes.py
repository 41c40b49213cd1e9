"""Users over HTTP: events in, recommendations out, everything gone when it shall be."""

import logging

import numpy as np
import pytest
from served import FAST, fine, known, serve, wrong

from utgrec.errors import Unavailable
from utgrec.serving import schemas, user_schemas
from utgrec.serving.app import create_app
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.keys import add_key, read_keys
from utgrec.serving.users.sqlite import SQLiteUsers


@pytest.fixture
def users(tmp_path):
    """Histories in a file of the test's own; the server closes it."""
    return SQLiteUsers(tmp_path / "users.sqlite", "kitchen")


@pytest.fixture
def own(store, users):
    with serve(store, users=users) as client:
        yield client


def send(client, *events, **more):
    body = {
        "events": [
            {"event_id": f"e{number}", "user_id": user, "item_id": item, "timestamp": number}
            for number, user, item in events
        ]
    }
    return client.post("/v1/events", json=body | more)


def test_a_user_gets_what_their_history_would(own):
    ids = known(own)
    sent = send(own, (2, "u/1 ?#", ids[7]), (1, "u/1 ?#", ids[3]), (3, "other", ids[9]))
    assert fine(sent, user_schemas.EventsOut) == {"new": 3, "known": 0, "unknown": []}
    path = "/v1/users/u%2F1%20%3F%23"
    got = fine(own.get(f"{path}/recommend?k=7"), user_schemas.UserAnswerOut)
    body = {"history": [ids[3], ids[7]], "k": 7}
    expected = fine(own.post("/v1/recommend", json=body), schemas.RecommendOut)
    assert got["history"] == [ids[3], ids[7]]
    assert got["items"] == expected["answers"][0]["items"]
    kept = fine(own.get(path), user_schemas.UserOut)["history"]
    assert [(one["item_id"], one["timestamp"]) for one in kept] == [(ids[3], 1), (ids[7], 2)]
    again = fine(send(own, (2, "u/1 ?#", ids[7])), user_schemas.EventsOut)
    assert again == {"new": 0, "known": 1, "unknown": []}
    assert fine(own.delete(path), user_schemas.DeletedOut) == {"deleted": 2}
    assert fine(own.delete(path), user_schemas.DeletedOut) == {"deleted": 0}
    assert own.get(path).json() == {"history": []}
    assert len(own.get("/v1/users/other").json()["history"]) == 1


def test_filters_and_options(own):
    ids = known(own)
    send(own, (1, "u", ids[3]))
    catalog = own.app.state.service.shelf.catalog
    path = "/v1/users/u/recommend"
    cheap = own.get(f"{path}?k=60&max_price=20&min_price=2&category=kitchen&exclude_seen=false")
    expected = {item.item_id for item in catalog if 2 <= (item.attributes["price"] or 0) <= 20}
    assert {hit["item_id"] for hit in cheap.json()["items"]} == expected
    assert own.get(f"{path}?category=none").json()["items"] == []
    hits = own.get(f"{path}?attention=true&beam=40").json()["items"]
    assert all(ids[3] in {why["item_id"] for why in hit["why"]} for hit in hits)
    assert all(why["attention"] == pytest.approx(1) for hit in hits for why in hit["why"])
    for query, field in (
        ("k=0", "query.k"),
        ("beam=x", "query.beam"),
        ("min_price=nan", "query.min_price"),
    ):
        found = wrong(own.get(f"{path}?{query}"), 422, "invalid-input")["errors"]
        assert found[0]["field"] == field


def test_somebody_new_gets_what_fits_everybody(own):
    got = own.get("/v1/users/nobody/recommend").json()
    assert (got["history"], len(got["items"])) == ([], 10)


def test_unknown_items_are_named_or_skipped_as_asked(own):
    first = known(own)[0]
    events = [(1, "u", "nothing"), (2, "u", first)]
    document = wrong(send(own, *events), 422, "unknown-item")
    assert "'nothing'" in document["detail"]
    assert own.get("/v1/users/u").json() == {"history": []}
    sent = fine(send(own, *events, unknown="skip"), user_schemas.EventsOut)
    assert sent == {"new": 1, "known": 0, "unknown": ["nothing"]}


def test_items_that_are_gone_are_no_error(own, store):
    first = known(own)[0]
    CatalogEditor(store).add([{"item_id": "later", "title": "A cup"}])
    own.app.state.service.engine.refresh()
    assert send(own, (1, "u", "later"), (2, "u", first)).json()["new"] == 2
    own.delete(f"/v1/items/{first}")
    got = own.get("/v1/users/u/recommend").json()
    assert (got["history"], got["unknown"]) == (["later", first], [])
    own.post("/v1/generations", json={"activate": 1})
    got = own.get("/v1/users/u/recommend").json()
    assert (got["history"], got["unknown"]) == ([first], ["later"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event_id": ""}, "body.events.0.event_id"),
        ({"user_id": "a\0b"}, "body.events.0.user_id"),
        ({"user_id": ".."}, "body.events.0.user_id"),  # a browser would ask for another address
        ({"user_id": "u/recommend"}, "body.events.0.user_id"),
        ({"user_id": "u\nv"}, "body.events.0.user_id"),
        ({"timestamp": -1}, "body.events.0.timestamp"),
        ({"timestamp": 1e300}, "body.events.0.timestamp"),
        ({"rating": 5}, "body.events.0.rating"),
    ],
)
def test_what_is_wrong_is_named(own, change, field):
    event = {"event_id": "e", "user_id": "u", "item_id": known(own)[0]} | change
    answer = own.post("/v1/events", json={"events": [event]})
    assert wrong(answer, 422, "invalid-input")["errors"][0]["field"] == field
    wrong(own.post("/v1/events", json={"events": []}), 422, "invalid-input")


def test_an_id_of_another_event(own):
    ids = known(own)
    send(own, (1, "u", ids[0]))
    document = wrong(send(own, (2, "u", ids[1]), (1, "v", ids[0])), 422, "invalid-input")
    assert "'e1' was used for another event" in document["detail"]
    assert [one["field"] for one in document["errors"]] == ["body.events.1.event_id"]
    assert len(own.get("/v1/users/u").json()["history"]) == 1


def test_an_event_without_a_time_happens_now(own):
    event = {"event_id": "e", "user_id": "u", "item_id": known(own)[0]}
    for expected in ({"new": 1, "known": 0}, {"new": 0, "known": 1}):
        got = own.post("/v1/events", json={"events": [event]}).json()
        assert {name: got[name] for name in expected} == expected
    (kept,) = own.get("/v1/users/u").json()["history"]
    assert kept["timestamp"] > 1_700_000_000_000


def test_ids_of_users_are_in_no_log_and_no_figure(own, users, caplog, monkeypatch):
    secret = "user-with-a-secret"

    def broken(*_):
        raise ValueError(secret)

    with caplog.at_level(logging.DEBUG):
        send(own, (1, secret, known(own)[0]), (2, secret, "unknown"))
        send(own, (1, secret, known(own)[0]))
        own.get(f"/v1/users/{secret}/recommend")
        own.delete(f"/v1/users/{secret}")
        monkeypatch.setattr(users, "history", broken)
        wrong(own.get(f"/v1/users/{secret}"), 500, "internal")
    ours = [record for record in caplog.records if record.name.startswith("utgrec")]
    assert len(ours) >= 5
    assert secret not in "".join(str(record.__dict__) for record in ours)
    assert secret not in own.get("/metrics").text


def test_a_database_that_does_not_answer(own, users, monkeypatch):
    def gone(*_):
        raise Unavailable("the database of user histories does not answer")

    monkeypatch.setattr(users, "history", gone)
    answer = own.get("/v1/users/u/recommend")
    wrong(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    assert own.post("/v1/recommend", json={"history": []}).status_code == 200


def test_a_server_without_histories(store):
    with serve(store) as client:
        event = {"event_id": "e", "user_id": "u", "item_id": known(client)[0]}
        answers = [
            client.post("/v1/events", json={"events": [event]}),
            client.get("/v1/users/u"),
            client.get("/v1/users/u/recommend"),
            client.delete("/v1/users/u"),
        ]
    for answer in answers:
        assert "keeps no histories" in wrong(answer, 404, "not-found")["detail"]


def test_reading_keys_keep_no_events_and_delete_nobody(store, users, tmp_path):
    word = add_key(tmp_path / "keys.json", "reader", "read")
    keys = read_keys(tmp_path / "keys.json")
    with serve(store, users=users, keys=keys) as client:
        client.headers["authorization"] = f"Bearer {word}"
        wrong(send(client, (1, "u", known(client)[0])), 403, "forbidden")
        wrong(client.delete("/v1/users/u"), 403, "forbidden")
        assert client.get("/v1/users/u/recommend").status_code == 200


def test_stopping_closes_the_histories(store, users):
    with serve(store, users=users) as client:
        send(client, (1, "u", known(client)[0]))
        assert users._opened
    assert not users._opened
    assert create_app(store, FAST).state.service.users is None


def test_why_names_what_was_attended_to(own):
    ids = known(own)
    body = {"history": [ids[3], ids[9], ids[3], ids[20]], "k": 4, "attention": True}
    hits = fine(own.post("/v1/recommend", json=body), schemas.RecommendOut)["answers"][0]["items"]
    codes = own.app.state.service.shelf.codes
    for hit in hits:
        shares = {why["item_id"]: why["attention"] for why in hit["why"]}
        assert set(shares) == {ids[3], ids[9], ids[20]}  # each once, all with some attention
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        for why in hit["why"]:
            same = codes[ids.index(why["item_id"])] == np.array(hit["codes"])
            assert why["shared_codes"] == int(np.cumprod(same).sum())
    plain = own.post("/v1/recommend", json=body | {"attention": False}).json()["answers"][0]
    assert [hit["item_id"] for hit in plain["items"]] == [hit["item_id"] for hit in hits]
    assert all(why["attention"] is None for hit in plain["items"] for why in hit["why"])
