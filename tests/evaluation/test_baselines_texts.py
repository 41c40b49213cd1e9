"""ItemKNN + text: by hand, and what it is at either end of its weight."""

import numpy as np
from small_shop import fit_input, noisy_histories, write_shop

from utgrec.data.similarities import best
from utgrec.evaluation.baselines import find_family
from utgrec.evaluation.baselines.texts import TextKNNConfig
from utgrec.evaluation.protocol import make_query
from utgrec.recommender.companions import CatalogCompanions, CompanionsConfig, count_companions
from utgrec.recommender.histories import CodedDomain, HistoryEncoder
from utgrec.recommender.vocabulary import Vocabulary


def recommend(given, family, settings):
    query = make_query(given.split, given.split.evaluated, "valid")
    return find_family(family).fit(given, settings).recommend(query, 10, exclude_seen=True)


def test_without_words_it_is_the_recommenders_companions(tmp_path):
    given = fit_input(write_shop(tmp_path / "shop", noisy_histories()), tmp_path / "work")
    items, settings = given.item_count, TextKNNConfig(text=0.0, shrink=2.0, decay=0.5)
    assert len(np.unique(given.split.train)) == items, "a companion is counted among known items"
    mixed = recommend(given, "itemknn-text", settings)
    vocabulary = Vocabulary(root_size=16, leaf_size=16, code_length=3, domains=("a",))
    codes = np.stack(np.unravel_index(np.arange(items), (16, 16, 16)), axis=1).astype(np.int16)
    memory = count_companions(
        [CodedDomain("a", codes, given.split)], vocabulary, CompanionsConfig(shrink=2.0)
    )
    companions = CatalogCompanions(memory, vocabulary, "a", codes)
    query = make_query(given.split, given.split.evaluated, "valid")
    tokens, mask = HistoryEncoder("a", codes, vocabulary, max_items=99).encode(query.histories)
    for found, history, weights in zip(
        mixed.items, query.histories, companions.weigh(tokens, mask, 0.5), strict=True
    ):
        weights[history] = 0
        expected = best(np.arange(items), weights.numpy(), 10).items
        assert found.tolist() == [item if weights[item] > 0 else -1 for item in expected]


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
