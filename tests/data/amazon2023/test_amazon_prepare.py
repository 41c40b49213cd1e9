"""Amazon Reviews 2023 to a domain: the law by hand, and that nothing depends on how it is read."""

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from amazon_shop import CATEGORY, T0, item, review, some_shop, write

from interruptions import fill_disk, kill_some
from utgrec.catalog import Domain
from utgrec.data.amazon2023.parts import ThisMachine
from utgrec.data.amazon2023.prepare import AmazonOptions, prepare_amazon
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.data.sentence import clean_list, clean_text, render_sentence
from utgrec.data.split import leave_one_out
from utgrec.errors import BadConfig, BadTable, EmptyDomain, SettingsMismatch, StorageError

OPEN = AmazonOptions(k_core=1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != "domain.json"}


def prepared(data: Path, out: Path, options: AmazonOptions = OPEN, **how: Any) -> Domain:
    prepare_amazon(CATEGORY, data, out, options, **how)
    return Domain.open(out)


def law(reviews: list[Any], items: list[Any], k: int) -> dict[str, Any]:
    """What must come out, in the simplest words: earliest of repeated reviews, then the k-core."""
    order = sorted(range(len(reviews)), key=lambda n: (reviews[n]["timestamp"], n))
    log = {
        (reviews[n]["user_id"], reviews[n]["parent_asin"]): reviews[n]["timestamp"]
        for n in order[::-1]
    }
    ranks = {(reviews[n]["user_id"], reviews[n]["parent_asin"]): n for n in order[::-1]}
    while True:
        users, taken = Counter(u for u, _ in log), Counter(i for _, i in log)
        left = {p: t for p, t in log.items() if users[p[0]] >= k and taken[p[1]] >= k}
        if len(left) == len(log):
            break
        log = left
    histories = {
        user: [
            i for (u, i), t in sorted(log.items(), key=lambda e: (e[1], ranks[e[0]])) if u == user
        ]
        for user in sorted({u for u, _ in log})
    }
    texts = {}
    for row in items:
        parts = [
            clean_text(row["title"]),
            *(clean_list(row[c]) for c in ("features", "categories")),
        ]
        texts[row["parent_asin"]] = render_sentence([*parts, clean_list(row["description"])])
    ids = sorted({i for _, i in log})
    return {"histories": histories, "items": ids, "texts": [texts[i] for i in ids]}


def outcome(domain: Domain) -> dict[str, Any]:
    ids = domain.catalog.item_ids
    return {
        "histories": {
            user: [ids[i] for i in domain.history(n)] for n, user in enumerate(domain.user_ids)
        },
        "items": ids,
        "texts": domain.catalog.texts,
    }


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_law(tmp_path, seed, k):
    reviews, items = some_shop(seed)
    domain = prepared(write(tmp_path, reviews, items), tmp_path / "out", AmazonOptions(k_core=k))
    assert outcome(domain) == law(reviews, items, k)
    facts = domain.manifest.facts
    assert facts["read"] == {"items": 40, "interactions": 540}
    assert facts["paper"]["law"] == (k == 5)
    split = leave_one_out(domain)
    pairs = sum(
        max(end - start - 1, 0)
        for start, end in zip(split.offsets, split.offsets[1:], strict=False)
    )
    assert facts["paper"]["found"]["training_pairs"] == pairs


def test_an_item_by_hand(tmp_path):
    domain = prepared(write(tmp_path, [review("u", "B1")], [item("B1")]), tmp_path / "out")
    assert domain.name == CATEGORY and domain.user_ids == ["u"]
    assert domain.catalog[0].text == (
        "Guitar B1. Six strings., Wood & steel. Music, Guitars. A fine, guitar."
    )
    assert domain.catalog[0].attributes == {
        "brand": "Fender",
        "category": ["Music", "Guitars"],
        "price": 99.5,
        "main_category": "Music",
        "image_url": "https://m.example/B1l1",  # of the MAIN variant, in its usual size
    }
    assert domain.timestamps.tolist() == [T0]


def test_the_earliest_of_repeated_reviews_stays(tmp_path):
    reviews = [review("u", "B1", T0 + 5), review("u", "B2", T0 + 3), review("u", "B1", T0 + 1)]
    data = write(tmp_path, reviews, [item("B1"), item("B2")])
    assert prepared(data, tmp_path / "a").timestamps.tolist() == [T0 + 1, T0 + 3]
    keep = prepared(data, tmp_path / "b", AmazonOptions(k_core=1, repeats="keep"))
    assert keep.timestamps.tolist() == [T0 + 1, T0 + 3, T0 + 5]


def test_nothing_depends_on_blocks_zip_or_place(tmp_path):
    reviews, items = some_shop()
    reviews[7] = b'{"broken'
    items[3] = b"\xff"
    data = write(tmp_path / "a", reviews, items)
    expected = files_of(prepared(data, tmp_path / "out").folder)
    assert set(expected) == {
        "items.parquet",
        "users.parquet",
        "interactions.parquet",
        "rejected.parquet",
    }
    for size in (2500, 30_000):
        got = prepared(data, tmp_path / f"out{size}", machine=ThisMachine(size))
        assert files_of(got.folder) == expected
    zipped = write(tmp_path / "z", reviews, items, zipped=True)
    assert outcome(prepared(zipped, tmp_path / "outz")) == outcome(Domain.open(tmp_path / "out"))
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in data.rglob("*.jsonl"):
        (flat / path.name).write_bytes(path.read_bytes())
    assert files_of(prepared(flat, tmp_path / "outf").folder) == expected


def test_the_official_five_core_gives_the_same(tmp_path):
    reviews, items = some_shop()
    raw = prepared(write(tmp_path, reviews, items), tmp_path / "out", AmazonOptions())
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["user_id", "parent_asin", "rating", "timestamp"])
    for user, name in enumerate(raw.user_ids):
        for place in range(raw.offsets[user], raw.offsets[user + 1]):
            item_id = raw.catalog.item_ids[raw.items[place]]
            writer.writerow([name, item_id, 5.0, raw.timestamps[place]])
    path = tmp_path / "benchmark/5core/rating_only" / f"{CATEGORY}.csv"
    path.parent.mkdir(parents=True)
    for ending in (b"\n", b"\r\n"):
        path.write_bytes(text.getvalue().encode().replace(b"\r\n", ending))
        domain = prepared(tmp_path, tmp_path / f"c{len(ending)}", AmazonOptions(version="5core"))
        assert outcome(domain) == outcome(raw)
        assert domain.manifest.facts["read"]["interactions"] == raw.interaction_count
        assert domain.manifest.facts["filter"]["interactions_removed"] == 0


def test_as_plain_tables_the_same_words(tmp_path):
    reviews, items = some_shop()
    domain = prepared(
        write(tmp_path, reviews, items), tmp_path / "out", AmazonOptions(repeats="keep")
    )
    options = TableOptions(
        items_file=f"raw/meta_categories/meta_{CATEGORY}.jsonl",
        interactions_file=f"raw/review_categories/{CATEGORY}.jsonl",
        columns={"item_id": "parent_asin", "brand": "", "item": "parent_asin", "image": ""},
        text_columns=(),
    )
    prepare_table(tmp_path, tmp_path / "table", options)
    table = Domain.open(tmp_path / "table")
    texts = dict(zip(table.catalog.item_ids, table.catalog.texts, strict=True))
    assert texts == dict(zip(domain.catalog.item_ids, domain.catalog.texts, strict=True))
    assert {u: Counter(h) for u, h in outcome(table)["histories"].items()} == {
        u: Counter(h) for u, h in outcome(domain)["histories"].items()
    }
    assert outcome(table)["histories"] == outcome(domain)["histories"]


def test_items_without_metadata_stay_and_are_counted(tmp_path):
    reviews = [review("u", "B1"), review("u", "B2")]
    domain = prepared(write(tmp_path, reviews, [item("B2"), item("B9")]), tmp_path / "out")
    assert domain.catalog.texts[0] == "" and domain.catalog.titles[0] == ""
    assert domain.manifest.facts["items"]["without_metadata"] == 1
    assert domain.manifest.facts["counts"]["items_with_text"] == 1


def test_running_again_does_nothing_and_other_settings_stop(tmp_path):
    data = write(tmp_path, [review("u", "B1")], [item("B1")])
    first = prepare_amazon(CATEGORY, data, tmp_path / "out", OPEN)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert prepare_amazon("instrument", data, tmp_path / "out", OPEN) == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    with pytest.raises(SettingsMismatch, match="setting repeats"):
        prepare_amazon(CATEGORY, data, tmp_path / "out", AmazonOptions(k_core=1, repeats="keep"))
    write(tmp_path, [review("v", "B1")], [item("B1")])
    with pytest.raises(SettingsMismatch, match=f"input {CATEGORY}.jsonl"):
        prepare_amazon(CATEGORY, data, tmp_path / "out", OPEN)
    again = AmazonOptions(k_core=1, overwrite=True)
    assert prepare_amazon(CATEGORY, data, tmp_path / "out", again).fingerprint != first.fingerprint


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BadTable, match=r"lacks Musical_Instruments.jsonl \(or .gz\) and meta_"):
        prepare_amazon(CATEGORY, tmp_path, tmp_path / "out", OPEN)
    with pytest.raises(BadConfig, match="did you mean Video_Games"):
        prepare_amazon("Video_Game", tmp_path, tmp_path / "out", OPEN)
    with pytest.raises(BadConfig, match="k_core is 0"):
        AmazonOptions(k_core=0)
    with pytest.raises(BadConfig, match="version is 'x'"):
        AmazonOptions(version="x")
    data = write(tmp_path, [review("u", "B1")], [item("B1")])
    with pytest.raises(StorageError, match="holds the source"):
        prepare_amazon(CATEGORY, data, tmp_path / "raw", OPEN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    with pytest.raises(StorageError, match="no domain folder"):
        prepare_amazon(CATEGORY, data, tmp_path / "mine", OPEN)
    with pytest.raises(EmptyDomain, match="lower --k-core"):
        prepare_amazon(CATEGORY, data, tmp_path / "out", AmazonOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at", range(6))
def test_a_full_disk_leaves_nothing_and_is_named(tmp_path, monkeypatch, at):
    data = write(tmp_path / "data", *some_shop())
    fill_disk(monkeypatch, at)
    with pytest.raises(StorageError, match=r"the disk of .* is full .* nothing was left behind"):
        prepare_amazon(CATEGORY, data, tmp_path / "out" / "x", OPEN)
    assert list((tmp_path / "out").iterdir()) == []


SCRIPT = """
import sys
from pathlib import Path
from utgrec.data.amazon2023.parts import ThisMachine
from utgrec.data.amazon2023.prepare import AmazonOptions, prepare_amazon
print("ready", flush=True)
prepare_amazon("instrument", Path(sys.argv[1]), Path(sys.argv[2]), AmazonOptions(k_core=2),
               machine=ThisMachine(2000))
"""


def test_killed_at_random_points_and_run_again_is_uninterrupted(tmp_path):
    reviews, items = some_shop()
    data = write(tmp_path / "data", reviews * 4, items)
    options = AmazonOptions(k_core=2)
    expected = files_of(prepared(data, tmp_path / "whole", options).folder)
    out = tmp_path / "out" / "x"
    kill_some(SCRIPT, data, out, out=out)
    assert files_of(prepared(data, out, options).folder) == expected
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x"]


REAL = os.environ.get("UTGREC_AMAZON2023")


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="UTGREC_AMAZON2023 names no folder with the real files")
def test_real_files_give_the_counts_of_the_paper(tmp_path):
    found = 0
    from utgrec.data.amazon2023.presets import PRESETS

    for preset in PRESETS:
        if preset.counts is None or not list(Path(str(REAL)).rglob(f"{preset.category}.jsonl*")):
            continue
        manifest = prepare_amazon(
            preset.category, Path(str(REAL)), tmp_path / preset.short, AmazonOptions()
        )
        assert manifest.facts["paper"]["match"], json.dumps(manifest.facts["paper"])
        found += 1
    assert found
