"""No family of baselines learns from held-out items, and one that did would be found out."""

import dataclasses

import numpy as np
import pytest
from family_settings import NEEDS, SMALL, with_validation
from small_shop import fit_input, noisy_histories, replace_ends, write_shop

from utgrec.evaluation.baselines import FAMILIES
from utgrec.evaluation.protocol import make_query
from utgrec.recommender import train as recommender_training

HISTORIES = noisy_histories()


class Shops:
    """The same training part with three kinds of held-out items."""

    def __init__(self, folder):
        self.folder = folder
        self.base = write_shop(folder / "base", HISTORIES)
        self.other_test = write_shop(folder / "other test", replace_ends(HISTORIES, 1))
        self.other_both = write_shop(folder / "other both", replace_ends(HISTORIES, 2))


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    return Shops(tmp_path_factory.mktemp("shops"))


@pytest.fixture(params=FAMILIES)
def family(request):
    if request.param in NEEDS:
        pytest.importorskip(
            NEEDS[request.param],
            reason=f"{NEEDS[request.param]} is not installed (pip install 'utgrec[baselines]')",
        )
    return FAMILIES[request.param]


def recommendations(family, settings, domain, work):
    """What a family recommends after the training histories, which all shops share."""
    given = fit_input(domain, work)
    query = make_query(given.split, given.split.evaluated, "valid")
    system = family.fit(given, settings)
    return system.recommend(query, 10, exclude_seen=False)


def assert_equal_fits(family, settings, one, other, tmp_path):
    """The law: what is fitted on both domains recommends the same, with the same scores."""
    first = recommendations(family, settings, one, tmp_path / "one")
    second = recommendations(family, settings, other, tmp_path / "other")
    np.testing.assert_array_equal(first.items, second.items)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_the_shops_differ_where_they_should(shops):
    base, test, both = (
        fit_input(domain, shops.folder).split
        for domain in (shops.base, shops.other_test, shops.other_both)
    )
    for other in (test, both):
        np.testing.assert_array_equal(base.train, other.train)
        assert (base.test != other.test).all()
    np.testing.assert_array_equal(base.valid, test.valid)
    assert (base.valid != both.valid).all()


def test_held_out_items_change_nothing(family, shops, tmp_path):
    settings = SMALL[family.name]
    assert_equal_fits(family, settings, shops.base, shops.other_both, tmp_path)


def test_test_items_change_nothing_where_training_stops_early(family, shops, tmp_path):
    settings = with_validation(SMALL[family.name])
    assert_equal_fits(family, settings, shops.base, shops.other_test, tmp_path)


class Leaky:
    """A family that slips held-out items into the training part."""

    def __init__(self, family, part):
        self.family, self.part = family, part

    def fit(self, given, settings):
        split = given.split
        extra = getattr(split, self.part)
        histories = [
            [*split.train_history(user), extra[user]]
            if extra[user] >= 0
            else split.train_history(user)
            for user in range(len(extra))
        ]
        train = np.concatenate(histories).astype(np.int32)
        offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
        leaking = given._replace(split=split._replace(train=train, offsets=offsets))
        return self.family.fit(leaking, settings)


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_leak_is_caught(family, part, shops, tmp_path, monkeypatch):
    leaky = Leaky(family, part)
    if family.name.startswith("tiger"):
        # TIGER splits the domain itself, so the leak has to be planted where that is done.
        leaky = family
        own = recommender_training.split_domain

        def leave_nothing_out(domain):
            split = own(domain)
            return split._replace(train=domain.items, offsets=domain.offsets)

        monkeypatch.setattr(recommender_training, "split_domain", leave_nothing_out)
    other = shops.other_both if part == "valid" else shops.other_test
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        assert_equal_fits(leaky, SMALL[family.name], shops.base, other, tmp_path)


def test_stopping_early_looks_at_validation_items(shops, tmp_path):
    """Or the tests above would prove nothing about it."""
    settings = dataclasses.replace(
        SMALL["sasrec"], epochs=20, validation_users=60, patience=0, learning_rate=2e-2
    )
    with pytest.raises(AssertionError):
        assert_equal_fits(FAMILIES["sasrec"], settings, shops.base, shops.other_both, tmp_path)
