"""Errors as problem documents (RFC 9457): field, value and rule for everything that was wrong.

The caller's own values are shown to the caller, cut short; what went wrong inside is not.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from utgrec.errors import (
    InputError,
    MissingStage,
    Overloaded,
    StorageError,
    Unavailable,
    UnknownItem,
    UTGRecError,
)

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20  # that one document names
LONGEST_VALUE = 100  # characters of a wrong value that are shown


def problem(
    status: int,
    name: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document; `name` tells kinds of problems apart."""
    document = {
        "type": f"urn:utgrec:problem:{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": [dict(error) for error in errors],
    }
    # ASCII: a wrong value may hold what no encoding can write.
    body = json.dumps(document, ensure_ascii=True).encode("ascii")
    return Response(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def describe(error: UTGRecError, part: str = "body") -> Response:
    """The problem document of an error that the library raised on purpose.

    `part` of the request is where the fields are that it names.
    """
    if isinstance(error, Overloaded):
        after = {"Retry-After": str(error.retry_after_s)}
        return problem(429, "overloaded", str(error), headers=after)
    if isinstance(error, UnknownItem):
        return problem(422, "unknown-item", str(error), errors=_fields(error, part))
    if isinstance(error, InputError):
        return problem(422, "invalid-input", str(error), errors=_fields(error, part))
    if isinstance(error, MissingStage):
        return problem(404, "not-found", str(error))
    if isinstance(error, StorageError):
        return problem(409, "damaged-files", str(error))
    if isinstance(error, Unavailable):
        return problem(503, "unavailable", str(error), headers={"Retry-After": "5"})
    return problem(500, "internal", "the server could not answer; its log says why")


def handle_problems(app: FastAPI) -> None:
    """Let an application answer every error with a problem document."""

    @app.exception_handler(UTGRecError)
    async def _own(request: Request, error: UTGRecError) -> Response:
        return describe(error, "query" if request.method == "GET" else "body")

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            why = f"{first['ctx']['error']}, at character {first['loc'][-1]}"
            return problem(400, "bad-request", f"the body is no JSON: {why}")
        found = [_entry(one) for one in error.errors()[:MOST_ERRORS]]
        named = ", ".join(dict.fromkeys(one["field"] for one in found))
        return problem(422, "invalid-input", f"cannot be used: {named}", errors=found)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return problem(error.status_code, name, str(error.detail), headers=error.headers)


def _fields(error: UTGRecError, part: str) -> list[dict[str, str]]:
    return [
        {"field": f"{part}.{one.field}", "value": _cut(one.value), "rule": one.rule}
        for one in error.fields[:MOST_ERRORS]
    ]


def _cut(shown: str) -> str:
    return shown if len(shown) <= LONGEST_VALUE else shown[:LONGEST_VALUE] + "…"


def _entry(error: Mapping[str, Any]) -> dict[str, str]:
    where = [str(part) for part in error["loc"]]
    shown = _cut(repr(error.get("input")))
    return {"field": ".".join(where), "value": shown, "rule": str(error["msg"])}
