"""A server inside the test, and what its answers must look like."""

from fastapi.testclient import TestClient

from utgrec.serving.app import create_app
from utgrec.serving.service import ServiceConfig

LOCAL = "http://localhost"
FAST = ServiceConfig(look_every_s=0.05, max_body_bytes=200_000, max_pixels=100)


def serve(store, config=FAST, **options):
    """A client of a new server, which begins to work inside `with`."""
    app = create_app(store, config, **options)
    return TestClient(app, base_url=LOCAL, raise_server_exceptions=False)


def known(client):
    """Ids of the server's items."""
    return client.app.state.service.shelf.catalog.item_ids


def fine(answer, model, status=200):
    """The answer's body, after checking that it is what OpenAPI says."""
    assert answer.status_code == status, answer.text
    document = answer.json()
    parsed = model.model_validate(document, strict=True)
    assert parsed.model_dump() == document  # nothing more, nothing less
    return document


def wrong(answer, status, name):
    """The problem document of an answer, after checking its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["type"] == f"urn:utgrec:problem:{name}"
    assert document["title"] and document["detail"]
    assert all(set(one) == {"field", "value", "rule"} for one in document["errors"])
    theirs = status < 500 and status not in (409, 429)  # what the caller can do otherwise
    assert all(one["field"] and one["rule"] for one in document["errors"])
    assert bool(document["errors"]) == theirs
    return document
