"""Count what is suspicious in a domain; `utgrec clean` acts on it, by named options."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from utgrec.catalog import Domain
from utgrec.data.cleaning.events import Events, backwards, in_bursts, of_fast_users, repeated

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

BURST = 5  # interactions of one user in one second
FAST = 100  # interactions of one user in one hour: one every 36 s
MANY = 5  # items with the same text or picture
SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What is suspicious in a domain. Times count only where the log has real ones."""

    duplicate_events: int
    """Interactions that repeat an earlier one of the same user, item and time."""
    burst_events: int
    """Interactions that one user made in one second with at least 5 of them."""
    burst_users: int
    """Users with such a second."""
    fast_users: int
    """Users who made more than 100 interactions in some hour."""
    fast_user_events: int
    """All interactions of these users."""
    backward_steps: int
    """Steps within histories that go back in time: 0 in a domain that UTGRec wrote."""
    unsorted_rows: int | None
    """Interactions that came after a later one of their user; None = not recorded."""
    empty_texts: int
    """Items without any text."""
    placeholder_texts: int
    """Items whose text says nothing: "N/A", "untitled", "test" …"""
    shared_texts: int
    """Items whose text at least 5 items have."""
    boilerplate_items: int
    """Items with a sentence that very many items share."""
    boilerplate: list[str]
    """The most frequent of these sentences, with their number of items."""
    markup_texts: int
    """Items with HTML in title or text."""
    mojibake_texts: int
    """Items with a title or text that was decoded wrongly and can be put right."""
    lost_characters: int
    """Items with a character that could not be read (U+FFFD): it cannot be brought back."""
    languages: dict[str, int]
    """Texts by language; of a sample where there are more than 100,000."""
    shared_pictures: int
    """Pictures that at least 5 items have."""
    shared_picture_items: int
    """Items with such a picture."""
    most_shared_picture: int
    """Items that have the most frequent picture."""


def find(domain: Domain) -> Findings:
    """Look for everything that can be wrong with a domain's data."""
    from utgrec.data.cleaning import texts as looks
    from utgrec.data.cleaning.languages import count_languages

    facts = domain.manifest.facts if domain.manifest is not None else {}
    time = facts.get("time", {})
    events = events_of(domain)
    real = has_real_times(domain)
    nothing = np.zeros(len(events.users), dtype=np.bool_)
    burst = in_bursts(events, BURST) if real else nothing
    fast = of_fast_users(events, FAST) if real else nothing
    text = text_column(domain.catalog.table, "text").fill_null("")
    title = text_column(domain.catalog.table, "title").fill_null("")
    sentences = looks.boilerplate(text, categories_of(domain.catalog.table))
    empty = text == ""
    pictures = looks.shared(text_column(domain.catalog.table, "image"), MANY)
    return Findings(
        duplicate_events=int(repeated(events).sum()),
        burst_events=int(burst.sum()),
        burst_users=len(np.unique(events.users[burst])),
        fast_users=len(np.unique(events.users[fast])),
        fast_user_events=int(fast.sum()),
        backward_steps=backwards(events),
        unsorted_rows=time.get("unsorted"),
        empty_texts=int(empty.sum()),
        placeholder_texts=int((looks.says_nothing(text) & ~empty).sum()),
        shared_texts=sum(looks.shared(text, MANY).values()),
        boilerplate_items=_items_with(text, sentences["sentence"].to_list()),
        boilerplate=[f"{row[0]} ({row[1]:,})" for row in sentences.head(SHOWN).rows()],
        markup_texts=int((looks.has_markup(text) | looks.has_markup(title)).sum()),
        mojibake_texts=int((looks.has_mojibake(text) | looks.has_mojibake(title)).sum()),
        lost_characters=int(
            (looks.has_lost_characters(text) | looks.has_lost_characters(title)).sum()
        ),
        languages=count_languages(text),
        shared_pictures=len(pictures),
        shared_picture_items=sum(pictures.values()),
        most_shared_picture=max(pictures.values(), default=0),
    )


def text_column(table: "pa.Table", name: str) -> "pl.Series":
    """A column of texts as it is, without a copy of every text."""
    import polars as pl

    return pl.DataFrame(pl.from_arrow(table.select([name])))[name].cast(pl.String)


def categories_of(table: "pa.Table") -> set[str]:
    """The categories of the items as the sentence shows them: shared, but no boilerplate."""
    import polars as pl

    if "category" not in table.column_names:
        return set()
    lists = pl.DataFrame(pl.from_arrow(table.select(["category"])))["category"]
    if lists.dtype != pl.List(pl.String):
        return set()
    return set(lists.list.join(", ").drop_nulls().unique())


def events_of(domain: Domain) -> Events:
    """The interactions of a domain as columns."""
    users = np.repeat(np.arange(domain.user_count), np.diff(domain.offsets))
    return Events(users, domain.items, domain.timestamps)


def has_real_times(domain: Domain) -> bool:
    """Whether the times of a domain are points in time, not positions."""
    facts: dict[str, Any] = domain.manifest.facts if domain.manifest is not None else {}
    return bool(facts.get("time", {}).get("real", True))


def _items_with(texts: Any, sentences: list[str]) -> int:
    """Items whose text has one of the sentences."""
    wanted = frozenset(sentences)
    if not wanted:
        return 0
    return sum(
        any(part.strip(" .") in wanted for part in text.split(". ")) for text in texts if text
    )


def warnings_of(found: Findings) -> list[str]:
    """Plain sentences about what stands out; each names the option of `utgrec clean` that helps."""
    said = []
    if found.duplicate_events:
        said.append(
            f"{found.duplicate_events:,} interactions repeat an earlier one of the same user, item "
            "and time (clean: --drop-duplicate-events)."
        )
    if found.burst_events:
        said.append(
            f"{found.burst_events:,} interactions of {found.burst_users:,} users stand in groups "
            f"of {BURST} or more within one second: their order means nothing "
            "(clean: --drop-bursts)."
        )
    if found.fast_users:
        said.append(
            f"{found.fast_users:,} users with {found.fast_user_events:,} interactions made more "
            f"than {FAST} in some hour: entered in bulk, or no people (clean: --drop-fast-users)."
        )
    if found.backward_steps:
        said.append(
            f"{found.backward_steps:,} steps within histories go back in time: the folder was not "
            "written by UTGRec; prepare it again."
        )
    if found.placeholder_texts:
        said.append(
            f"{found.placeholder_texts:,} items have a text that says nothing, such as N/A "
            "(clean: --drop-empty-text)."
        )
    if found.boilerplate_items:
        said.append(
            f"{found.boilerplate_items:,} items have a sentence that very many share, such as "
            f"“{found.boilerplate[0]}” (clean: --drop-boilerplate)."
        )
    if found.markup_texts:
        said.append(f"{found.markup_texts:,} items have HTML in their texts (clean: --strip-html).")
    if found.mojibake_texts:
        said.append(
            f"{found.mojibake_texts:,} items have texts that were decoded wrongly "
            "(clean: --fix-mojibake)."
        )
    if found.lost_characters:
        said.append(f"{found.lost_characters:,} items have characters that were lost (U+FFFD).")
    if found.shared_pictures:
        said.append(
            f"{found.shared_picture_items:,} items share {found.shared_pictures:,} pictures with "
            f"{MANY - 1} others or more, {found.most_shared_picture:,} items one of them: perhaps "
            "“no picture” in many frames (clean: --drop-shared-images)."
        )
    return said
