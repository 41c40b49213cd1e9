"""Items that are held out are in no training, and nothing else is lost."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utgrec.catalog import Catalog, Domain, write_domain
from utgrec.data.cold import choose_items, hold_out_items
from utgrec.data.split import leave_one_out
from utgrec.errors import BadConfig, EmptyDomain, SettingsMismatch, StorageError


def make_domain(histories: list[list[int]], item_count: int, images: list[str] | None = None):
    """A domain in memory."""
    items = [item for history in histories for item in history]
    table = pa.table(
        {
            "item_id": [f"i{index}" for index in range(item_count)],
            "title": [f"Item {index}" for index in range(item_count)],
            "text": [f"Item {index}." for index in range(item_count)],
            "image": pa.array(images or [None] * item_count, pa.string()),
        }
    )
    return Domain(
        name="shop",
        catalog=Catalog(table),
        user_ids=[f"u{user}" for user in range(len(histories))],
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        items=np.array(items, dtype=np.int32),
        timestamps=np.arange(len(items), dtype=np.int64) * 1000,
    )


def write(domain: Domain, folder: Path) -> Path:
    """The same in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    user = np.repeat(np.arange(domain.user_count), np.diff(domain.offsets)).astype(np.int32)
    write_domain(
        folder,
        name=domain.name,
        items=domain.catalog.table,
        user_ids=domain.user_ids,
        interactions=pa.table({"user": user, "item": domain.items, "timestamp": domain.timestamps}),
        config={},
        inputs={},
        facts={"source": "made up"},
    )
    return folder


def random_histories(seed: int, users: int = 200, items: int = 50) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, items, size=rng.integers(1, 12)).tolist() for _ in range(users)]


def leaks(domain: Domain, held: np.ndarray) -> int:
    """Interactions with held-out items that something could learn from."""
    split = leave_one_out(domain)
    return int(np.isin(split.train, held).sum() + np.isin(split.valid, held).sum())


@pytest.fixture
def shop(tmp_path):
    """200 users who take items at random, often one twice."""
    return write(make_domain(random_histories(0), 50), tmp_path / "shop")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_cold_items_are_in_no_training_and_no_validation(shop, tmp_path, share):
    made = hold_out_items(shop, share, 1, tmp_path / "cold")
    domain = Domain.open(tmp_path / "cold")
    held = choose_items(Domain.open(shop), share, 1).items
    assert len(held) == round(share * 50)
    assert leaks(domain, held) == 0
    split = leave_one_out(domain)
    targets = np.isin(split.test[split.evaluated], held)
    assert targets.sum() == made.facts["cold"]["users_with_cold_target"] > 0
    assert leaks(Domain.open(shop), held) > 0  # the test sees them where they are


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=3, max_size=25),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
)
def test_only_interactions_with_cold_items_go_and_every_one_that_could_be_learned(
    histories, share, seed
):
    domain = make_domain(histories, 10)
    try:
        held = choose_items(domain, share, seed)
    except (EmptyDomain, BadConfig):
        return
    kept = [
        domain.history(user)[held.keep[domain.offsets[user] : domain.offsets[user + 1]]].tolist()
        for user in range(len(histories))
    ]
    cold = set(held.items.tolist())
    for before, after in zip(histories, kept, strict=True):
        warm = [item for item in before if item not in cold]
        ends_cold = bool(before) and before[-1] in cold
        assert after == (warm + before[-1:] if ends_cold and len(warm) >= 2 else warm)
    assert leaks(make_domain(kept, 10), held.items) == 0
    assert held.cold_targets == sum(len(h) >= 3 and h[-1] in cold for h in kept)


def test_users_items_and_facts_stay(shop, tmp_path):
    hold_out_items(shop, 0.1, 0, tmp_path / "cold")
    before, after = Domain.open(shop), Domain.open(tmp_path / "cold")
    assert after.name == "shop-cold"
    assert after.user_ids == before.user_ids
    assert after.catalog.table.equals(before.catalog.table)
    facts = after.manifest.facts
    assert facts["source"] == "made up" and facts["cold"]["of"] == "shop"
    lost = before.interaction_count - after.interaction_count
    assert facts["cold"]["interactions_removed"] == lost
    assert set(after.timestamps.tolist()) < set(before.timestamps.tolist())


def test_the_seed_draws_the_items(shop):
    domain = Domain.open(shop)
    first, again, other = (choose_items(domain, 0.2, seed).items for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_items_that_nobody_took_are_not_drawn():
    domain = make_domain([[0, 1, 2]] * 30, 100)
    assert set(choose_items(domain, 0.34, 2).items) <= {0, 1, 2}


def test_a_finished_folder_is_kept_and_another_is_refused(shop, tmp_path):
    out = tmp_path / "cold"
    made = hold_out_items(shop, 0.1, 0, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert hold_out_items(shop, 0.1, 0, out) == made
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(SettingsMismatch, match="was derived otherwise"):
        hold_out_items(shop, 0.1, 1, out)
    with pytest.raises(StorageError, match="is the domain itself"):
        hold_out_items(shop, 0.1, 0, shop)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(StorageError, match="no domain folder"):
        hold_out_items(shop, 0.1, 0, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("share", [0, 1, -0.1, 0.001, float("nan"), "half"])
def test_shares_that_hold_out_nothing_or_everything_are_refused(shop, share):
    with pytest.raises(BadConfig, match="share"):
        choose_items(Domain.open(shop), share, 0)


def test_without_a_cold_target_there_is_nothing_to_measure():
    with pytest.raises(EmptyDomain, match="none of the 20 users"):
        choose_items(make_domain([[0, 1, 2, 3]] * 19 + [[4, 0, 1, 3]], 5), 0.2, 0)


@pytest.mark.parametrize("links", [True, False])
def test_pictures_come_along_as_links_or_copies(tmp_path, monkeypatch, links):
    folder = tmp_path / "shop"
    (folder / "images" / "a").mkdir(parents=True)
    (folder / "images" / "a" / "x.png").write_bytes(b"picture")
    images = ["images/a/x.png"] * 50
    write(make_domain(random_histories(3), 50, images), folder)
    if not links:

        def refuse(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    hold_out_items(folder, 0.2, 0, tmp_path / "cold")
    domain = Domain.open(tmp_path / "cold")
    picture = domain.catalog.images[0]
    assert picture == tmp_path / "cold" / "images" / "a" / "x.png"
    assert picture.read_bytes() == b"picture"
    assert (picture.stat().st_nlink == 2) == links
    assert dataclasses.asdict(domain.manifest)["facts"]["counts"]["items_with_image"] == 50
