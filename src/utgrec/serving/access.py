"""Who may use a route: callers whose key has the role that it needs."""

from typing import Annotated, Any

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from utgrec.errors import FieldError
from utgrec.serving.keys import Key, Role, find_key
from utgrec.serving.problems import Refused


def allow(keys: tuple[Key, ...] | None, role: Role) -> Any:
    """A dependency that lets callers with a role pass; without keys, everybody."""
    bearer = HTTPBearer(auto_error=False, description="An API key.")

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        if keys is None:
            return
        found = None if given is None else find_key(keys, given.credentials)
        if found is None:
            sent = "nothing" if given is None else "a key that is not shown"
            raise Refused(
                401,
                "send a key of this server as `Authorization: Bearer KEY`",
                FieldError("header.authorization", sent, "is Bearer and a key of this server"),
                {"WWW-Authenticate": "Bearer"},
            )
        if role == "write" and found.role != "write":
            sent = f"a key with the role {found.role}"
            raise Refused(
                403,
                f"this needs a key with the role write, not {found.role}",
                FieldError("header.authorization", sent, "has the role write"),
            )

    return Depends(check)
