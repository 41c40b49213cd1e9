"""Every family of baselines keeps the same contract, and tuning treats all of them alike."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from family_settings import NEEDS, SMALL
from small_shop import ITEMS, fit_input, noisy_histories, write_shop

from utgrec.config import from_dict, to_dict
from utgrec.data.split import leave_one_out
from utgrec.errors import BadConfig, InputError, MissingDependency
from utgrec.evaluation.baselines import FAMILIES, find_family, tune
from utgrec.evaluation.baselines.counting import ItemKNNFamily, latest
from utgrec.evaluation.baselines.family import grid_trials
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig
from utgrec.evaluation.protocol import Query, evaluate, make_query


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop") / "fruit", noisy_histories())


def need(name):
    """Skip where the family's optional package is absent."""
    if name in NEEDS:
        pytest.importorskip(
            NEEDS[name], reason=f"{NEEDS[name]} is not installed (pip install 'utgrec[baselines]')"
        )


def recommend(system, query, exclude_seen=True):
    return system.recommend(query, 10, exclude_seen=exclude_seen).items


def test_every_family_is_tested():
    assert set(SMALL) == set(FAMILIES)
    assert [family.name for family in FAMILIES.values()] == list(FAMILIES)
    assert len({family.title for family in FAMILIES.values()}) == len(FAMILIES)


def test_an_unknown_family_is_named():
    assert find_family("sasrec") is FAMILIES["sasrec"]
    with pytest.raises(BadConfig, match="no baseline 'sasrek'; there are popularity, itemknn"):
        find_family("sasrek")


@pytest.mark.parametrize("name", FAMILIES)
def test_trials_are_the_default_and_then_others(name):
    family = FAMILIES[name]
    many = family.trials(8)
    assert many[0] == type(many[0])() or name == "sasrec-sampled"
    assert len(many) == (7 if name == "popularity" else 8)
    assert len({json.dumps(to_dict(settings), sort_keys=True) for settings in many}) == len(many)
    assert list(family.trials(3)) == list(many[:3])
    for settings in many:
        assert from_dict(type(settings), json.loads(json.dumps(to_dict(settings)))) == settings
    with pytest.raises(BadConfig, match="at least 1 trial, got 0"):
        family.trials(0)


def test_a_small_budget_reaches_every_setting():
    trials = grid_trials(ItemKNNConfig(), {"neighbours": (50, 100), "decay": (1.0, 0.5)}, 99)
    assert trials[0] == ItemKNNConfig()
    pairs = {(settings.neighbours, settings.decay) for settings in trials}
    assert pairs == {(50, 1.0), (100, 1.0), (50, 0.5), (100, 0.5)} and len(trials) == 4
    first = ItemKNNFamily().trials(12)
    for field in ("neighbours", "shrink", "decay"):
        assert len({getattr(settings, field) for settings in first}) >= 3, field
    assert {s.self_similar for s in ItemKNNFamily().trials(20, exclude_seen=False)} == {True, False}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_input_gives_the_same_system(name, shop, tmp_path):
    need(name)
    family, given = FAMILIES[name], fit_input(shop, tmp_path / "a")
    query = make_query(given.split, given.split.evaluated, "test")
    system = family.fit(given, SMALL[name])
    assert system.name == family.title
    first = recommend(system, query)
    assert (first >= 0).any(axis=1).all()
    np.testing.assert_array_equal(first, recommend(family.fit(given, SMALL[name]), query))
    other = given._replace(work=tmp_path / "b")
    np.testing.assert_array_equal(first, recommend(family.fit(other, SMALL[name]), query))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_protocol_accepts_the_system(name, shop, tmp_path):
    need(name)
    given = fit_input(shop, tmp_path)
    system = FAMILIES[name].fit(given, SMALL[name])
    for exclude_seen in (True, False):
        for part in ("valid", "test"):
            result = evaluate(
                system, given.split, part=part, item_count=ITEMS, exclude_seen=exclude_seen
            )
            assert 0 < result.mean("recall@20") <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_one_user_is_answered_as_in_a_batch(name, shop, tmp_path):
    need(name)
    given = fit_input(shop, tmp_path)
    system = FAMILIES[name].fit(given, SMALL[name])
    query = make_query(given.split, given.split.evaluated[:7], "test")
    together = system.recommend(query, 5, exclude_seen=True)
    for row, (user, history) in enumerate(zip(*query, strict=True)):
        alone = system.recommend(Query(np.array([user]), [history]), 5, exclude_seen=True)
        np.testing.assert_array_equal(alone.items[0], together.items[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_named_with_its_extra(name, shop, tmp_path, monkeypatch):
    for module in (NEEDS[name], "implicit.nearest_neighbours", "implicit.cpu.als"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"{NEEDS[name]}.*utgrec\[baselines\]"):
        FAMILIES[name].fit(fit_input(shop, tmp_path), SMALL[name])


def test_kept_similarities_change_nothing(shop, tmp_path):
    given = fit_input(shop, tmp_path)
    query = make_query(given.split, given.split.evaluated, "test")
    for settings in ItemKNNFamily().trials(6):
        direct = ItemKNN.fit(given.split, ITEMS, settings)
        for _ in range(2):
            kept = ItemKNNFamily().fit(given, settings)
            np.testing.assert_array_equal(recommend(kept, query), recommend(direct, query))
    assert 1 <= len(list(tmp_path.iterdir())) <= 3  # one per shrink, not one per trial


def test_latest_by_hand(make_split):
    split = latest(make_split([[0, 1, 2, 8, 9], [3, 8, 9], [4, 5]]), 2)
    assert [split.train_history(user).tolist() for user in range(3)] == [[1, 2], [3], [4, 5]]
    assert split.valid.tolist() == [8, 8, -1]


# -------------------------------------------------------------------------------------- tuning


class Counting:
    """ItemKNN that counts its fits, and breaks at the `breaks_at`-th."""

    name, title = "itemknn", "ItemKNN"

    def __init__(self, breaks_at=0):
        self.fits, self.breaks_at = 0, breaks_at

    def trials(self, budget, *, exclude_seen=True):
        return ItemKNNFamily().trials(budget, exclude_seen=exclude_seen)

    def fit(self, given, settings, progress=None):
        self.fits += 1
        if self.fits == self.breaks_at:
            raise KeyboardInterrupt
        return ItemKNN.fit(given.split, given.item_count, settings)


def test_tuning_takes_the_best_of_its_trials(shop, tmp_path):
    given = fit_input(shop, tmp_path)
    tuning = tune(ItemKNNFamily(), given, 10)
    assert [trial.settings for trial in tuning.trials] == list(ItemKNNFamily().trials(10))
    assert tuning.best.ndcg == max(trial.ndcg for trial in tuning.trials)
    assert tuning.best.ndcg > min(trial.ndcg for trial in tuning.trials)
    assert tuning.users == len(given.split.evaluated)
    for trial in tuning.trials[::4]:
        again = evaluate(
            ItemKNN.fit(given.split, ITEMS, trial.settings),
            given.split,
            part="valid",
            item_count=ITEMS,
            exclude_seen=True,
        )
        assert again.mean("ndcg@10") == trial.ndcg
    record = tuning.to_json()
    assert record["best"]["settings"]["decay"] == tuning.best.settings.decay
    assert len(record["trials"]) == 10 and all("seconds" in trial for trial in record["trials"])
    assert "seconds" not in json.dumps(tuning.to_json(seconds=False))


def test_tuning_does_not_see_the_test_items(shop, tmp_path):
    given = fit_input(shop, tmp_path / "a")
    hidden = given.split._replace(test=np.where(given.split.test < 0, -1, 0).astype(np.int32))
    other = given._replace(split=hidden, work=tmp_path / "b")
    found = tune(ItemKNNFamily(), given, 5).to_json(seconds=False)
    assert found == tune(ItemKNNFamily(), other, 5).to_json(seconds=False)
    # and it does see the validation items
    shifted = given.split._replace(valid=(given.split.valid + 1) % ITEMS)
    third = given._replace(split=shifted, work=given.work)
    assert found != tune(ItemKNNFamily(), third, 5).to_json(seconds=False)


def test_an_interrupted_search_goes_on(shop, tmp_path):
    whole = tune(Counting(), fit_input(shop, tmp_path / "a"), 6)
    given, broken = fit_input(shop, tmp_path / "b"), Counting(breaks_at=4)
    with pytest.raises(KeyboardInterrupt):
        tune(broken, given, 6)
    second = Counting()
    assert tune(second, given, 6).to_json(seconds=False) == whole.to_json(seconds=False)
    assert second.fits == 3
    third = Counting()  # another seed is another search
    tune(third, given._replace(seed=1), 2)
    assert third.fits == 2


def test_a_sample_of_users_is_drawn_once(shop, tmp_path):
    given = fit_input(shop, tmp_path)
    tuning = tune(ItemKNNFamily(), given, 2, max_users=20)
    assert tuning.users == 20
    again = tune(ItemKNNFamily(), given._replace(work=tmp_path / "b"), 2, max_users=20)
    assert again.to_json(seconds=False) == tuning.to_json(seconds=False)


def test_nobody_to_validate_on(tmp_path):
    given = fit_input(write_shop(tmp_path / "shop", [[0, 1], [2]]), tmp_path / "work")
    with pytest.raises(InputError, match="'fruit' has no user with a validation item"):
        tune(ItemKNNFamily(), given, 1)
    assert not (tmp_path / "work").exists()


def test_settings_outside_their_range_are_refused():
    for name, field, value in (
        ("popularity", "last", 0),
        ("bm25", "b", 1.5),
        ("als", "factors", 0),
        ("sasrec", "dropout", 1.0),
        ("sasrec", "batch_items", 5),
        ("sasrec", "width", 15),
        ("bert4rec", "mask_share", 0.0),
        ("tiger", "size", 1),
        ("tiger-rqvae", "steps", 0),
    ):
        with pytest.raises(BadConfig, match=f"{field}.*{value}"):
            dataclasses.replace(SMALL[name], **{field: value})


def test_the_split_of_another_domain_is_refused(shop, tmp_path):
    given = fit_input(shop, tmp_path)
    wrong = leave_one_out(shop)._replace(test=given.split.valid)
    with pytest.raises(InputError, match="the split is not that of domain 'fruit'"):
        FAMILIES["tiger"].fit(given._replace(split=wrong), SMALL["tiger"])
