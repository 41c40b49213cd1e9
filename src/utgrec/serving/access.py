"""Who may use a route: callers whose key has the role that it needs."""

from typing import Annotated, Any

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from utgrec.serving.keys import Key, Role, find_key


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
            raise HTTPException(
                401,
                "send a key of this server as `Authorization: Bearer KEY`",
                {"WWW-Authenticate": "Bearer"},
            )
        if role == "write" and found.role != "write":
            raise HTTPException(403, f"this needs a key with the role write, not {found.role}")

    return Depends(check)
