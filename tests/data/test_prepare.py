"""From tables to a domain: what comes out, what is refused, and that a failure leaves nothing."""

import dataclasses
import os
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from shop_files import EVENTS, ITEMS, events_as_rows, picture, write_rows, write_shop

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import from_dict, to_dict
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.errors import (
    BadConfig,
    BadImage,
    BadTable,
    EmptyDomain,
    SettingsMismatch,
    StorageError,
)

OPEN = TableOptions(name="tea", k_core=1, source="tests", licence="free")


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "domain.json"
    }


def test_a_small_shop_by_hand(tmp_path: Path) -> None:
    manifest = prepare_table(write_shop(tmp_path / "tea"), tmp_path / "out", OPEN)
    domain = Domain.open(tmp_path / "out")
    assert domain.catalog.item_ids == ["007", "7", "a/b ✨"]
    assert domain.catalog.texts == [
        'Black Tea. Leaf & Co. Drinks, Tea. Strong, "smoky" leaves. Ann, Bo.',
        "Cup. Kitchen.",
        "Pot. Leaf & Co. Holds one litre. Bo.",
    ]
    assert domain.catalog.titles == ["Black Tea", "Cup", "Pot"]
    assert domain.catalog[0].attributes == {
        "brand": "Leaf & Co.",
        "category": ["Drinks", "Tea"],
        "price": 4.5,
        "year": 1999,
        "makers": ["Ann", "Bo"],
    }
    assert domain.user_ids == ["u1", "u2"]
    assert domain.history(0).tolist() == [2, 0, 0, 1]
    assert domain.history(1).tolist() == [0, 1, 2]
    assert domain.timestamps.tolist()[0] == 1_400_000_050_000
    assert manifest == storage.read_manifest(tmp_path / "out", "domain", "domain.json")
    facts = manifest.facts
    assert facts["counts"] == {
        "users": 2,
        "items": 3,
        "interactions": 7,
        "items_with_text": 3,
        "items_with_image": 0,
    }
    assert (facts["name"], facts["source"], facts["licence"]) == ("tea", "tests", "free")
    assert facts["duplicate_events"] == 1
    assert facts["rejected"] == {}
    assert facts["time"]["unit"] == "s"
    assert set(manifest.inputs) == {"items.jsonl", "interactions.csv", "images"}
    assert not (tmp_path / "out" / "rejected.parquet").exists()


FORMATS = ["csv", "tsv", "csv.gz", "jsonl", "ndjson.gz", "json", "parquet"]


def test_every_file_format_gives_the_same_bytes(tmp_path: Path) -> None:
    results = []
    for ending in FORMATS:
        source = write_shop(
            tmp_path / ending, items_file=f"items.{ending}", events_file=f"interactions.{ending}"
        )
        prepare_table(source, tmp_path / f"out.{ending}", OPEN)
        results.append(all_bytes(tmp_path / f"out.{ending}"))
    assert len(results[0]) == 3
    assert all(result == results[0] for result in results)


def test_the_order_of_the_log_does_not_matter(tmp_path: Path) -> None:
    events = [(f"u{n % 4}", ITEMS[n % 3]["item_id"], 1_400_000_000 + n) for n in range(24)]
    prepare_table(write_shop(tmp_path / "a", events=events), tmp_path / "out-a", OPEN)
    random.Random(0).shuffle(events)
    prepare_table(write_shop(tmp_path / "b", events=events), tmp_path / "out-b", OPEN)
    assert all_bytes(tmp_path / "out-a") == all_bytes(tmp_path / "out-b")


def test_equal_times_keep_the_order_of_the_source(tmp_path: Path) -> None:
    events = [("u", item, 1_400_000_000) for item in ("7", "007", "a/b ✨", "7")]
    prepare_table(write_shop(tmp_path / "s", events=events), tmp_path / "out", OPEN)
    assert Domain.open(tmp_path / "out").items.tolist() == [1, 0, 2, 1]


STRANGE = ["../../etc", "a/b", ".", "..", "NUL", "✨", "n" * 300, "=1+1", "a,b", 'q"', "-", " x"]


def test_strange_ids_come_back_and_never_touch_a_path(tmp_path: Path) -> None:
    ids = STRANGE
    items = [item(item_id, image=f"pics/{n}.png") for n, item_id in enumerate(ids)]
    events = [(f"u {item_id}", item_id, n) for n, item_id in enumerate(ids)]
    for ending in ("csv", "jsonl", "parquet"):
        source = write_shop(
            tmp_path / ending,
            items,
            events,
            items_file=f"items.{ending}",
            events_file=f"interactions.{ending}",
        )
        (source / "pics").mkdir()
        for n in range(len(ids)):
            (source / "pics" / f"{n}.png").write_bytes(picture(size=(n + 1, 2)))
        out = tmp_path / f"out-{ending}"
        prepare_table(source, out, OPEN)
        domain = Domain.open(out)
        assert domain.catalog.item_ids == ids
        assert sorted(domain.user_ids) == sorted(f"u {item_id}" for item_id in ids)
        for image in domain.catalog.images:
            assert image is not None
            assert image.is_relative_to(out / "images")
            assert storage.hash_file(image) == image.stem


def test_numbers_as_ids_in_any_format(tmp_path: Path) -> None:
    items = [{"item_id": 7, "title": "x"}, {"item_id": 12, "title": "y"}]
    for ending in ("csv", "jsonl", "parquet"):
        events: list[tuple[Any, Any, Any]] = [(1, 7, 1), (1, 12.0, 2)]
        source = write_shop(tmp_path / ending, items, [], items_file=f"items.{ending}")
        (source / "interactions.csv").unlink()
        write_rows(source / "interactions.jsonl", events_as_rows(events))
        prepare_table(source, tmp_path / f"out-{ending}", OPEN)
        assert Domain.open(tmp_path / f"out-{ending}").catalog.item_ids == ["7", "12"]


def test_a_ready_sentence_is_taken_as_it_is(tmp_path: Path) -> None:
    items = [{"item_id": "a", "text": "One &amp; only. sentence"}, {"item_id": "b", "text": None}]
    prepare_table(write_shop(tmp_path / "s", items, [("u", "a", 1)]), tmp_path / "out", OPEN)
    assert Domain.open(tmp_path / "out").catalog.texts == ["One & only. sentence", ""]


def test_pictures_are_found_by_id_without_a_column(tmp_path: Path) -> None:
    source = write_shop(tmp_path / "s")
    (source / "images").mkdir()
    (source / "images" / "007.jpg").write_bytes(picture())
    prepare_table(source, tmp_path / "out", OPEN)
    images = Domain.open(tmp_path / "out").catalog.images
    assert [image is not None for image in images] == [True, False, False]
    assert str(images[0]).endswith(".png")


def test_web_addresses_are_kept_for_later(tmp_path: Path) -> None:
    items = [{"item_id": "a", "title": "x", "imUrl": "https://x.example/a.jpg"}]
    prepare_table(write_shop(tmp_path / "s", items, [("u", "a", 1)]), tmp_path / "out", OPEN)
    item = Domain.open(tmp_path / "out").catalog[0]
    assert item.image is None
    assert item.attributes["image_url"] == "https://x.example/a.jpg"


# ── the filter ──────────────────────────────────────────────────────────────────────────────────


def cored(tmp_path: Path, **options: Any) -> tuple[Domain, dict[str, Any]]:
    """Users a, b take items 1, 2 twice together; user c and item 3 hang on by one; 4 is untaken."""
    items = [{"item_id": name, "title": name} for name in "1234"]
    taken = ["a1", "a2", "b1", "b2", "b3", "c1"]
    events = [(user, name, time) for time, (user, name) in enumerate(taken)]
    source = write_shop(tmp_path / "s", items, events)
    manifest = prepare_table(source, tmp_path / "out", TableOptions(**options))
    return Domain.open(tmp_path / "out"), manifest.facts["filter"]


def test_the_core_removes_and_counts(tmp_path: Path) -> None:
    domain, facts = cored(tmp_path, k_core=2)
    assert domain.catalog.item_ids == ["1", "2"]
    assert domain.user_ids == ["a", "b"]
    assert domain.items.tolist() == [0, 1, 0, 1]
    assert facts == {
        "k_core": 2,
        "rounds": 1,
        "repeats": "keep",
        "repeated_interactions_removed": 0,
        "exact": True,
        "users_removed": 1,
        "interactions_removed": 2,
        "items_removed": 1,
        "untaken_items_removed": 1,
        "untaken_items_kept": 0,
    }


@pytest.mark.parametrize(
    ("k", "keep", "ids"),
    [(1, None, "1234"), (1, False, "123"), (2, True, "1234"), (2, None, "12"), (2, False, "12")],
)
def test_untaken_items(tmp_path: Path, k: int, keep: bool | None, ids: str) -> None:
    domain, _ = cored(tmp_path, k_core=k, keep_untaken_items=keep)
    assert domain.catalog.item_ids == list(ids)
    assert domain.items.tolist()[:2] == [0, 1]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmptyDomain, match=r"6 interactions hold no user .*--k-core"):
        cored(tmp_path, k_core=5)
    with pytest.raises(EmptyDomain, match="no interaction that can be used"):
        prepare_table(write_shop(tmp_path / "none", events=[]), tmp_path / "out", OPEN)
    shop = write_shop(tmp_path / "others", events=[("u1", "Z9", 1_400_000_000)] * 2)
    with pytest.raises(EmptyDomain, match=r"used: 2 \(unknown item: 2\); .*--bad-rows"):
        prepare_table(shop, tmp_path / "out", dataclasses.replace(OPEN, bad_rows="reject"))
    assert sorted(os.listdir(tmp_path)) == ["none", "others", "s"]


# ── bad rows ────────────────────────────────────────────────────────────────────────────────────


def item(item_id: Any, **more: Any) -> dict[str, Any]:
    return {"item_id": item_id, "title": "x", **more}


GOOD_ITEMS = [item("a"), item("b")]
GOOD_EVENTS: list[tuple[Any, Any, Any]] = [("u", "a", 1_400_000_000), ("u", "b", 1_400_000_001)]
T = 1_400_000_002

BAD_ITEMS = {
    "missing item id": item(None),
    "duplicate item id": item("a"),
}
BAD_EVENTS = {
    "missing user id": (None, "a", T),
    "missing item id": ("u", "", T),
    "unknown item": ("u", "zzz", T),
    "missing time": ("u", "a", None),
    "unreadable time": ("u", "a", float("nan")),
    "negative time": ("u", "a", -5),
    "time after the year 2100": ("u", "a", 10**13),
}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("reason", BAD_ITEMS)
def test_bad_items(tmp_path: Path, reason: str, ending: str) -> None:
    items = [*GOOD_ITEMS, BAD_ITEMS[reason]]
    source = write_shop(tmp_path / "s", items, GOOD_EVENTS, items_file=f"items.{ending}")
    line = 4 if ending == "csv" else 3
    refused_and_rejected(source, f"items.{ending}", line, reason)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("reason", BAD_EVENTS)
def test_bad_interactions(tmp_path: Path, reason: str, ending: str) -> None:
    events = [GOOD_EVENTS[0], BAD_EVENTS[reason], GOOD_EVENTS[1]]
    source = write_shop(tmp_path / "s", GOOD_ITEMS, events, events_file=f"events.{ending}")
    line = 3 if ending == "csv" else 2
    refused_and_rejected(source, f"events.{ending}", line, reason)


def test_broken_encoding(tmp_path: Path) -> None:
    source = write_shop(tmp_path / "s", GOOD_ITEMS, GOOD_EVENTS)
    with open(source / "items.jsonl", "ab") as stream:
        stream.write(b'{"item_id": "c", "title": "caf\xe9"}\n')
    refused_and_rejected(source, "items.jsonl", 3, "broken encoding")


@pytest.mark.parametrize("kind", ["missing", "broken", "huge", "outside", "link"])
def test_bad_images(tmp_path: Path, kind: str) -> None:
    source = write_shop(tmp_path / "s", [item("a", image="a.png"), item("b")], GOOD_EVENTS)
    (tmp_path / "b.png").write_bytes(picture())
    if kind in ("broken", "huge"):
        (source / "a.png").write_bytes(b"no" if kind == "broken" else picture(size=(50, 50)))
    if kind == "link":
        (source / "a.png").symlink_to(tmp_path / "b.png")
    if kind == "outside":
        write_rows(source / "items.jsonl", [item("a", image="../b.png"), item("b")])
    options = dataclasses.replace(OPEN, max_image_pixels=100)
    refused_and_rejected(source, "items.jsonl", 1, "bad image", BadImage, options, lost=0)
    assert Domain.open(tmp_path / "out").catalog.images == [None, None]


def refused_and_rejected(
    source: Path,
    file: str,
    line: int,
    reason: str,
    error: type[Exception] = BadTable,
    options: TableOptions = OPEN,
    lost: int = 1,
) -> None:
    """With "error" it names the row and leaves nothing; with "reject" it sets the row aside."""
    out = source.parent / "out"
    before = sorted(os.listdir(source.parent))
    with pytest.raises(error, match=rf"{file}, (line|row) {line}: {reason}.*--bad-rows reject"):
        prepare_table(source, out, options)
    assert sorted(os.listdir(source.parent)) == before
    manifest = prepare_table(source, out, dataclasses.replace(options, bad_rows="reject"))
    assert manifest.facts["rejected"] == {reason: 1}
    rejected = pl.read_parquet(out / "rejected.parquet")
    assert rejected.columns == ["file", "row", "reason", "item_id", "user_id", "detail"]
    assert rejected.select("file", "row", "reason").rows() == [(file, line, reason)]
    domain = Domain.open(out)
    assert domain.catalog.item_ids == ["a", "b"]
    assert domain.history(0).tolist() == [0, 1]


def test_all_bad_rows_are_counted_in_one_error(tmp_path: Path) -> None:
    events = [*GOOD_EVENTS, *(("u", f"z{n}", T) for n in range(7)), (None, "a", T)]
    source = write_shop(tmp_path / "s", GOOD_ITEMS, events)
    counts = "missing user id: 1, unknown item: 7"
    with pytest.raises(BadTable, match=rf"item 'z0'.*user 'u'.*: 8 \({counts}\)"):
        prepare_table(source, tmp_path / "out", OPEN)


# ── the folder ──────────────────────────────────────────────────────────────────────────────────


def test_running_again_changes_nothing(tmp_path: Path) -> None:
    source = write_shop(tmp_path / "s")
    first = prepare_table(source, tmp_path / "out", OPEN)
    stamp = (tmp_path / "out").stat().st_ctime_ns
    assert prepare_table(source, tmp_path / "out", OPEN) == first
    assert (tmp_path / "out").stat().st_ctime_ns == stamp


def test_other_settings_or_input_need_overwrite(tmp_path: Path) -> None:
    source, out = write_shop(tmp_path / "s"), tmp_path / "out"
    prepare_table(source, out, OPEN)
    other = dataclasses.replace(OPEN, keep_untaken_items=False)
    with pytest.raises(SettingsMismatch, match=r"keep_untaken_items differ.*--overwrite"):
        prepare_table(source, out, other)
    prepare_table(source, out, dataclasses.replace(other, overwrite=True))
    assert prepare_table(source, out, other).config["keep_untaken_items"] is False
    write_rows(source / "interactions.csv", events_as_rows(EVENTS[:-1]))
    with pytest.raises(SettingsMismatch, match=r"input interactions\.csv differ"):
        prepare_table(source, out, other)


def test_a_new_picture_is_other_input(tmp_path: Path) -> None:
    source, out = write_shop(tmp_path / "s"), tmp_path / "out"
    prepare_table(source, out, OPEN)
    (source / "images").mkdir()
    (source / "images" / "7.png").write_bytes(picture())
    with pytest.raises(SettingsMismatch, match="input images differ"):
        prepare_table(source, out, OPEN)


def test_a_failed_overwrite_keeps_the_old_domain(tmp_path: Path) -> None:
    source, out = write_shop(tmp_path / "s"), tmp_path / "out"
    prepare_table(source, out, OPEN)
    before = all_bytes(out)
    (source / "images").mkdir()
    (source / "images" / "7.png").write_bytes(b"broken")
    with pytest.raises(BadImage):
        prepare_table(source, out, dataclasses.replace(OPEN, overwrite=True))
    assert all_bytes(out) == before
    assert sorted(os.listdir(tmp_path)) == ["out", "s"]


def test_folders_that_are_no_domain_are_never_replaced(tmp_path: Path) -> None:
    source = write_shop(tmp_path / "s")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("text")
    force = dataclasses.replace(OPEN, overwrite=True)
    for out in (tmp_path / "mine", tmp_path / "file", source, tmp_path):
        with pytest.raises(StorageError):
            prepare_table(source, out, force)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    prepare_table(source, tmp_path / "empty", OPEN)


def test_the_source_must_be_a_folder_of_tables(tmp_path: Path) -> None:
    with pytest.raises(BadTable, match="is no folder"):
        prepare_table(tmp_path / "none", tmp_path / "out", OPEN)
    prepare_table(write_shop(tmp_path / "s"), tmp_path / "out", OPEN)
    with pytest.raises(BadTable, match="already a domain folder"):
        prepare_table(tmp_path / "out", tmp_path / "again", OPEN)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    source = write_shop(tmp_path / "s")
    (source / "images").mkdir()
    (source / "images" / "7.png").write_bytes(picture())
    seen: list[tuple[str, int, int]] = []
    prepare_table(
        source,
        tmp_path / "out",
        OPEN,
        lambda work, done, total, note="": seen.append((work, done, total)),
    )
    assert {step for step, done, total in seen if done == total} == {
        *("read items", "read interactions", "filter", "clean items", "check images"),
    }


# ── the options ─────────────────────────────────────────────────────────────────────────────────


def test_told_columns_and_files(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    write_rows(source / "x.csv", [{"key": "a", "label": "Tea", "secret": "s", "taste": "mild"}])
    write_rows(source / "y.csv", [{"who": "u", "key": "a", "n": "1"}])
    options = TableOptions(
        items_file="x.csv",
        interactions_file="y.csv",
        columns={"item_id": "key", "title": "label", "user": "who"},
        skip_columns=("secret",),
        text_columns=(),
        time_unit="row",
        k_core=1,
    )
    manifest = prepare_table(source, tmp_path / "out", options)
    domain = Domain.open(tmp_path / "out")
    assert domain.name == "s"
    assert domain.catalog.texts == ["Tea."]
    assert domain.catalog[0].attributes == {"taste": "mild"}
    assert manifest.facts["time"]["real"] is False
    with pytest.raises(BadTable, match="no column colour"):
        prepare_table(
            source, tmp_path / "out2", dataclasses.replace(options, skip_columns=("colour",))
        )


def test_options_are_checked_and_survive_json() -> None:
    options = TableOptions(columns={"user": "who"}, text_columns=("a",), keep_untaken_items=False)
    assert from_dict(TableOptions, to_dict(options)) == options
    for wrong in (
        {"k_core": 0},
        {"columns": {"usr": "who"}},
        {"bad_rows": "ignore"},
        {"time_unit": "days"},
        {"max_image_pixels": 10**9},
    ):
        with pytest.raises(BadConfig):
            TableOptions(**wrong)  # type: ignore[arg-type]
