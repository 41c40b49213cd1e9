"""A split by time: nothing of the future trains, and a planted leak is found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop_files import ITEMS, write_rows, write_shop
from test_split import domain_of

from utgrec import storage
from utgrec.catalog import Domain, SplitRule
from utgrec.data.cleaning.clean import CleanOptions, clean_domain
from utgrec.data.cold import hold_out_items
from utgrec.data.derived import check_unrelated
from utgrec.data.neighbours import find_neighbours
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.data.resplit import resplit_domain
from utgrec.data.split import NOBODY, Split, check_one_split, leave_one_out, split_domain
from utgrec.data.splitting import SplitOptions, choose_split
from utgrec.data.summary import summarise
from utgrec.errors import BadConfig, CorruptFile, EmptyDomain, InputError, SettingsMismatch

VALID, TEST = 40, 70
RULE = SplitRule(kind="global-time", valid_from=VALID, test_from=TEST)


def timed_domain(histories: list[list[tuple[int, int]]], rule: SplitRule = RULE) -> Domain:
    """A domain from (time, item) pairs; items say of themselves when they were taken."""
    ordered = [sorted(history) for history in histories]
    domain = domain_of([[item for _, item in history] for history in ordered])
    domain.timestamps = np.array([t for history in ordered for t, _ in history], dtype=np.int64)
    domain.split = rule
    return domain


HISTORIES = st.lists(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), max_size=7), max_size=5
)


@given(HISTORIES)
def test_same_as_a_loop(histories: list[list[tuple[int, int]]]) -> None:
    split = split_domain(timed_domain(histories))
    for user, history in enumerate(map(sorted, histories)):
        train = [item for time, item in history if time < VALID]
        window = [item for time, item in history if VALID <= time < TEST]
        after = [item for time, item in history if time >= TEST]
        known = train + window
        assert split.train_history(user).tolist() == train
        assert split.test_history(user).tolist() == known
        assert split.known_lengths[user] == len(known)
        assert split.valid[user] == (window[0] if train and window else NOBODY)
        assert split.test[user] == (after[0] if known and after else NOBODY)
        assert (user in split.evaluated) == bool(known and after)
        assert (user in split.validated) == bool(train and window)


def latest_that_trains(domain: Domain, split: Split) -> int:
    """The time of the last interaction that some training history holds, found by its place."""
    latest = -1
    for user in range(domain.user_count):
        history = split.train_history(user)
        start = domain.offsets[user]
        np.testing.assert_array_equal(domain.items[start : start + len(history)], history)
        latest = max(latest, *domain.timestamps[start : start + len(history)].tolist(), -1)
    return latest


@given(HISTORIES)
def test_nothing_later_than_the_cut_trains(histories: list[list[tuple[int, int]]]) -> None:
    domain = timed_domain(histories)
    assert latest_that_trains(domain, split_domain(domain)) < VALID
    # The test can fail: leave-one-out of the same log does learn what is later, if there is any.
    late = any(sum(time >= VALID for time, _ in history) > 2 for history in histories)
    assert late <= (latest_that_trains(domain, leave_one_out(domain)) >= VALID)


@given(HISTORIES, st.randoms(use_true_random=False))
def test_the_future_cannot_be_felt(histories: list[list[tuple[int, int]]], random: Any) -> None:
    """Whatever happens after the cut, all that learns is the same."""
    other = [
        [(time, item if time < VALID else random.randrange(10)) for time, item in sorted(history)]
        for history in histories
    ]
    one, two = (split_domain(timed_domain(log)) for log in (histories, other))
    np.testing.assert_array_equal(one.train, two.train)
    np.testing.assert_array_equal(one.offsets, two.offsets)
    for first, second in zip(find_neighbours(one, 10), find_neighbours(two, 10), strict=True):
        np.testing.assert_array_equal(first, second)


def test_shares_and_dates_give_the_cuts() -> None:
    times = np.arange(100, dtype=np.int64) * 1000
    options = SplitOptions(kind="global-time", valid_share=0.2, test_share=0.1)
    rule = choose_split(options, times, {"real": True})
    assert (rule.valid_from, rule.test_from) == (70_000, 90_000)
    options = SplitOptions(
        kind="global-time", valid_from="1970-01-01T00:00:10", test_from="1970-01-01T00:00:20+00:00"
    )
    rule = choose_split(options, times, {"real": True})
    assert (rule.valid_from, rule.test_from) == (10_000, 20_000)
    assert "training before 1970-01-01T00:00:10Z" in rule.words
    with pytest.raises(InputError, match="has none"):
        choose_split(options, times, {"real": False})
    for wrong in (np.zeros(50, np.int64), np.arange(50) * 10**9):
        with pytest.raises(EmptyDomain, match="each needs some"):
            choose_split(options, wrong, {"real": True})


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "by hand"},
        {"kind": "global-time", "valid_share": 0.5, "test_share": 0.5},
        {"kind": "global-time", "valid_from": "2020-01-01"},
        {"valid_from": "2020-01-01", "test_from": "2020-02-01"},
    ],
)
def test_splits_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        SplitOptions(**settings)


def shop_by_time(folder: Path, split: SplitOptions, name: str = "tea") -> Path:
    events = [
        (f"u{user}", ITEMS[(user + step) % 3]["item_id"], 1_400_000_000 + 1000 * step + user)
        for user in range(4)
        for step in range(6)
    ]
    source = folder / "source"
    if not source.exists():
        write_shop(source, events=events)
    prepare_table(source, folder / name, TableOptions(name=name, k_core=1, split=split))
    return folder / name


def test_the_domain_says_its_split_and_is_another_domain_by_it(tmp_path: Path) -> None:
    plain = shop_by_time(tmp_path, SplitOptions(), "plain")
    cut = shop_by_time(tmp_path, SplitOptions(kind="global-time"), "cut")
    derived = tmp_path / "derived"
    manifest = resplit_domain(plain, SplitOptions(kind="global-time"), derived)
    domains = [Domain.open(folder) for folder in (plain, cut, derived)]
    assert [domain.split.kind for domain in domains] == ["leave-one-out", *["global-time"] * 2]
    assert domains[1].split == domains[2].split
    assert domains[2].name == "plain-time"
    # The same tables with another split must never be taken for the same input; with the same split
    # they are the same, whether they were derived or prepared.
    assert domains[0].fingerprint != domains[1].fingerprint == domains[2].fingerprint
    np.testing.assert_array_equal(domains[0].items, domains[2].items)
    facts = manifest.facts["split"]
    assert facts["training_interactions"] == len(split_domain(domains[2]).train)
    assert facts["words"] in summarise(domains[2]).split
    assert resplit_domain(plain, SplitOptions(kind="global-time"), derived) == manifest
    with pytest.raises(SettingsMismatch):
        resplit_domain(plain, SplitOptions(kind="global-time", test_share=0.2), derived)
    back = tmp_path / "back"
    resplit_domain(derived, SplitOptions(), back, name="plain")
    assert Domain.open(back).split == domains[0].split
    hold_out_items(back, 0.3, 0, tmp_path / "back-cold")
    with pytest.raises(BadConfig, match="made from the same log"):  # three versions apart
        check_unrelated([Domain.open(cut), Domain.open(tmp_path / "back-cold")])
    with pytest.raises(BadConfig, match="same split"):
        check_one_split(domains)
    with pytest.raises(BadConfig, match="held out by leave-one-out"):
        hold_out_items(derived, 0.3, 0, tmp_path / "cold")


def test_cleaning_keeps_the_split_and_what_is_known_of_events(tmp_path: Path) -> None:
    events = [
        {"user_id": f"u{n % 4}", "item_id": ITEMS[n % 3]["item_id"], "action": "buy", "w": n + 1}
        | {"timestamp": 1_400_000_000 + 1000 * n}
        for n in range(24)
    ]
    source = write_shop(tmp_path / "s", events=[])
    write_rows(source / "interactions.csv", [*events, events[5]])
    options = TableOptions(
        k_core=1,
        columns={"event": "action", "weight": "w"},
        split=SplitOptions(kind="global-time"),
    )
    prepare_table(source, tmp_path / "d", options)
    cleaned = clean_domain(
        tmp_path / "d", tmp_path / "out", CleanOptions(drop_duplicate_events=True)
    )
    assert Domain.open(tmp_path / "out").split == Domain.open(tmp_path / "d").split
    before, after = (
        pq.read_table(tmp_path / name / "interactions.parquet") for name in ("d", "out")
    )
    assert after.schema.equals(before.schema) and after.num_rows == before.num_rows - 1
    assert sorted(after.column("weight").to_pylist()) == [float(n + 1) for n in range(24)]
    assert cleaned.facts["split"]["kind"] == "global-time"
    known = cleaned.facts["split"]["training_interactions"]
    assert known == len(split_domain(Domain.open(tmp_path / "out")).train)


@pytest.mark.parametrize("change", ["kind", "test_from", "file"])
def test_a_split_changed_by_hand_is_found(tmp_path: Path, change: str) -> None:
    folder = shop_by_time(tmp_path, SplitOptions(kind="global-time"))
    told = json.loads((folder / "domain.json").read_text())
    if change == "file":
        (folder / "split.json").write_text('{"kind": "leave-one-out"}')
    elif change == "kind":
        told["facts"]["split"]["kind"] = "leave-one-out"
    else:
        told["facts"]["split"]["test_from"] += 1
    (folder / "domain.json").write_text(json.dumps(told))
    with pytest.raises(CorruptFile):
        Domain.open(folder)


def test_older_domains_are_leave_one_out(tmp_path: Path) -> None:
    folder = shop_by_time(tmp_path, SplitOptions())
    told = json.loads((folder / "domain.json").read_text())
    del told["facts"]["split"]
    del told["config"]["split"]
    (folder / "domain.json").write_text(json.dumps(told))
    assert Domain.open(folder).split == SplitRule()
    shop_by_time(tmp_path, SplitOptions())  # and need not be made again
    assert storage.read_manifest(folder, "domain", "domain.json").facts == told["facts"]
