"""Problem documents in the OpenAPI document: one schema, which every 4xx and 5xx refers to."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from utgrec.serving.problems import LONGEST_VALUE, MEDIA_TYPE, MOST_ERRORS

STATUSES = {
    400: "The body is no JSON.",
    401: "No key, or an unknown one.",
    403: "The key's role does not allow it.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "Files are damaged.",
    413: "The body is too large.",
    415: "The body is of another kind than the route takes.",
    421: "A server without keys was asked under another name than localhost.",
    422: "A field, value or id cannot be used.",
    429: "Too many requests are waiting; Retry-After says when to ask again.",
    431: "The address and the headers are too large.",
    500: "The server could not answer; its log says why.",
    503: "A service that is needed does not answer, or the server is about to stop.",
}


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FieldProblem(_Exact):
    """One thing in a request that cannot be used."""

    field: str = Field(description="Where in the request, such as body.filters.where.price.min.")
    value: str = Field(
        max_length=LONGEST_VALUE + 1, description="What stands there, cut short; never a key."
    )
    rule: str = Field(description="What may stand there.")


class Problem(_Exact):
    """Why a request was not answered (RFC 9457)."""

    type: str = Field(
        pattern="^urn:utgrec:problem:[a-z-]+$", description="Tells kinds of problems apart."
    )
    title: str = Field(description="The status in words.")
    status: int = Field(ge=400, le=599, description="The status of the answer.")
    detail: str = Field(description="What is wrong, for people.")
    errors: list[FieldProblem] = Field(
        max_length=MOST_ERRORS, description="What in the request is wrong, if anything is."
    )


def problem_answers() -> dict[int | str, dict[str, Any]]:
    """The answers that every route may give beside its own, as FastAPI takes them."""
    reference = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {"description": what, "content": {MEDIA_TYPE: {"schema": reference}}}
        for status, what in STATUSES.items()
    }


class DescribedApp(FastAPI):
    """An application whose OpenAPI document says what a problem document holds."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if Problem.__name__ not in schemas:
            made = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= made.pop("$defs")
            schemas[Problem.__name__] = made
        return document
