"""Requests made up from the server's own OpenAPI document: none of them breaks it.

Schemathesis draws requests that fit the document, and requests that do not. Every answer must be
one that the document names, of the type and form that it says, and never a 5xx.
"""

import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import known, serve
from small_shops import FakeCoder

from utgrec.serving.batching import BatchingConfig
from utgrec.serving.generations import GenerationStore
from utgrec.serving.service import ServiceConfig
from utgrec.serving.users.sqlite import SQLiteUsers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
CONFIG = ServiceConfig(
    max_body_bytes=100_000, max_pixels=10_000, batching=BatchingConfig(wait_ms=0.0)
)


@pytest.fixture(scope="module")
def client(trained):
    """A server of which requests may change everything."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        shutil.copytree(trained, run)
        users = SQLiteUsers(run / "users.sqlite", "kitchen")
        with serve(GenerationStore(run), CONFIG, coder=FakeCoder(6, 8), users=users) as client:
            yield client


def _name_an_item(case, place, ids):
    """Let a request be about an item that is there, which is rarely drawn by chance."""
    if place is None:
        return
    if "item_id" in (case.path_parameters or {}):
        case.path_parameters["item_id"] = ids[place]
    if isinstance(case.body, dict) and isinstance(case.body.get("history"), list):
        case.body["history"] = ids[place : place + 3]
    events = case.body.get("events") if isinstance(case.body, dict) else None
    for event in events if isinstance(events, list) else []:
        if isinstance(event, dict):
            event["item_id"] = ids[place]


def check(client, examples):
    """Try so many requests of every operation; the operations that were tried."""
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    tried, statuses, ids = [], set(), list(known(client))
    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = st.one_of(
            operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE),
            operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE),
        )

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy, place=st.none() | st.integers(0, 59))
        def one(case, place):
            _name_an_item(case, place, ids)
            request = case.as_transport_kwargs(base_url="http://localhost")
            request.pop("cookies", None)
            answer = client.request(**request)
            statuses.add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        one()
        tried.append((operation.method.upper(), operation.path))
    return tried, statuses


@pytest.mark.filterwarnings("ignore")
def test_requests_of_every_kind(client):
    tried, statuses = check(client, 8)
    assert len(tried) == len(set(tried)) >= 19
    assert {200, 404, 422} <= statuses  # it gets through, and is refused
    body = {"history": known(client)[:2]}
    assert client.post("/v1/recommend", json=body).status_code == 200


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_requests_of_every_kind(client):
    _, statuses = check(client, 60)
    assert {200, 404, 422} <= statuses
