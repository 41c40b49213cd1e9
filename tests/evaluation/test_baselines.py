"""Popularity and ItemKNN: by hand, against slow references, and without a look at the future."""

import numpy as np
import pytest

from utgrec.data.split import Split
from utgrec.errors import BadConfig, InputError
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig, find_similarities
from utgrec.evaluation.popularity import Popularity, user_counts
from utgrec.evaluation.protocol import Query, evaluate, make_query
from utgrec.evaluation.topk import best, pack

ITEMS = 40

# Training parts: user 0: 0 1 · user 1: 0 1 2 · user 2: 3 · user 3: 0 0 0
FIVE_ITEMS = [[0, 1, 4, 2], [0, 1, 2, 3, 4], [3, 0, 1], [0, 0, 0, 4, 4]]


def ask(*histories: list[int]) -> Query:
    return Query(np.arange(len(histories)), [np.array(h, dtype=np.int32) for h in histories])


def test_best_breaks_ties_by_the_lower_index():
    scores = np.array([1.0, 3.0, 3.0, 0.0, 3.0])
    items = np.arange(5) * 10
    for k in range(1, 7):
        ranked = best(items, scores, k)
        np.testing.assert_array_equal(ranked.items, [10, 20, 40, 0, 30][:k])
        np.testing.assert_array_equal(ranked.scores, [3, 3, 3, 1, 0][:k])
    packed = pack([best(items[:0], scores[:0], 2), best(items, scores, 2)], 2)
    np.testing.assert_array_equal(packed.items, [[-1, -1], [10, 20]])
    np.testing.assert_array_equal(packed.scores, [[-np.inf, -np.inf], [3, 3]])


def test_popularity_by_hand(make_split):
    system = Popularity.fit(make_split(FIVE_ITEMS), 5)
    np.testing.assert_array_equal(system.counts, [3, 2, 1, 1, 0])  # users, not interactions
    answer = system.recommend(ask([], [0, 3, 3]), 4, exclude_seen=True)
    np.testing.assert_array_equal(answer.items, [[0, 1, 2, 3], [1, 2, 4, -1]])
    answer = system.recommend(ask([0, 3]), 2, exclude_seen=False)
    np.testing.assert_array_equal(answer.items, [[0, 1]])
    np.testing.assert_array_equal(answer.scores, [[3, 2]])


def test_the_validation_items_count_only_if_asked(make_split):
    split = make_split(FIVE_ITEMS)
    np.testing.assert_array_equal(user_counts(split, 5, with_validation=True), [4, 2, 1, 2, 2])


def test_itemknn_by_hand(make_split):
    # Two users over N = 4 items. User 0 took items 0 and 1: idf a = log(4 / 3).
    # User 1 took item 1 only: idf b = log(4 / 2). Item 0 = (a, 0), item 1 = (a, b).
    system_split = make_split([[0, 1], [1]])
    similarities = find_similarities(system_split, 4, neighbours=4)
    a, b = np.log(4 / 3), np.log(2)
    cosine = a / np.hypot(a, b)
    np.testing.assert_array_equal(similarities.items[0], [0, 1, -1, -1])
    np.testing.assert_array_equal(similarities.items[1], [1, 0, -1, -1])
    np.testing.assert_array_equal(similarities.items[2:], -1)
    np.testing.assert_allclose(similarities.values[:2, :2], [[1, cosine]] * 2)

    system = ItemKNN.fit(system_split, 4, ItemKNNConfig(decay=0.5))
    kept = system.recommend(ask([1, 0]), 3, exclude_seen=False)
    np.testing.assert_array_equal(kept.items, [[0, 1, -1]])  # the later item counts twice as much
    np.testing.assert_allclose(kept.scores[0, :2], [1 + cosine / 2, cosine + 1 / 2], rtol=1e-6)
    removed = system.recommend(ask([1], [1, 0]), 3, exclude_seen=True)
    np.testing.assert_array_equal(removed.items, [[0, -1, -1], [-1, -1, -1]])


def slow_itemknn(histories, query, item_count, config, k, exclude_seen):
    """Dense loops over the same definition."""
    counts = np.zeros((len(histories), item_count))
    for user, history in enumerate(histories):
        for item in history:
            counts[user, item] += 1
    idf = np.maximum(np.log(item_count / (1 + (counts > 0).sum(axis=1))), 0)
    vectors = (np.sqrt(counts) * idf[:, None]).T  # (N, U)
    norms = np.linalg.norm(vectors, axis=1)
    similar = np.zeros((item_count, item_count))
    for i in range(item_count):
        for j in range(item_count):
            if norms[i] and norms[j] and (config.self_similar or i != j):
                common = ((vectors[i] > 0) & (vectors[j] > 0)).sum()
                cosine = vectors[i] @ vectors[j] / (norms[i] * norms[j])
                similar[i, j] = cosine * (common / (common + config.shrink) if common else 0)
        order = np.argsort(-similar[i].astype(np.float32), kind="stable")
        similar[i, order[config.neighbours :]] = 0
    answer = []
    for history in query.histories:
        scores = np.zeros(item_count)
        recent = list(history) if config.last is None else list(history)[-config.last :]
        for age, item in enumerate(reversed(recent)):
            scores += config.decay**age * similar[item]
        if exclude_seen:
            scores[history] = 0
        order = np.argsort(-scores.astype(np.float32), kind="stable")
        answer.append([item for item in order if scores[item] > 0][:k])
    return answer


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        ItemKNNConfig(),
        ItemKNNConfig(neighbours=3),
        ItemKNNConfig(neighbours=7, shrink=4.0),
        ItemKNNConfig(decay=0.6, last=4),
        ItemKNNConfig(self_similar=False, decay=0.9),
    ],
)
def test_itemknn_equals_a_slow_dense_reference(
    make_split, random_histories, config, exclude_seen, monkeypatch
):
    monkeypatch.setattr("utgrec.data.similarities._TOGETHER", 50)  # several blocks
    split = make_split(random_histories)
    training = [split.train_history(user).tolist() for user in range(len(split.valid))]
    query = make_query(split, split.evaluated, "test")
    answer = ItemKNN.fit(split, ITEMS, config).recommend(query, 10, exclude_seen=exclude_seen)
    expected = slow_itemknn(training, query, ITEMS, config, 10, exclude_seen)
    found = [[item for item in row if item >= 0] for row in answer.items.tolist()]
    assert found == expected
    assert max(map(len, found)) == 10


def test_itemknn_equals_implicit(make_split, random_histories, monkeypatch):
    """The same neighbours and scores as the public library, where that is installed."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # implicit warns otherwise
    models = pytest.importorskip("implicit.nearest_neighbours", exc_type=ImportError)
    from scipy import sparse

    split = make_split(random_histories)
    users = np.repeat(np.arange(len(split.valid)), np.diff(split.offsets))
    counts = sparse.csr_matrix(
        (np.ones(len(users)), (users, split.train)), shape=(len(split.valid), ITEMS)
    )
    counts = counts[:, np.unique(split.train)]  # implicit divides by 0 for items without users
    renumber = np.full(ITEMS, -1)
    renumber[np.unique(split.train)] = np.arange(counts.shape[1])
    dense_split = split._replace(train=renumber[split.train].astype(np.int32))
    theirs = models.TFIDFRecommender(K=1000, num_threads=1)
    with pytest.warns(Warning, match="Method expects CSR input"):
        theirs.fit(counts, show_progress=False)
    ours = find_similarities(dense_split, counts.shape[1], neighbours=1000)
    rebuilt = np.zeros((counts.shape[1], counts.shape[1]))
    for item, (row, values) in enumerate(zip(ours.items, ours.values, strict=True)):
        rebuilt[item, row[row >= 0]] = values[row >= 0]
    np.testing.assert_allclose(rebuilt, theirs.similarity.toarray(), atol=1e-6)


def test_fewer_neighbours_are_the_beginning_of_more(make_split, random_histories):
    split = make_split(random_histories)
    many = find_similarities(split, ITEMS, neighbours=20)
    few = find_similarities(split, ITEMS, neighbours=5)
    np.testing.assert_array_equal(many.cut(5).items, few.items)
    np.testing.assert_array_equal(many.cut(5).values, few.values)


def all_recommendations(split: Split, part: str) -> list[np.ndarray]:
    query = make_query(split, split.evaluated, part)
    config = ItemKNNConfig(decay=0.8, shrink=2.0)
    return [
        system.recommend(query, 10, exclude_seen=True).items
        for system in (Popularity.fit(split, ITEMS), ItemKNN.fit(split, ITEMS, config))
    ]


def test_held_out_items_leak_nothing(make_split, random_histories):
    split = make_split(random_histories)
    rng = np.random.default_rng(0)
    changed_test = split._replace(
        test=np.where(split.test < 0, -1, rng.integers(0, ITEMS, len(split.test)))
    )
    for part in ("valid", "test"):
        for before, after in zip(
            all_recommendations(split, part), all_recommendations(changed_test, part), strict=True
        ):
            np.testing.assert_array_equal(before, after)
    # Another validation item of one user changes that user's test recommendations at most.
    place = 3
    valid = split.valid.copy()
    user = split.evaluated[place]
    valid[user] = (valid[user] + 1) % ITEMS
    changed_valid = split._replace(valid=valid)
    for before, after in zip(
        all_recommendations(split, "valid"),
        all_recommendations(changed_valid, "valid"),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)
    pairs = zip(
        all_recommendations(split, "test"), all_recommendations(changed_valid, "test"), strict=True
    )
    for before, after in pairs:
        others = np.arange(len(before)) != place
        np.testing.assert_array_equal(before[others], after[others])
        assert (before[place] != after[place]).any()


@pytest.mark.parametrize("system", [Popularity, ItemKNN])
def test_a_system_that_knows_the_validation_items_cannot_guess_them(
    make_split, random_histories, system
):
    split = make_split(random_histories)
    fitted = system.fit(split, ITEMS, with_validation=True)
    assert fitted.name != system.fit(split, ITEMS).name  # both fit in one comparison
    with pytest.raises(InputError, match="was fitted with the validation items"):
        evaluate(fitted, split, part="valid", item_count=ITEMS, exclude_seen=True)
    evaluate(fitted, split, part="test", item_count=ITEMS, exclude_seen=True)


@pytest.mark.parametrize(
    "settings", [{"neighbours": 0}, {"shrink": -1.0}, {"last": 0}, {"decay": 0.0}, {"decay": 1.1}]
)
def test_settings_outside_their_range_are_refused(settings):
    with pytest.raises(BadConfig, match=f"{next(iter(settings))} must be"):
        ItemKNNConfig(**settings)
