"""Each regime and each part that is left out changes exactly what it names."""

import dataclasses

import pytest

from utgrec.config import from_dict, to_dict
from utgrec.errors import BadConfig
from utgrec.recipes import Recipe, find_recipe, reduced, tiny
from utgrec.regimes import (
    PARTS,
    REGIMES,
    AdaptConfig,
    recommender_settings,
    tokenizer_settings,
    without,
)

RECIPE = tiny()
FULL = REGIMES["full"]
LEAVES = RECIPE.tokenizer.quantizer.leaf_size


def settings(values, before=""):
    """A nested dictionary with dotted names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from settings(value, f"{before}{name}.")
        else:
            yield before + name, value


def changes(one, other):
    """Dotted name → new value of every setting in which two configurations differ."""
    was, now = dict(settings(to_dict(one))), dict(settings(to_dict(other)))
    assert was.keys() == now.keys()
    return {name: now[name] for name in was if was[name] != now[name]}


def adapt(regime, **more):
    return dataclasses.replace(RECIPE.adapt, regime=regime, **more)


class TestRegimes:
    @pytest.mark.parametrize(
        ("regime", "differs"),
        [
            ("full", {}),
            ("frozen-tokenizer", {"train_tokenizer": False}),
            ("basis-too", {"train_basis": True}),
            ("new-recommender", {"base_recommender": False}),
            (
                "from-scratch",
                {"base_tokenizer": False, "train_basis": True, "base_recommender": False},
            ),
            ("zero-shot", {"train_tokenizer": False, "train_recommender": False}),
        ],
    )
    def test_what_each_leaves_out_of_the_full_one(self, regime, differs):
        assert changes(FULL, REGIMES[regime]) == differs

    def test_the_seed_is_the_recipes(self):
        assert (RECIPE.adapt.seed, tiny(3).adapt.seed) == (0, 3)
        config = tokenizer_settings(tiny(3).tokenizer, tiny(3).adapt)
        assert config.trainer.seed == 3

    def test_all_are_listed_above(self):
        assert len(REGIMES) == 6
        assert len({tuple(to_dict(regime).values()) for regime in REGIMES.values()}) == 6

    def test_the_full_one_changes_how_the_tokenizer_is_trained_and_nothing_that_it_is(self):
        config = adapt("full", tokenizer_steps=77, tokenizer_learning_rate=1e-4, seed=5)
        assert changes(RECIPE.tokenizer, tokenizer_settings(RECIPE.tokenizer, config)) == {
            "quantizer.warmup_steps": 0,
            "quantizer.start_from_states": False,
            "quantizer.revive_every": 0,
            "quantizer.freeze_basis": True,
            "trainer.steps": 77,
            "trainer.learning_rate": 1e-4,
            "trainer.seed": 5,
        }
        config = adapt("full", recommender_steps=78, recommender_learning_rate=2e-4, seed=5)
        assert changes(RECIPE.recommender, recommender_settings(RECIPE.recommender, config)) == {
            "trainer.steps": 78,
            "trainer.learning_rate": 2e-4,
            "trainer.seed": 5,
        }

    def test_each_other_one_differs_from_the_full_one_in_what_it_names(self):
        tokenizer, recommender = {}, {}
        for regime in REGIMES:
            tokenizer[regime] = tokenizer_settings(RECIPE.tokenizer, adapt(regime))
            slower = adapt(regime, recommender_learning_rate=1e-4)
            recommender[regime] = recommender_settings(RECIPE.recommender, slower)
        full = tokenizer["full"]
        fresh = {"trainer.learning_rate": RECIPE.recommender.trainer.learning_rate}
        assert changes(full, tokenizer["basis-too"]) == {"quantizer.freeze_basis": False}
        assert changes(full, tokenizer["new-recommender"]) == {}
        assert changes(recommender["full"], recommender["frozen-tokenizer"]) == {}
        assert changes(recommender["full"], recommender["basis-too"]) == {}
        assert changes(recommender["full"], recommender["new-recommender"]) == fresh
        assert changes(recommender["full"], recommender["from-scratch"]) == fresh

    def test_from_scratch_is_the_recipe_with_fewer_steps(self):
        """The warm-up keeps its share of them, so that codebooks are placed in time."""
        config = adapt("from-scratch", tokenizer_steps=RECIPE.tokenizer.trainer.steps // 4)
        quarter = tokenizer_settings(RECIPE.tokenizer, config)
        warmup = RECIPE.tokenizer.quantizer.warmup_steps
        assert changes(RECIPE.tokenizer, quarter) == {
            "trainer.steps": RECIPE.tokenizer.trainer.steps // 4,
            "quantizer.warmup_steps": round(warmup / 4),
        }
        one = tokenizer_settings(RECIPE.tokenizer, adapt("from-scratch", tokenizer_steps=1))
        assert one.quantizer.warmup_steps == 0

    @pytest.mark.parametrize("regime", ["full", "new-recommender"])
    def test_a_codebook_without_a_basis_cannot_have_it_frozen(self, regime):
        quantizer = dataclasses.replace(RECIPE.tokenizer.quantizer, kind="vq")
        plain = dataclasses.replace(RECIPE.tokenizer, quantizer=quantizer)
        with pytest.raises(BadConfig, match=r"of kind 'vq', which has none; .* 'basis-too'"):
            tokenizer_settings(plain, adapt(regime))
        assert not tokenizer_settings(plain, adapt("basis-too")).quantizer.freeze_basis

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"regime": "half"}, "no regime 'half'; there are full, frozen-tokenizer"),
            ({"tokenizer_steps": 0}, "must be at least 1, got 0 and"),
            ({"recommender_learning_rate": 0.0}, "learning rates must be above 0"),
        ],
    )
    def test_settings_that_cannot_be_are_refused(self, wrong, message):
        with pytest.raises(BadConfig, match=message):
            dataclasses.replace(AdaptConfig(), **wrong)


class TestWithout:
    @pytest.mark.parametrize(
        ("part", "differs"),
        [
            ("tree", {"quantizer.tree": False, "quantizer.root_size": LEAVES}),
            ("alignment", {"weights.alignment": 0.0}),
            ("co-occurrence", {"weights.partner": 0.0}),
        ],
    )
    def test_each_changes_what_it_names(self, part, differs):
        assert changes(RECIPE.tokenizer, without(RECIPE.tokenizer, [part])) == differs
        whole = reduced(RECIPE, [part])
        assert changes(RECIPE, whole) == {
            "name": f"tiny without {part}",
            **{f"tokenizer.{name}": value for name, value in differs.items()},
        }

    def test_several_at_once_in_any_order(self):
        both = without(RECIPE.tokenizer, ["alignment", "co-occurrence"])
        assert both == without(RECIPE.tokenizer, ["co-occurrence", "alignment"])
        assert both.weights.alignment == both.weights.partner == 0
        assert reduced(RECIPE, []) is RECIPE

    def test_what_is_left_out_of_a_run_is_left_out_of_its_adaptation(self):
        for part in PARTS:
            recipe = find_recipe("tiny", leave_out=[part])
            later = tokenizer_settings(recipe.tokenizer, recipe.adapt)
            first = tokenizer_settings(RECIPE.tokenizer, RECIPE.adapt)
            assert changes(first, later) == changes(RECIPE.tokenizer, recipe.tokenizer)

    def test_another_part_is_refused(self):
        with pytest.raises(BadConfig, match="no part 'text' to leave out; there are tree,"):
            find_recipe("tiny", leave_out=["text"])


def test_a_recipe_with_its_adaptation_comes_back():
    recipe = dataclasses.replace(RECIPE, adapt=adapt("zero-shot", recommender_steps=3))
    assert from_dict(Recipe, to_dict(recipe)) == recipe
    older = {name: value for name, value in to_dict(RECIPE).items() if name != "adapt"}
    assert from_dict(Recipe, older).adapt == AdaptConfig()
