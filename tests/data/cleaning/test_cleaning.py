"""Suspicious data: planted, counted, and taken out by exactly the option that names it."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from utgrec import Domain, storage
from utgrec.catalog import write_domain
from utgrec.data.cleaning import clean as clean_module
from utgrec.data.cleaning.clean import CleanOptions, clean_domain
from utgrec.data.cleaning.events import Events, backwards, in_bursts, of_fast_users, repeated
from utgrec.data.cleaning.findings import categories_of, find, warnings_of
from utgrec.data.cleaning.languages import count_languages, languages
from utgrec.data.cleaning.texts import (
    boilerplate,
    changed,
    has_markup,
    has_mojibake,
    repair,
    says_nothing,
    shared,
)
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.data.splitting import SplitOptions
from utgrec.data.summary import summarise
from utgrec.errors import BadConfig, SettingsMismatch, StorageError

START = 1_700_000_000_000
LONG = "Ships within two working days"


def events(rows: list[tuple[int, int, int]]) -> Events:
    """From (user, item, ms) rows in the order of a domain."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Events(columns[0], columns[1].astype(np.int32), columns[2])


# ------------------------------------------------------------------------------------------ events


def test_repetitions_by_hand():
    found = repeated(events([(0, 1, 5), (0, 1, 5), (0, 1, 6), (0, 2, 5), (0, 1, 5), (1, 1, 5)]))
    assert found.tolist() == [False, True, False, False, True, False]
    assert repeated(events([])).tolist() == []


def test_bursts_by_hand():
    rows = [(0, 1, 1000), (0, 2, 1999), (0, 3, 2000), (1, 1, 2000), (1, 2, 2500), (1, 3, 2999)]
    assert in_bursts(events(rows), 2).tolist() == [True, True, False, True, True, True]
    assert in_bursts(events(rows), 3).tolist() == [False] * 3 + [True] * 3
    assert in_bursts(events([]), 2).tolist() == []


def test_fast_users_by_hand():
    hour = 3_600_000
    slow = [(0, n, n * (hour // 3)) for n in range(10)]  # three in any hour
    fast = [(1, n, n * (hour // 4)) for n in range(10)]  # four
    assert of_fast_users(events(slow + fast), 3).tolist() == [False] * 10 + [True] * 10
    assert not of_fast_users(events(slow + fast), 4).any()
    assert of_fast_users(events([]), 3).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_masks_are_those_of_a_slow_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = sorted((int(u), int(t), int(i)) for u, i, t in rng.integers(0, [4, 3, 9000], (60, 3)))
    given = events([(u, i, t) for u, t, i in rows])
    seconds = [(u, t // 1000) for u, t, _ in rows]
    assert in_bursts(given, 3).tolist() == [seconds.count(second) >= 3 for second in seconds]
    seen: set[Any] = set()
    slow = [row in seen or bool(seen.add(row)) for row in rows]
    assert repeated(given).tolist() == slow
    assert backwards(given) == 0
    turned = Events(given.users, given.items, given.times[::-1].copy())
    assert backwards(turned) > 0


# ------------------------------------------------------------------------------------------- texts


def test_texts_that_say_nothing():
    nothing = [
        "",
        None,
        "N/A",
        " n/a. ",
        "None",
        "—",
        "null",
        "Untitled.",
        "No description",
        "TEST",
    ]
    words = ["Test tube", "Tea", "None of us", "Product of Spain", "NAN bread", "茶", "7"]
    assert says_nothing(pl.Series(nothing)).all()
    assert not says_nothing(pl.Series(words[:-1])).any()


def test_markup():
    assert has_markup(pl.Series(["<b>Tea</b>", "Tea &amp; milk", "a<br/>b", "&#39;"])).all()
    assert not has_markup(pl.Series(["Tea & milk", "3 < 4 > 2", "AT&T; fine", None])).any()


@pytest.mark.parametrize(
    "text", ["Café crème", "Größe für Bücher", "naïve — “quoted”", "señor", "Ägypten", "łódź"]
)
def test_mojibake_is_found_and_put_right(text: str) -> None:
    for wrong in {text.encode().decode(code, "replace") for code in ("cp1252", "latin-1")}:
        if "\ufffd" in wrong:
            continue
        assert has_mojibake(pl.Series([wrong])).all(), wrong
        assert repair(wrong) == text
    assert not has_mojibake(pl.Series([text])).any()


def test_texts_are_put_right_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utgrec.data.cleaning.texts.TOGETHER", 3)
    texts = pl.Series(["a", None, "b", "", "a", "c", "a", "d"])
    for mark in ("a", "", "nothing"):
        found = changed(texts, (texts == mark).fill_null(False), lambda text: f"<{text}>")
        assert found.to_list() == [f"<{t}>" if t == mark else t for t in texts]
    assert changed(texts[:0], texts[:0] == "a", str).to_list() == []


def test_texts_of_many_items() -> None:
    texts = pl.Series(["a", "b", "a", None, "", "", "", "c", "a", "b"])
    assert shared(texts, 2) == {"a": 3, "b": 2} and shared(texts, 3) == {"a": 3}
    assert shared(texts, 4) == {} and shared(texts[:0], 1) == {}


def test_categories_as_the_sentence_shows_them() -> None:
    lists = [["A", "B"], None, [], ["A", "B"], ["C"]]
    assert categories_of(pa.table({"category": lists})) - {""} == {"A, B", "C"}
    assert categories_of(pa.table({"category": ["A", None]})) == set()
    assert categories_of(pa.table({"title": ["A"]})) == set()


def test_boilerplate_sentences():
    texts = [f"Cup number {n}. {LONG}." if n % 2 else f"Cup number {n} is red." for n in range(60)]
    assert boilerplate(pl.Series(texts)).rows() == [(LONG, 30)]
    assert boilerplate(pl.Series(texts), besides=[LONG]).rows() == []
    assert boilerplate(pl.Series(texts[:20])).rows() == []
    assert boilerplate(pl.Series([], dtype=pl.String)).rows() == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cup that you love, with a handle of oak", "English"),
        ("Die Tasse mit dem Henkel ist für den Kaffee und nicht für Tee", "German"),
        ("La tasse est pour le café et les amis dans votre cuisine", "French"),
        ("La taza es para el café con los amigos", "Spanish"),
        ("De beker is van het huis en niet voor de thee", "Dutch"),
        ("Eau de Toilette de Paris w w i i", "unclear"),
        ("Чашка для чая", "Cyrillic script"),
        ("お茶のカップ", "Japanese"),
        ("茶杯", "Chinese"),
        ("찻잔", "Korean"),
        ("كوب شاي", "Arabic script"),
        ("Bodum Bistro 350 ml", "unclear"),
        ("12345", "unclear"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert languages(pl.Series([text])).to_list() == [language]


def test_languages_are_counted():
    texts = pl.Series(["the cup and the pot", "", None, "茶杯", "茶壶"])
    assert count_languages(texts) == {"Chinese": 2, "English": 1}
    assert count_languages(pl.Series([], dtype=pl.String)) == {}


# ----------------------------------------------------------------------------------------- domains

TEXTS = [
    "A cup for the tea and you.",
    "N/A.",
    "CafÃ© crÃ¨me cup.",
    "A <b>cup</b> &amp; pot.",
    *(f"Cup number {n} of the set. {LONG}." for n in range(30)),
]


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """A domain with one of everything."""
    count = len(TEXTS)
    rows = [(0, n % count, START + n * 7_200_000) for n in range(20)]
    rows += [(0, 3, rows[3][2])]  # again, to the millisecond
    rows += [(1, n, START + 10 * n) for n in range(6)]  # in one second
    rows += [(2, n % count, START + 20_000 * n) for n in range(120)]  # 180 an hour
    rows += [(3, n, START + n * 90_000_000) for n in range(count)]
    rows.sort(key=lambda row: (row[0], row[2]))
    images = ["images/no.png" if n % 4 == 0 else None for n in range(count)]
    folder = tmp_path / "dirty"
    with storage.new_folder(folder) as new:
        (new / "images").mkdir()
        (new / "images" / "no.png").write_bytes(b"a picture")
        write_domain(
            new,
            name="dirty",
            items=pa.table(
                {
                    "item_id": [f"i{n}" for n in range(count)],
                    "title": [f"Cup {n}" for n in range(count)],
                    "text": TEXTS,
                    "image": pa.array(images, pa.string()),
                }
            ),
            user_ids=["a", "b", "c", "d"],
            interactions=pa.table(
                {
                    "user": pa.array([row[0] for row in rows], pa.int32()),
                    "item": pa.array([row[1] for row in rows], pa.int32()),
                    "timestamp": pa.array([row[2] for row in rows], pa.int64()),
                }
            ),
            config={},
            inputs={},
            facts={"rejected": {"old": 1}, "filter": {"k_core": 1}, "time": {"real": True}},
            rejected=pa.table(
                {
                    "file": ["items.csv"],
                    "row": pa.array([7], pa.int64()),
                    "reason": ["old"],
                    "item_id": ["x"],
                    "user_id": pa.array([None], pa.string()),
                    "detail": [""],
                }
            ),
        )
    return folder


def test_everything_planted_is_found(dirty: Path) -> None:
    found = find(Domain.open(dirty))
    assert found.duplicate_events == 1
    assert (found.burst_users, found.burst_events) == (1, 6)
    assert (found.fast_users, found.fast_user_events) == (1, 120)
    assert found.backward_steps == 0
    assert (found.empty_texts, found.placeholder_texts) == (0, 1)
    assert (found.markup_texts, found.mojibake_texts, found.lost_characters) == (1, 1, 0)
    assert found.boilerplate_items == 30 and found.boilerplate == [f"{LONG} (30)"]
    assert (found.shared_pictures, found.shared_picture_items) == (1, 9)
    assert sum(found.languages.values()) == len(TEXTS)
    said = " ".join(warnings_of(found))
    for option in ("duplicate-events", "bursts", "fast-users", "empty-text", "shared-images"):
        assert f"--drop-{option}" in said
    assert set(warnings_of(found)) <= set(summarise(Domain.open(dirty)).warnings)


@pytest.mark.parametrize(
    ("options", "reasons", "left"),
    [
        ({"drop_duplicate_events": True}, {"duplicate event": 1}, "duplicate_events"),
        ({"drop_bursts": 5}, {"burst within a second": 6}, "burst_events"),
        ({"drop_fast_users": 100}, {"user too fast": 120}, "fast_user_events"),
        (
            {"drop_empty_text": True},
            {"item without text": 7, "text is empty or says nothing": 1},
            "placeholder_texts",
        ),
        ({"drop_boilerplate": True}, {}, "boilerplate_items"),
        ({"drop_shared_images": 5}, {}, "shared_pictures"),
        ({"strip_html": True}, {}, "markup_texts"),
        ({"fix_mojibake": True}, {}, "mojibake_texts"),
    ],
)
def test_each_option_takes_out_its_own(
    dirty: Path, tmp_path: Path, options: dict[str, Any], reasons: dict[str, int], left: str
) -> None:
    out = tmp_path / "clean"
    manifest = clean_domain(dirty, out, CleanOptions(**options))
    before, after = Domain.open(dirty), Domain.open(out)
    assert manifest.facts["rejected"] == {"old": 1, **reasons}
    rejected = pl.DataFrame(pq.read_table(out / "rejected.parquet").to_pydict())
    assert dict(rejected["reason"].value_counts().rows()) == manifest.facts["rejected"]
    lost = sum(n for reason, n in reasons.items() if not reason.startswith("text"))
    assert after.interaction_count == before.interaction_count - lost
    found = find(after)
    assert getattr(find(before), left) and not getattr(found, left)
    # A row of rejected.parquet says which row of the source it was.
    events = pq.read_table(dirty / "interactions.parquet").to_pylist()
    for row in rejected.filter(pl.col("file") == "interactions.parquet").rows(named=True):
        source = events[row["row"] - 1]
        assert before.user_ids[source["user"]] == row["user_id"]
        assert before.catalog.item_ids[source["item"]] == row["item_id"]
        assert str(source["timestamp"]) == row["detail"]
    assert clean_domain(dirty, out, CleanOptions(**options)) == manifest


def test_all_at_once_and_what_texts_become(dirty: Path, tmp_path: Path) -> None:
    options = CleanOptions(
        drop_duplicate_events=True,
        drop_bursts=5,
        drop_fast_users=100,
        drop_empty_text=True,
        drop_boilerplate=True,
        drop_shared_images=5,
        strip_html=True,
        fix_mojibake=True,
    )
    manifest = clean_domain(dirty, tmp_path / "clean", options)
    domain = Domain.open(tmp_path / "clean")
    assert domain.user_ids == ["a", "d"] and len(domain.catalog) == len(TEXTS) - 1
    assert domain.catalog.texts[:4] == [
        "A cup for the tea and you.",
        "Café crème cup.",
        "A cup & pot.",
        "Cup number 0 of the set.",
    ]
    assert manifest.facts["counts"]["items_with_image"] == 0
    assert not warnings_of(find(domain))


def test_the_core_is_made_anew(dirty: Path, tmp_path: Path) -> None:
    manifest = clean_domain(dirty, tmp_path / "c", CleanOptions(drop_fast_users=100, k_core=2))
    domain = Domain.open(tmp_path / "c")
    assert np.bincount(domain.items).min() >= 2
    removed = manifest.facts["filter"]
    assert removed["interactions_removed"] > 0
    # What the core removes is told row by row, like what the options drop.
    rejected = pl.read_parquet(tmp_path / "c" / "rejected.parquet")
    assert dict(rejected["reason"].value_counts().rows()) == manifest.facts["rejected"]
    core = "outside the 2-core after cleaning"
    assert manifest.facts["rejected"][core] == removed["interactions_removed"]
    assert manifest.facts["rejected"][f"item {core}"] == removed["items_removed"]
    before = Domain.open(dirty)
    gone = rejected.filter(pl.col("reason") == f"item {core}")["item_id"].to_list()
    assert set(gone) == set(before.catalog.item_ids) - set(domain.catalog.item_ids)
    events = pq.read_table(dirty / "interactions.parquet").to_pylist()
    for row in rejected.filter(pl.col("reason") == core).rows(named=True):
        source = events[row["row"] - 1]
        assert before.user_ids[source["user"]] == row["user_id"]
        assert before.catalog.item_ids[source["item"]] == row["item_id"]


def test_no_more_rows_are_listed_than_people_read(
    dirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_module, "MOST_LISTED", 3)
    manifest = clean_domain(dirty, tmp_path / "c", CleanOptions(drop_fast_users=100, k_core=2))
    assert pq.read_table(tmp_path / "c" / "rejected.parquet").num_rows == 3
    assert sum(manifest.facts["rejected"].values()) > 100


def test_what_is_refused(dirty: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="name at least one thing to clean"):
        clean_domain(dirty, tmp_path / "c", CleanOptions(k_core=3))
    with pytest.raises(BadConfig, match="drop_bursts is 1"):
        CleanOptions(drop_bursts=1)
    with pytest.raises(StorageError, match="is the domain itself"):
        clean_domain(dirty, dirty, CleanOptions(strip_html=True))
    clean_domain(dirty, tmp_path / "c", CleanOptions(strip_html=True))
    with pytest.raises(SettingsMismatch, match="derived otherwise"):
        clean_domain(dirty, tmp_path / "c", CleanOptions(fix_mojibake=True))


def test_a_split_by_time_and_further_columns_stay(tmp_path: Path) -> None:
    rows = [(user, 1_700_000_000 + 1000 * step, step) for step in range(40) for user in range(5)]
    lines = [f"u{user},i{step % 9},{time},{step % 3 + 1}" for user, time, step in rows]
    source = tmp_path / "source"
    source.mkdir()
    (source / "items.csv").write_text(
        "item_id,title\n" + "".join(f"i{n},<b>Cup</b> &amp;amp; {n}\n" for n in range(9))
    )
    text = "user_id,item_id,timestamp,weight\n" + "\n".join([*lines, *lines[:3]]) + "\n"
    (source / "interactions.csv").write_text(text)
    options = TableOptions(
        k_core=1, columns={"weight": "weight"}, split=SplitOptions(kind="global-time")
    )
    prepare_table(source, tmp_path / "domain", options)
    before = Domain.open(tmp_path / "domain")
    assert find(before).duplicate_events == find(before).unsorted_rows == 3
    clean_domain(tmp_path / "domain", tmp_path / "c", CleanOptions(drop_duplicate_events=True))
    after = Domain.open(tmp_path / "c")
    assert after.split == before.split and after.split.kind == "global-time"
    assert after.interaction_count == 200
    log = pq.read_table(tmp_path / "c" / "interactions.parquet")
    assert log.column_names == ["user", "item", "timestamp", "weight"]
    steps = (log.column("timestamp").to_numpy() // 1000 - 1_700_000_000) // 1000
    assert (log.column("weight").to_numpy() == steps % 3 + 1).all()
    counts = after.manifest.facts["split"] if after.manifest else {}
    assert counts["training_interactions"] < 200 and counts["kind"] == "global-time"
