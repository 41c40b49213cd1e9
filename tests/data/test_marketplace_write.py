"""Written marketplaces: the same seed gives the same bytes, and the oracle fits its domain."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from utgrec import storage
from utgrec.catalog import Domain, write_domain
from utgrec.data.marketplace import MarketplaceConfig, Oracle, write_marketplace
from utgrec.data.marketplace.behaviour import NOTHING
from utgrec.data.marketplace.oracle import write_oracle
from utgrec.data.marketplace.simulation import simulate
from utgrec.data.marketplace.world import PICTURE_ONLY, STYLES
from utgrec.data.split import leave_one_out
from utgrec.errors import (
    CorruptFile,
    InputError,
    MissingStage,
    SettingsMismatch,
    StorageError,
)

SMALL = MarketplaceConfig(
    items_per_shop=60, users_per_shop=150, max_history=12, picture_size=28, cold_share=0.1
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("market")
    write_marketplace(out, SMALL)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path → bytes of every file; manifests without what was measured."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name in ("manifest.json", "domain.json"):
                values = json.loads(data)
                values.pop("measured")
                data = json.dumps(values).encode()
            found[path.relative_to(folder).as_posix()] = data
    return found


def test_the_same_seed_gives_the_same_bytes(market: Path, tmp_path: Path) -> None:
    folders = write_marketplace(tmp_path / "again", SMALL)
    assert [folder.name for folder in folders] == ["kitchen", "clothing"]
    first, second = contents(market), contents(tmp_path / "again")
    assert first == second
    assert len(first) > 200


def test_another_seed_gives_other_items_pictures_and_histories(
    market: Path, tmp_path: Path
) -> None:
    other = dataclasses.replace(SMALL, seed=8, shops=("kitchen",))
    write_marketplace(tmp_path, other)
    first, second = contents(market / "sources/kitchen"), contents(tmp_path / "sources/kitchen")
    for name in ("items.jsonl", "interactions.csv"):
        assert first[name] != second[name]
    both = [name for name in first if name.endswith(".png") and name in second]
    assert len(both) > 30 and all(first[name] != second[name] for name in both)


def test_a_shop_does_not_depend_on_the_others(market: Path, tmp_path: Path) -> None:
    write_marketplace(tmp_path, dataclasses.replace(SMALL, shops=("clothing",)))
    assert contents(tmp_path / "domains") == {
        name: data
        for name, data in contents(market / "domains").items()
        if name.startswith("clothing/")
    }


def test_preparation_loses_nothing(market: Path) -> None:
    for shop in SMALL.shops:
        truth, domain = simulate(SMALL, shop), Domain.open(market / "domains" / shop)
        assert domain.name == shop
        assert sorted(domain.catalog.item_ids) == truth.shelf.item_ids
        assert sorted(domain.user_ids) == truth.user_ids
        for number, user_id in enumerate(truth.user_ids):
            user = domain.user_ids.index(user_id)
            history = [domain.catalog.item_ids[item] for item in domain.history(user)]
            events = truth.histories[number][truth.histories[number] != NOTHING]
            assert history == [truth.shelf.item_ids[item] for item in events]
        start = domain.offsets[domain.user_ids.index(truth.user_ids[0])]
        assert domain.timestamps[start] == truth.times[0, 0]


def test_items_are_as_a_shop_would_have_them(market: Path) -> None:
    domain = Domain.open(market / "domains/clothing")
    without = [item for item in domain.catalog if item.image is None]
    assert len(without) == 9  # 15 % of 60
    for item in domain.catalog:
        assert item.title and item.text.startswith(item.title.split(" with ")[0][:10])
        assert item.attributes["category"][0] == "clothing"
        assert item.attributes["price"] > 0 and item.attributes["brand"]
        assert not {*STYLES, "type"} & set(item.attributes)
        for kind in PICTURE_ONLY:
            assert not set(STYLES[kind]) & set(item.text.lower().replace(".", " ").split())
        if item.image is not None:
            with Image.open(item.image) as picture:
                assert picture.size == (28, 28) and picture.mode == "RGB"


def test_cold_items_are_in_the_catalogue_but_not_in_training(market: Path) -> None:
    folder = market / "domains/kitchen"
    domain = Domain.open(folder)
    split = leave_one_out(domain)
    cold = np.flatnonzero(Oracle.open(folder).truth.column("cold").to_numpy())
    assert len(cold) == 6
    assert not np.isin(split.train, cold).any() and not np.isin(split.valid, cold).any()
    assert np.isin(split.test, cold).any()


def test_the_oracle_scores_the_items_of_its_domain(market: Path) -> None:
    folder = market / "domains/kitchen"
    domain, oracle = Domain.open(folder), Oracle.open(folder)
    split = leave_one_out(domain)
    users = split.evaluated
    scores = oracle.scores(users, [split.test_history(user) for user in users])
    assert scores.shape == (150, 60) and scores.dtype == np.float32
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, atol=1e-5)
    for user in users:
        assert (scores[user, split.test_history(user)] == -np.inf).all()
        assert scores[user, split.test[user]] > -np.inf
    popularity = np.bincount(split.train, minlength=60).astype(np.float64)
    by_popularity = np.where(scores == -np.inf, -np.inf, popularity)

    def recall(table: np.ndarray) -> float:
        rank = (table > table[users, split.test[users]][:, None]).sum(axis=1)
        return float((rank < 5).mean())

    assert recall(scores) > 2 * recall(by_popularity) > 0


def test_the_oracle_finds_items_and_users_by_id(tmp_path: Path) -> None:
    truth = simulate(SMALL, "kitchen")
    rng = np.random.default_rng(1)
    kept = rng.permutation(60)[:50]  # a domain in another order, from which items are missing
    users = rng.permutation(150)[:20]
    place = {int(item): index for index, item in enumerate(kept)}
    rows = [
        (index, place[int(item)], event)
        for index, user in enumerate(users)
        for event, item in enumerate(truth.histories[user])
        if int(item) in place
    ]
    columns = np.array(rows).T
    tables = pa.table(
        {
            "user": columns[0].astype(np.int32),
            "item": columns[1].astype(np.int32),
            "timestamp": columns[2].astype(np.int64),
        }
    )
    ids = [truth.shelf.item_ids[item] for item in kept]
    items = pa.table({"item_id": ids, "title": ids, "text": ids, "image": [None] * 50})
    tmp_path.joinpath("shop").mkdir()
    write_domain(
        tmp_path / "shop",
        name="shop",
        items=items.set_column(3, "image", pa.nulls(50, pa.string())),
        user_ids=[truth.user_ids[user] for user in users],
        interactions=tables,
        config={},
        inputs={},
        facts={},
    )
    write_oracle(tmp_path / "shop", truth, {})
    oracle = Oracle.open(tmp_path / "shop")
    assert oracle.truth.column("item_id").to_pylist() == ids
    histories = [[0, 7], [3], []]
    scores = oracle.scores(np.array([4, 0, 19]), [np.array(h, dtype=np.int32) for h in histories])
    for row, (user, history) in enumerate(zip((4, 0, 19), histories, strict=True)):
        direct = truth.behaviour.log_probabilities(users[[user]], kept[[history]])
        np.testing.assert_allclose(scores[row], direct[0, kept], rtol=1e-5)
    with pytest.raises(InputError, match="2 users and 1 histories"):
        oracle.scores(np.array([0, 1]), [np.array([0])])
    with pytest.raises(InputError, match=r"items must be indices .* 0 to 49, got -1"):
        oracle.scores(np.array([0]), [np.array([3, -1])])
    with pytest.raises(InputError, match=r"users must be indices .* 0 to 19, got 20"):
        oracle.scores(np.array([20]), [np.array([3])])
    assert oracle.scores(np.array([], dtype=np.int64), []).shape == (0, 50)


def test_one_user_or_many_are_scored_alike(market: Path) -> None:
    folder = market / "domains/clothing"
    domain, oracle = Domain.open(folder), Oracle.open(folder)
    users = np.arange(150)
    histories = [domain.history(user)[:-1] for user in users]
    together = oracle.scores(np.tile(users, 3), histories * 3)
    alone = np.concatenate([oracle.scores(users[[user]], [histories[user]]) for user in users])
    np.testing.assert_array_equal(together, np.tile(alone, (3, 1)))


def test_an_oracle_of_another_domain_is_refused(market: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kitchen"
    shutil.copytree(market / "domains/kitchen", folder)
    Oracle.open(folder)
    shutil.rmtree(folder / "oracle")
    with pytest.raises(MissingStage, match="no finished oracle"):
        Oracle.open(folder)
    shutil.copytree(market / "domains/clothing/oracle", folder / "oracle")
    with pytest.raises(SettingsMismatch, match="made for another domain"):
        Oracle.open(folder)


def test_a_changed_oracle_is_noticed(market: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kitchen"
    shutil.copytree(market / "domains/kitchen", folder)
    path = folder / "oracle/behaviour.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="behaviour"):
        Oracle.open(folder)


def test_running_again_changes_nothing_and_repairs_what_is_missing(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, shops=("toys",))
    (folder,) = write_marketplace(tmp_path, config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert write_marketplace(tmp_path, config) == [folder]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    whole = contents(tmp_path)
    shutil.rmtree(folder / "oracle")
    write_marketplace(tmp_path, config)
    assert contents(tmp_path) == whole


def test_other_settings_and_other_peoples_folders_are_not_replaced(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, shops=("toys",))
    (folder,) = write_marketplace(tmp_path, config)
    fingerprint = Domain.open(folder).fingerprint
    other = dataclasses.replace(config, seed=9)
    with pytest.raises(SettingsMismatch, match="seed differ"):
        write_marketplace(tmp_path, other)
    assert Domain.open(folder).fingerprint == fingerprint
    write_marketplace(tmp_path, other, overwrite=True)
    assert Domain.open(folder).fingerprint != fingerprint
    assert storage.read_manifest(folder / "oracle", "oracle").config["seed"] == 9
    Oracle.open(folder)

    own = tmp_path / "sources/garden/notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(StorageError, match="was not simulated"):
        write_marketplace(tmp_path, dataclasses.replace(SMALL, shops=("garden",)), overwrite=True)
    assert own.read_text() == "mine"
