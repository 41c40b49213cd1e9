"""Routes about users: keep events, recommend from them, show and delete what is kept.

Ids of users stand in paths and bodies only; no log line and no figure ever holds one.
"""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from utgrec.errors import FieldError, UnknownItem, named
from utgrec.serving import schemas, user_schemas
from utgrec.serving.access import allow
from utgrec.serving.documents import answer_document
from utgrec.serving.engine import Request
from utgrec.serving.filters import Condition, Filters
from utgrec.serving.keys import Key
from utgrec.serving.service import Service
from utgrec.serving.users.events import Event, EventIdUsed, UserStore

Bound = Annotated[float | None, Query(allow_inf_nan=False, examples=[12.5])]
Words = Annotated[list[str] | None, Query(max_length=schemas.MAX_VALUES, examples=[["tea"]])]


def user_routes(service: Service, keys: tuple[Key, ...] | None) -> APIRouter:
    """The routes; they answer 404 on a server that keeps no histories."""
    router = APIRouter()
    read, write = [allow(keys, "read")], [allow(keys, "write")]

    @router.post("/v1/events", response_model=user_schemas.EventsOut, dependencies=write)
    async def add_events(body: user_schemas.EventsIn) -> Response:
        """Keep what users took. The answer comes once it is on the disk."""
        users, now = _users(service), time.time_ns() // 1_000_000
        known = service.shelf.catalog
        unknown = [one.item_id for one in body.events if one.item_id not in known]
        unknown = list(dict.fromkeys(unknown))
        if unknown and body.unknown == "error":
            raise UnknownItem(
                f"not in this catalogue: {named(unknown)}; correct the ids, publish the items "
                "first, or ask to skip what is unknown. Nothing of this request was kept"
            ).about(
                FieldError.of(f"events.{place}.item_id", one.item_id, "is in the catalogue")
                for place, one in enumerate(body.events)
                if one.item_id not in known
            )
        events = [
            Event(
                event_id=one.event_id,
                user_id=one.user_id,
                item_id=one.item_id,
                timestamp=now if one.timestamp is None else one.timestamp,
                exact_time=one.timestamp is not None,
            )
            for one in body.events
            if one.item_id in known
        ]
        try:
            added = await service.look_up(lambda: users.add(events))
        except EventIdUsed as error:
            raise error.about(
                FieldError.of(f"events.{place}.event_id", one.event_id, "names one event")
                for place, one in enumerate(body.events)
                if one.event_id in error.event_ids
            ) from None
        return JSONResponse({"new": added.new, "known": added.known, "unknown": unknown})

    @router.get(
        "/v1/users/{user_id:path}/recommend",
        response_model=user_schemas.UserAnswerOut,
        dependencies=read,
    )
    async def recommend_to_user(
        user_id: user_schemas.UserInPath,
        k: Annotated[int, Query(ge=1, le=schemas.MAX_K)] = 10,
        beam: Annotated[int | None, Query(ge=1, le=schemas.MAX_BEAM, examples=[50])] = None,
        category: Words = None,
        min_price: Bound = None,
        max_price: Bound = None,
        exclude_seen: bool = True,
        attention: bool = False,
    ) -> Response:
        """The next items after what is kept of a user; somebody new gets what fits everybody."""
        users = _users(service)
        taken = await service.look_up(lambda: users.history(user_id, schemas.MAX_HISTORY))
        where = []
        if category:
            where.append(("category", Condition(any_of=tuple(category), field="category")))
        if min_price is not None or max_price is not None:
            field = "max_price" if min_price is None else "min_price"
            where.append(("price", Condition(at_least=min_price, at_most=max_price, field=field)))
        request = Request(
            history=tuple(one.item_id for one in taken),
            k=k,
            beam=beam,
            filters=Filters(where=tuple(where)),
            exclude_seen=exclude_seen,
            unknown="skip",  # after going back to an older generation
            attention=attention,
        )
        (answer,) = await service.recommend([request])
        document = {
            "generation": answer.shelf.number,
            "history": [one for one in request.history if one in answer.shelf.catalog],
            **answer_document(answer),
        }
        return JSONResponse(document)

    @router.get("/v1/users/{user_id:path}", response_model=user_schemas.UserOut, dependencies=read)
    async def get_user(user_id: user_schemas.UserInPath) -> Response:
        """What is kept about a user."""
        users = _users(service)
        taken = await service.look_up(lambda: users.history(user_id))
        return JSONResponse({"history": [one._asdict() for one in taken]})

    @router.delete(
        "/v1/users/{user_id:path}", response_model=user_schemas.DeletedOut, dependencies=write
    )
    async def delete_user(user_id: user_schemas.UserInPath) -> Response:
        """Delete everything about a user. Doing it again does no harm."""
        users = _users(service)
        return JSONResponse({"deleted": await service.look_up(lambda: users.delete(user_id))})

    return router


def _users(service: Service) -> UserStore:
    if service.users is None:
        raise HTTPException(404, "this server keeps no histories; start it with --users")
    return service.users
