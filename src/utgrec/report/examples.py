"""A few users: what they took, what they took next, and what UTGRec would have shown them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.loaded import load
from utgrec.report.pictures import Gallery, Tile
from utgrec.report.source import DomainSource, RunSource

SHOWN = 5  # recommendations per user
HISTORY = 10  # newest items of a history that are shown


class Shown(NamedTuple):
    """One recommended item."""

    tile: Tile
    score: float  # log-probability of the item's codes
    hit: bool


class UserCard(NamedTuple):
    """One user."""

    number: int  # row of the user in the domain folder
    history: list[Tile]  # the newest, oldest first
    hidden: int  # older items that are not shown
    first_day: str  # empty where the log has no real times
    last_day: str
    next_day: str
    target: Tile
    place: int | None  # 1-based, among the ranked items; None when it is not among them
    hit: bool  # among the first SHOWN
    shown: list[Shown]


class Examples(NamedTuple):
    """The users of one domain, and how they were chosen."""

    domain: str
    users: list[UserCard]
    evaluated: int
    hits: int  # users, of all evaluated, whose next item is among the first SHOWN
    depth: int  # ranked items per user
    missing: str


def choose_users(
    ranks: npt.NDArray[np.integer], count: int, seed: int
) -> tuple[list[int], list[int]]:
    """Rows of users with a hit among the first SHOWN and without, half each, drawn at random.

    Where one kind has too few, the other fills up.
    """
    hit = (ranks >= 0) & (ranks < SHOWN)
    hits, misses = np.flatnonzero(hit), np.flatnonzero(~hit)
    from_hits = min(len(hits), max((count + 1) // 2, count - len(misses)))
    from_misses = min(len(misses), count - from_hits)
    rng = np.random.default_rng([seed, 12])
    return (
        np.sort(rng.choice(hits, from_hits, replace=False)).tolist(),
        np.sort(rng.choice(misses, from_misses, replace=False)).tolist(),
    )


def examples(
    run: RunSource, source: DomainSource, gallery: Gallery, *, count: int, seed: int
) -> Examples:
    """The cards of `count` users of one domain; fewer if it has fewer."""
    evaluation = source.evaluations.get(source.comparison["reference"])
    if source.domain is None or source.split is None or evaluation is None:
        why = source.missing or "the ranks of the users are not there"
        return Examples(source.name, [], 0, 0, 0, why)
    depth = max(evaluation.ks)
    hits, misses = choose_users(evaluation.ranks, count, seed)
    rows = hits + misses
    users = [int(evaluation.users[row]) for row in rows]
    histories = [source.split.test_history(user) for user in users]
    cards = []
    if users:
        ids = source.domain.catalog.item_ids
        answers = load(run.folder.path, source.name).recommend_batch(
            [[ids[item] for item in history] for history in histories],
            depth,
            exclude_seen=evaluation.exclude_seen,
        )
        for row, user, history, answer in zip(rows, users, histories, answers, strict=True):
            target = int(evaluation.targets[row])
            rank = int(evaluation.ranks[row])
            days = _days(source, user)
            cards.append(
                UserCard(
                    number=user,
                    history=[gallery.tile(int(item)) for item in history[-HISTORY:]],
                    hidden=max(0, len(history) - HISTORY),
                    first_day=days[0] if days else "",
                    last_day=days[-2] if days else "",
                    next_day=days[-1] if days else "",
                    target=gallery.tile(target),
                    place=rank + 1 if rank >= 0 else None,
                    hit=0 <= rank < SHOWN,
                    shown=[
                        Shown(
                            gallery.tile(source.domain.catalog.index_of(entry.item.item_id)),
                            entry.score,
                            entry.item.item_id == ids[target],
                        )
                        for entry in answer[:SHOWN]
                    ],
                )
            )
    hit_count = int(((evaluation.ranks >= 0) & (evaluation.ranks < SHOWN)).sum())
    return Examples(source.name, cards, len(evaluation.users), hit_count, depth, "")


def _days(source: DomainSource, user: int) -> list[str]:
    """The days (UTC) of a user's interactions; none where the times are only an order."""
    domain = source.domain
    assert domain is not None and domain.manifest is not None
    if not domain.manifest.facts.get("time", {}).get("real", False):
        return []
    times = domain.timestamps[domain.offsets[user] : domain.offsets[user + 1]]
    return [str(day) for day in times.astype("datetime64[ms]").astype("datetime64[D]")]
