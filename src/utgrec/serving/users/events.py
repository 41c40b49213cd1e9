"""What user histories are made of, and what every store of them promises.

- An event is kept exactly once: the same event id again changes nothing, and the same id for
  another event is an error.
- What `add` has returned for is on the disk: no killed process and no power cut takes it back.
- `delete` leaves nothing of a user behind, neither items nor the ids of events.
"""

import dataclasses
from typing import NamedTuple, Protocol

from utgrec.config import require
from utgrec.errors import InputError, named

LONGEST_ID = 1000  # characters
LAST_MS = 253_402_300_799_999  # the end of the year 9999
NEWEST = 1000  # items of a history that are read; the recommender itself reads fewer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One user took one item at one time."""

    event_id: str
    """Chosen by the caller, never used for another event; what makes sending twice harmless."""
    user_id: str
    """The shop's own id of the user; a pseudonym does as well."""
    item_id: str
    """The item."""
    timestamp: int
    """Milliseconds since 1970."""
    exact_time: bool = True
    """Whether the caller gave the time; otherwise it does not tell two events apart."""

    def __post_init__(self) -> None:
        for name in ("event_id", "user_id", "item_id"):
            value = getattr(self, name)
            require(
                0 < len(value) <= LONGEST_ID and "\0" not in value,
                f"{name} must be 1 to {LONGEST_ID} characters without NUL",
            )
        require(
            0 <= self.timestamp <= LAST_MS,
            f"timestamp must be milliseconds since 1970, 0 to {LAST_MS}, got {self.timestamp}",
        )


class Added(NamedTuple):
    """What became of some events."""

    new: int  # kept now
    known: int  # had been kept before


class Taken(NamedTuple):
    """One entry of a history."""

    item_id: str
    timestamp: int  # ms since 1970


class UserStore(Protocol):
    """Keeps the histories of the users of one domain. All methods may be called by any thread."""

    def add(self, events: list[Event]) -> Added:
        """Keep events: all of them or, with an error, none.

        Raises:
            EventIdUsed: an event id that was used for another event.
        """

    def history(self, user_id: str, newest: int = NEWEST) -> list[Taken]:
        """The newest entries of a user, oldest first; none if the user is unknown."""

    def delete(self, user_id: str) -> int:
        """Delete everything about a user; the number of events that there were."""

    def close(self) -> None:
        """Give all connections back."""


def distinct(events: list[Event]) -> dict[str, Event]:
    """Event id → event; a batch may hold the same event twice.

    Raises:
        EventIdUsed: two different events with one id.
    """
    found: dict[str, Event] = {}
    for event in events:
        other = found.setdefault(event.event_id, event)
        if not same(event, other.user_id, other.item_id, other.timestamp):
            raise EventIdUsed([event.event_id])
    return found


def same(event: Event, user_id: str, item_id: str, timestamp: int) -> bool:
    """Whether an event is the one that was kept under its id."""
    return (event.user_id, event.item_id) == (user_id, item_id) and (
        not event.exact_time or event.timestamp == timestamp
    )


class EventIdUsed(InputError):
    """An event id names two different events."""

    def __init__(self, event_ids: list[str]) -> None:
        super().__init__(
            f"event_id {named(event_ids)} was used for another event before; an event id names one "
            "event for good: send this one under an id of its own. Nothing of this request was kept"
        )
        self.event_ids = frozenset(event_ids)
