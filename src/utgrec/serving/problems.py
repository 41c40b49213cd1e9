"""Errors as problem documents (RFC 9457): field, value and rule for everything that was wrong.

The caller's own values are shown to the caller, cut short; what went wrong inside is not.
"""

import errno
import json
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from utgrec import storage
from utgrec.errors import (
    FieldError,
    InputError,
    MissingStage,
    Overloaded,
    StorageError,
    Unavailable,
    UnknownItem,
    UTGRecError,
)

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20  # that one document names
LONGEST_VALUE = 100  # characters of a wrong value that are shown

_PYTHON = re.compile(r"valid dictionary(?: or instance of \w+)?")  # pydantic's name of an object
_READABLE = "send UTF-8, without numbers of thousands of digits and lists within lists without end"
_NO_STAGE = "the server has no such files; its log says which are missing"
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_DISK = (
    "the server cannot write to its disk, what served before goes on serving; its log says why"
)
_DAMAGED = (
    "files that the server needs for this cannot be used, what served before goes on serving; its "
    "log names the file and the next step"
)


class Refused(HTTPException):
    """A request that is refused for one thing in it."""

    def __init__(
        self,
        status: int,
        detail: str,
        field: FieldError,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`field` is named with the part of the request that it is in, such as path.item_id."""
        super().__init__(status, detail, headers)
        self.field = field


def problem(
    status: int,
    name: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document; `name` tells kinds of problems apart."""
    document = {
        "type": f"urn:utgrec:problem:{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errors": [
            {**error._asdict(), "value": _cut(error.value)} for error in errors[:MOST_ERRORS]
        ],
    }
    # ASCII: a wrong value may hold what no encoding can write.
    body = json.dumps(document, ensure_ascii=True).encode("ascii")
    return Response(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def describe(error: UTGRecError, request: Request) -> Response:
    """The problem document of an error that the library raised on purpose."""
    if isinstance(error, Overloaded):
        after = {"Retry-After": str(error.retry_after_s)}
        return problem(429, "overloaded", str(error), headers=after)
    if isinstance(error, UnknownItem):
        return problem(422, "unknown-item", str(error), errors=_fields(error, request))
    if isinstance(error, InputError):
        return problem(422, "invalid-input", str(error), errors=_fields(error, request))
    if isinstance(error, StorageError):  # its message names folders of this machine
        log.error("a request met files that cannot be used: %s", error)
        if isinstance(error, MissingStage):
            return problem(404, "not-found", _NO_STAGE)
        if error.__cause__ is not None and storage.is_full(error.__cause__):
            return _cannot_write()
        return problem(409, "damaged-files", _DAMAGED)
    if isinstance(error, Unavailable):
        log.error("a request met what is not available: %s", error)
        return problem(503, "unavailable", str(error), headers={"Retry-After": "5"})
    return problem(500, "internal", "the server could not answer; its log says why")


def _cannot_write() -> Response:
    return problem(503, "unavailable", _NO_DISK, headers={"Retry-After": "5"})


def handle_problems(app: FastAPI) -> None:
    """Let an application answer every error with a problem document."""

    @app.exception_handler(UTGRecError)
    async def _own(request: Request, error: UTGRecError) -> Response:
        return describe(error, request)

    @app.exception_handler(OSError)
    async def _system(request: Request, error: OSError) -> Response:
        if error.errno not in _UNWRITABLE and not storage.is_full(error):
            raise error
        log.error("a request met a disk that cannot be written: %s", error)
        return _cannot_write()

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            why = f"{first['ctx']['error']}, at character {first['loc'][-1]}"
            field = FieldError("body", f"at character {first['loc'][-1]}", "is JSON")
            return problem(400, "bad-request", f"the body is no JSON: {why}", errors=[field])
        found = _entries(error.errors(), error.body)[:MOST_ERRORS]
        named = ", ".join(dict.fromkeys(one.field for one in found))
        return problem(422, "invalid-input", f"cannot be used: {named}", errors=found)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        if isinstance(error, Refused):
            field = error.field
        elif error.status_code == 400:  # FastAPI could not read the body, for another reason
            error.detail = f"the body is no JSON that can be read; {_READABLE}"
            field = FieldError("body", "bytes that are not shown", "is JSON that can be read")
        elif error.status_code == 405:
            allowed = Headers(error.headers).get("allow", "")
            field = FieldError.of("method", request.method, f"is one of {allowed}")
        else:
            field = FieldError.of("path", request.url.path, "is something that this server has")
        return problem(
            error.status_code, name, str(error.detail), errors=[field], headers=error.headers
        )


def _fields(error: UTGRecError, request: Request) -> list[FieldError]:
    """What an error names, each with the part of the request that has it."""
    rest = "query" if request.method in ("GET", "HEAD") else "body"
    found = []
    for one in error.fields or (FieldError("", "", str(error)),):
        part = "path" if one.field in request.path_params else rest
        found.append(one._replace(field=f"{part}.{one.field}".rstrip(".")))
    return found


def _cut(shown: str) -> str:
    return shown if len(shown) <= LONGEST_VALUE else shown[:LONGEST_VALUE] + "…"


def _entries(errors: Sequence[Any], body: Any) -> list[FieldError]:
    """One entry per place of the request; what it may be instead is one rule.

    A value that may be of several kinds fails as each of them. pydantic puts the kinds, which have
    names of this program, into the places.
    """
    found: dict[str, FieldError] = {}
    for error in errors:
        field = ".".join(map(str, _place(error, body)))
        rule = _PYTHON.sub("valid object", str(error["msg"]).removeprefix("Value error, "))
        known = found.get(field)
        if known is None:
            found[field] = FieldError.of(field, error.get("input"), rule)
        elif rule not in known.rule:
            found[field] = known._replace(rule=f"{known.rule}; or: {rule}")
    return list(found.values())


def _place(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """Where in the request an error is: of a body, the steps that it has, and a missing field."""
    location: Sequence[str | int] = error["loc"]
    if location[0] != "body":
        return list(location)
    place: list[str | int] = ["body"]
    value = body
    for step in location[1:]:
        inside = isinstance(value, Mapping) and step in value
        listed = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if inside or listed:
            place.append(step)
            value = value[step]
        elif step == location[-1] and error["type"] == "missing":
            place.append(step)
    return place
