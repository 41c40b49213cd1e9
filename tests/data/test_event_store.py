"""Events filtered on disk are what a plain program in memory leaves, whatever the parts."""

import random
from collections import Counter
from itertools import pairwise

import polars as pl
import pytest

from utgrec.data import event_store as events
from utgrec.data import kcore
from utgrec.data.event_store import EventStore
from utgrec.errors import EmptyDomain

Event = tuple[str, str, int]


def plain(log: list[Event], k: int, repeats: str) -> list[Event]:
    """The same law, in the simplest words."""
    log = [log[n] for n in sorted(range(len(log)), key=lambda n: (log[n][0], log[n][2], n))]
    if repeats == "first":
        seen: set[tuple[str, str]] = set()
        log = [e for e in log if not (e[:2] in seen or seen.add(e[:2]))]
    while True:
        users, items = Counter(e[0] for e in log), Counter(e[1] for e in log)
        left = [e for e in log if users[e[0]] >= k and items[e[1]] >= k]
        if len(left) == len(log):
            return log
        log = left


def some_log(seed: int, count: int) -> list[Event]:
    rng = random.Random(seed)
    return [
        (f"u{rng.randint(0, 60)}", f"é{int(40 * rng.random() ** 2)}", rng.randint(0, 30))
        for _ in range(count)
    ]


def frame(log: list[Event]) -> pl.DataFrame:
    return pl.DataFrame(log, schema=events.EVENT_SCHEMA, orient="row")


def left_of(store: EventStore, k: int, repeats: str) -> list[Event]:
    found = store.select(k, repeats)
    assert found.user_ids.to_list() == sorted(found.user_ids.to_list())
    assert found.item_ids.to_list() == sorted(found.item_ids.to_list())
    assert found.facts["interactions_removed"] == len(store) - len(found.users)
    rows = zip(found.users, found.items, found.timestamps, strict=True)
    return [(found.user_ids[int(u)], found.item_ids[int(i)], int(t)) for u, i, t in rows]


@pytest.mark.parametrize("repeats", ["first", "keep"])
@pytest.mark.parametrize("k", [1, 2, 5, 7])
@pytest.mark.parametrize("slots", [16, 64, 2**20])
def test_the_same_as_in_memory(tmp_path, k, repeats, slots):
    for seed in range(3):
        log = some_log(seed, 700)
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        store = EventStore(folder, most_slots=slots, small=1000 if seed == 0 else 0)
        cuts = [0, 1, 1, 200, 333, 700]
        parts = list(enumerate(pairwise(cuts)))
        random.Random(seed).shuffle(parts)  # parts may come in any order
        for number, (start, end) in parts:
            store.add(number, frame(log[start:end]))
        expected = plain(log, k, repeats)
        assert expected and left_of(store, k, repeats) == expected


def test_equal_hashes_change_nothing(tmp_path, monkeypatch):
    # Every id in one slot: the first filter removes nothing, the exact one all that it must.
    monkeypatch.setattr(events, "_slots", lambda hashes, bits, number: hashes * 0)
    log = some_log(1, 500)
    store = EventStore(tmp_path, small=0)
    store.add(0, frame(log))
    assert left_of(store, 6, "first") == plain(log, 6, "first")


def test_the_first_filter_takes_nearly_all_the_work(tmp_path, monkeypatch):
    rare = [(f"r{n}", f"x{n}", n) for n in range(2000)]
    log = some_log(2, 700) + rare
    seen = []
    exact = kcore.k_core
    monkeypatch.setattr(kcore, "k_core", lambda u, i, k: (seen.append(len(u)), exact(u, i, k))[1])
    store = EventStore(tmp_path, small=0)
    store.add(0, frame(log))
    assert left_of(store, 5, "first") == plain(log, 5, "first")
    assert seen[0] < 720


def test_about_how_many_were_removed(tmp_path):
    log = [(f"u{n}", "i", n) for n in range(5000)] + [("v", f"j{n % 3}", n) for n in range(9)]
    store = EventStore(tmp_path)
    store.add(0, frame(log))
    facts = store.select(3, "keep").facts
    assert (facts["users_removed"], facts["items_removed"], facts["exact"]) == (5000, 1, True)
    (tmp_path / "large").mkdir()
    store = EventStore(tmp_path / "large", small=0)
    store.add(0, frame(log))
    facts = store.select(3, "keep").facts
    assert abs(facts["users_removed"] - 5000) < 150 and not facts["exact"]
    assert facts["items_removed"] in range(3)


def test_what_came_out_of_order_is_counted(tmp_path):
    log = [("u", "a", 5), ("v", "a", 1), ("u", "b", 3), ("u", "c", 4), ("v", "b", 2), ("w", "d", 1)]
    store = EventStore(tmp_path)
    store.add(1, frame(log[3:]))
    store.add(0, frame(log[:3]))
    assert store.select(1, "keep").unsorted == 1  # b of u; c comes after b


def test_further_columns_stay_with_their_events(tmp_path):
    log = some_log(3, 400)
    store = EventStore(tmp_path, small=0)
    for part, (start, end) in enumerate(pairwise([0, 150, 400])):
        marks = pl.Series("mark", [f"{user} {item} {time}" for user, item, time in log[start:end]])
        store.add(part, frame(log[start:end]).with_columns(marks))
    found = store.select(5, "first")
    rows = zip(found.users, found.items, found.timestamps, found.extra["mark"], strict=True)
    for user, item, time, mark in rows:
        assert mark == f"{found.user_ids[int(user)]} {found.item_ids[int(item)]} {time}"


def test_nothing_left_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(EmptyDomain, match="no interaction that can be used"):
        EventStore(tmp_path / "a").select(1, "first")
    store = EventStore(tmp_path / "b")
    store.add(0, frame([("u", "i", 1)]))
    with pytest.raises(EmptyDomain, match="lower --k-core"):
        store.select(5, "first")
    (tmp_path / "c").mkdir()
    store = EventStore(tmp_path / "c")
    store.add(0, frame([("u", "i", 1)]))
    assert left_of(store, 1, "first") == [("u", "i", 1)]
