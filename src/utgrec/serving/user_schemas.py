"""What goes over the wire about users: events, histories, and what is deleted."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from utgrec.serving.schemas import HitOut, ItemId, Strict
from utgrec.serving.users.events import LAST_MS

MAX_EVENTS = 1000
PLAIN = r"^[^\x00]+$"

EventId = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]


def _has_an_address(user_id: str) -> str:
    if user_id in (".", "..") or user_id.endswith("/recommend") or "\n" in user_id:
        raise ValueError(
            "a user's id is neither . nor .., has no line break, and does not end in /recommend"
        )
    return user_id


UserId = Annotated[
    str, Field(min_length=1, max_length=200, pattern=PLAIN), AfterValidator(_has_an_address)
]
UserInPath = Annotated[str, Path(min_length=1, max_length=200, pattern=PLAIN, examples=["u42"])]


class EventIn(Strict):
    """One user took one item."""

    event_id: EventId = Field(
        description="Names this event for good: sent again, it is not counted again."
    )
    user_id: UserId = Field(description="The shop's id of the user, or a pseudonym.")
    item_id: ItemId
    timestamp: Annotated[int, Field(ge=0, le=LAST_MS)] | None = Field(
        default=None, description="Milliseconds since 1970; now, if left out."
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"event_id": "order-9313-1", "user_id": "u42", "item_id": "B08R5B7YS4"},
            ]
        },
    )


class EventsIn(Strict):
    """Events to keep: all of them, or, with an error, none."""

    events: Annotated[list[EventIn], Field(min_length=1, max_length=MAX_EVENTS)]
    unknown: Literal["error", "skip"] = Field(
        default="error",
        description="What to do about items that the catalogue has never had.",
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "event_id": "order-9313-1",
                            "user_id": "u42",
                            "item_id": "B08R5B7YS4",
                            "timestamp": 1767225600000,
                        }
                    ]
                }
            ]
        },
    )


class EventsOut(BaseModel):
    """What became of the events; it is on the disk."""

    new: int = Field(description="Kept now.")
    known: int = Field(description="Kept before, under the same event id.")
    unknown: list[str] = Field(description="Items that were skipped, with their events.")


class TakenOut(BaseModel):
    """One entry of a history."""

    item_id: str
    timestamp: int = Field(description="Milliseconds since 1970.")


class UserOut(BaseModel):
    """What is kept about a user: the newest entries, oldest first."""

    history: list[TakenOut]


class UserAnswerOut(BaseModel):
    """What a user gets, best first."""

    generation: int
    history: list[str] = Field(description="The items it comes from, oldest first.")
    items: list[HitOut]
    unknown: list[str] = Field(
        description="Items of the history that the serving generation does not have."
    )


class DeletedOut(BaseModel):
    """How much was deleted."""

    deleted: int = Field(description="Events that there were.")
