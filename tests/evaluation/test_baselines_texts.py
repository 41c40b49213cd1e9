"""ItemKNN + text: by hand, and what it is at either end of its weight."""

import numpy as np
from small_shop import fit_input, noisy_histories, write_shop

from utgrec.evaluation.baselines import find_family
from utgrec.evaluation.baselines.texts import TextKNNConfig
from utgrec.evaluation.itemknn import ItemKNNConfig
from utgrec.evaluation.protocol import make_query


def recommend(given, family, settings):
    query = make_query(given.split, given.split.evaluated, "valid")
    return find_family(family).fit(given, settings).recommend(query, 10, exclude_seen=True)


def test_without_words_it_is_itemknn(tmp_path):
    given = fit_input(write_shop(tmp_path / "shop", noisy_histories()), tmp_path / "work")
    mixed = recommend(given, "itemknn-text", TextKNNConfig(text=0.0, shrink=2.0, decay=0.5))
    plain = recommend(given, "itemknn", ItemKNNConfig(shrink=2.0, decay=0.5))
    np.testing.assert_array_equal(mixed.items, plain.items)


def test_words_alone_do_not_hang_on_who_took_what(tmp_path):
    histories = noisy_histories()
    given = [
        fit_input(write_shop(tmp_path / name, shop), tmp_path / f"work {name}")
        for name, shop in (("one", histories), ("other", histories[::-1]))
    ]
    settings = TextKNNConfig(text=1.0)
    one, other = (recommend(each, "itemknn-text", settings) for each in given)
    np.testing.assert_array_equal(one.items, other.items[::-1])
    assert (one.items >= 0).any()
    both = recommend(given[0], "itemknn-text", TextKNNConfig(text=0.5))
    assert not np.array_equal(both.items, one.items)
