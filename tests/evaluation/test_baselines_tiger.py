"""TIGER: text vectors, residual codes, collisions, and codes that the recommender can read."""

import dataclasses
import sys
import types

import numpy as np
import pytest
from family_settings import SMALL
from small_shop import ITEMS, fit_input, ring_histories, write_shop

from utgrec.errors import BadConfig, InputError
from utgrec.evaluation.baselines import FAMILIES
from utgrec.evaluation.baselines.residual_codes import (
    number_collisions,
    residual_kmeans,
    rqvae_codes,
)
from utgrec.evaluation.baselines.text_vectors import topic_vectors
from utgrec.evaluation.baselines.tiger_codes import make_unique
from utgrec.progress import silent
from utgrec.storage import read_manifest
from utgrec.tokenizer.codes import read_codes
from utgrec.training.trainer import TrainerConfig

TEXTS = [
    "red apple, sweet",
    "Red apple: sour",
    "sweet sour apple (red)",
    "steel hammer heavy",
    "heavy steel hammer!",
    "a hammer of steel",
    "quite another thing",
    "",
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop") / "fruit", ring_histories(60))


# ------------------------------------------------------------------------------------- vectors


def test_texts_of_one_kind_are_near():
    vectors = topic_vectors(TEXTS, np.arange(6), 2, seed=0)
    near = vectors @ vectors.T
    assert near[:3, :3].min() > 0.7 and near[3:6, 3:6].min() > 0.7
    assert np.abs(near[:3, 3:6]).max() < 0.3
    np.testing.assert_allclose(np.linalg.norm(vectors[:6], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[6:], 0)  # no known word
    np.testing.assert_array_equal(vectors, topic_vectors(TEXTS, np.arange(6), 2, seed=0))


def test_texts_outside_training_change_nothing():
    changed = [*TEXTS[:6], "red red steel", "apple hammer"]
    one, other = (topic_vectors(texts, np.arange(6), 3, seed=0) for texts in (TEXTS, changed))
    np.testing.assert_array_equal(one[:6], other[:6])
    assert (np.linalg.norm(other[6:], axis=1) > 0.9).all()
    known = [*TEXTS[:5], "red red apple", *TEXTS[6:]]
    assert not np.allclose(one[:5], topic_vectors(known, np.arange(6), 3, seed=0)[:5])


def test_all_topics_rebuild_the_angles():
    """With every direction kept, products of vectors are those of the tf-idf rows themselves."""
    few = topic_vectors(TEXTS, np.arange(6), 100, seed=0)
    assert few.shape[1] <= 6
    # by hand: "red apple, sweet" and "Red apple: sour" differ in one word of equal weight
    idf = np.log(6 / np.array([3, 3, 2])) + 1  # red, apple, and sweet or sour
    expected = (idf[0] ** 2 + idf[1] ** 2) / (idf**2).sum()
    assert few[0] @ few[1] == pytest.approx(expected, rel=1e-4)


def test_texts_without_common_words_are_refused():
    with pytest.raises(InputError, match="texts of the 2 training items share no word"):
        topic_vectors(["one", "two"], np.arange(2), 4, seed=0)


def test_a_sentence_model_by_name(shop, tmp_path, monkeypatch):
    asked = []

    class SentenceTransformer:
        def __init__(self, name):
            asked.append(name)

        def encode(self, texts, show_progress_bar):
            return np.array([[len(text), text.count("e"), 1.0] for text in texts])

    library = types.SimpleNamespace(SentenceTransformer=SentenceTransformer)
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    settings = dataclasses.replace(SMALL["tiger"], sentence_model="some/model")
    given = fit_input(shop, tmp_path)
    with_model = read_codes(FAMILIES["tiger"].make_codes(given, settings)).codes
    without = read_codes(FAMILIES["tiger"].make_codes(given, SMALL["tiger"])).codes
    assert asked == ["some/model"] and not np.array_equal(with_model, without)


# --------------------------------------------------------------------------------------- codes


def test_residual_kmeans_finds_a_tree():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, 400)
    fine = rng.integers(0, 4, 400)
    places = np.stack([coarse * 100.0, np.zeros(400)], axis=1)
    places += np.stack([np.zeros(400), fine * 10.0], axis=1)
    vectors = (places + rng.normal(0, 0.01, places.shape)).astype(np.float32)
    codes = residual_kmeans(vectors, np.arange(400), size=4, levels=2, iterations=30, seed=0)
    for truth, found in ((coarse, codes[:, 0]), (coarse * 4 + fine, codes[:, 0] * 4 + codes[:, 1])):
        pairs = len(set(zip(truth, found, strict=True)))
        assert pairs == len(set(truth)) == len(set(found))


def test_residual_codes_learn_from_known_items_alone():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    other = vectors.copy()
    other[40:] = rng.normal(size=(20, 4))
    settings = {"size": 8, "levels": 3, "iterations": 10, "seed": 0}
    one, two = (residual_kmeans(v, np.arange(40), **settings) for v in (vectors, other))
    np.testing.assert_array_equal(one[:40], two[:40])
    assert (one[40:] != two[40:]).any()
    few = residual_kmeans(vectors, np.arange(3), **settings)  # fewer items than entries
    assert few.max() < 3


def test_the_autoencoder_tells_clusters_apart(tmp_path):
    pytest.importorskip(
        "vector_quantize_pytorch",
        reason="vector_quantize_pytorch is not installed (pip install 'utgrec[baselines]')",
    )
    rng = np.random.default_rng(2)
    kinds = rng.integers(0, 4, 200)
    vectors = (rng.normal(size=(4, 6))[kinds] + rng.normal(0, 0.02, (200, 6))).astype(np.float32)
    codes = rqvae_codes(
        vectors,
        np.arange(200),
        size=8,
        levels=2,
        width=4,
        batch_size=64,
        trainer=TrainerConfig(steps=40, learning_rate=3e-3, precision="fp32"),
        work=tmp_path,
        family="tiger-rqvae",
        progress=silent,
    )
    assert codes.shape == (200, 2) and codes.min() >= 0 and codes.max() < 8
    firsts = [set(codes[kinds == kind, 0]) for kind in range(4)]
    assert sum(map(len, firsts)) == len(set.union(*firsts))  # no first code is of two kinds


def test_collisions_are_numbered_in_item_order():
    short = np.array([[1, 2], [0, 5], [1, 2], [1, 3], [0, 5], [1, 2]])
    np.testing.assert_array_equal(number_collisions(short)[:, 2], [0, 0, 1, 0, 1, 2])
    np.testing.assert_array_equal(number_collisions(short)[:, :2], short)


def test_each_position_has_tokens_of_its_own():
    unique = make_unique(np.array([[1, 2, 3], [0, 3, 0], [1, 2, 3], [1, 2, 0]]), size=4)
    assert unique.sizes == (4, 10, 10, 10)  # 4 + 4 of the levels, 2 of the collisions
    np.testing.assert_array_equal(
        unique.assignment.codes, [[1, 2, 7, 8], [0, 3, 4, 8], [1, 2, 7, 9], [1, 2, 4, 8]]
    )
    assert unique.assignment.conflict.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(unique.assignment.nearest[2], [1, 2, 7, 8])
    with pytest.raises(BadConfig, match="do not fit into 16 bits"):
        make_unique(np.zeros((40_000, 2), np.int64), size=4)


def test_the_codes_stage_is_one_like_any_other(shop, tmp_path):
    given = fit_input(shop, tmp_path)
    folder = FAMILIES["tiger"].make_codes(given, SMALL["tiger"])
    coded = read_codes(folder)
    assert coded.codes.shape == (ITEMS, 4) and len(np.unique(coded.codes, axis=0)) == ITEMS
    assert coded.catalog.item_ids == shop.catalog.item_ids
    facts = read_manifest(folder, "codes").facts
    assert (coded.codes < facts["sizes"]).all()
    # Items of one tray and kind have one text, so equal codes but for the last.
    same = coded.codes[:, :3]
    np.testing.assert_array_equal(same[0], same[5])
    assert facts["conflict_rate"] == 1.0
    # Another recommender needs no other codes.
    other = dataclasses.replace(
        SMALL["tiger"],
        recommender=dataclasses.replace(SMALL["tiger"].recommender, batch_size=16),
    )
    assert FAMILIES["tiger"].make_codes(given, other) == folder
    assert FAMILIES["tiger"].make_codes(given._replace(seed=1), SMALL["tiger"]) != folder


def test_a_domain_without_a_folder_is_refused(shop, tmp_path):
    given = fit_input(shop, tmp_path)
    shop_in_memory = type(shop)(
        name=shop.name,
        catalog=shop.catalog,
        user_ids=shop.user_ids,
        offsets=shop.offsets,
        items=shop.items,
        timestamps=shop.timestamps,
    )
    with pytest.raises(InputError, match="'fruit' was not read from a folder"):
        FAMILIES["tiger"].fit(given._replace(domain=shop_in_memory), SMALL["tiger"])
    assert not list(tmp_path.iterdir())
