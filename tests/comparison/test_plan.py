"""A plan is checked before anything is done, and says what is wrong and what to do."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
from small_plans import make_plan

from utgrec.comparison import ComparisonPlan, DomainPlan, SystemPlan, read_plan
from utgrec.comparison.overrides import override
from utgrec.comparison.trained import recipe_of
from utgrec.config import from_dict, to_dict
from utgrec.errors import BadConfig, InputError
from utgrec.recipes import demo, find_recipe, tiny

PLAN = """
title = "Two shops"
reference = "knn"
seeds = [0, 1]

[[domains]]
folder = "shops/a"
cold_share = 0.1

[[domains]]
folder = "/shops/b"

[[systems]]
name = "knn"
family = "itemknn"

[[systems]]
name = "ours"
recipe = "demo"
overrides = { "recommender.trainer.steps" = 500, "decoding.beam" = 20 }

[[systems]]
name = "ours, before"
runs = ["runs/one", "runs/two"]
"""


def test_a_file_is_read_and_folders_are_relative_to_it(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN.replace("ours, before", "ours before"))
    plan = read_plan(tmp_path / "plan.toml")
    assert [domain.folder for domain in plan.domains] == [str(tmp_path / "shops/a"), "/shops/b"]
    assert plan.domains[0].cold_share == 0.1 and plan.seeds == (0, 1)
    assert plan.systems[1].overrides == {"recommender.trainer.steps": 500, "decoding.beam": 20}
    assert plan.systems[2].runs == (str(tmp_path / "runs/one"), str(tmp_path / "runs/two"))
    assert from_dict(ComparisonPlan, to_dict(plan)) == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds = [0, 1]", "seeds = [0, 1, 0]"), "seeds must all be different, got 0 more than"),
        (("seeds = [0, 1]", "seeds = []"), "at least one number"),
        (("seeds = [0, 1]", "seeds = [-1]"), "from 0 to 4294967295, got .-1"),
        (("seeds = [0, 1]", 'seeds = ["0"]'), "each entry a whole number, got"),
        (("seeds = [0, 1]", "seeds = 3"), "seeds must be a list"),
        (("seeds = [0, 1]", "seeds = [4294967296]"), "from 0 to 4294967295, got"),
        (("seeds = [0, 1]", "seeds = [0, 1]\ncold_seed = -1"), "cold_seed must be .* got -1"),
        (("seeds = [0, 1]", "seeds = [true]"), "each entry a whole number"),
        (("seeds = [0, 1]", "seed = 1"), "no setting seed; it has"),
        (("seeds = [0, 1]", 'exclude_seen = "yes"'), "exclude_seen must be true or false"),
        (("seeds = [0, 1]", "budget = 0"), "budget must be at least 1, got 0"),
        (("seeds = [0, 1]", "budgets = { itemknn = 0 }"), "budget of 'itemknn' must be at least 1"),
        (("seeds = [0, 1]", "budgets = { als = 9 }"), "family 'als', which no system"),
        (("seeds = [0, 1]", 'groups = ["colour"]'), "no group colour; there are popularity"),
        (("seeds = [0, 1]", 'groups = ["cold", "cold"]'), "groups must all be different"),
        (("cold_share = 0.1", "cold_share = 1"), "cold_share of shops/a must be in"),
        (("cold_share = 0.1", "share = 0.1"), "DomainPlan has no setting share"),
        (('folder = "/shops/b"', "folder = 7"), "folder must be a text, got 7"),
        (('reference = "knn"', 'reference = "KNN"'), "'KNN' is none of the systems knn"),
        (('reference = "knn"', ""), "ComparisonPlan needs reference"),
        (('name = "ours"', 'name = "knn"'), "systems must all be different, got knn"),
        (('name = "ours"', 'name = "KNN"'), "got knn more than once"),
        (('name = "ours"', 'name = "../ours"'), "got '../ours'"),
        (('name = "ours"', 'name = "ours "'), "got 'ours '"),
        (('recipe = "demo"', 'recipe = "demo"\nfamily = "als"'), "got family and recipe"),
        (('recipe = "demo"', ""), "exactly one of family, recipe and runs, got none"),
        (('family = "itemknn"', 'family = "itemknn"\ntogether = true'), "has together, which only"),
        (('recipe = "demo"', 'recipe = "demo"\ntuned = false'), "tuned = false"),
        (("[[domains]]", "[[domain]]"), "no setting domain"),
        (("[[domains]]", "[[domains"), "is not valid TOML"),
    ],
)
def test_wrong_plans_are_refused(tmp_path, change, message):
    text = PLAN.replace("ours, before", "ours before")
    assert change[0] in text
    (tmp_path / "plan.toml").write_text(text.replace(*change))
    with pytest.raises(BadConfig, match=message):
        read_plan(tmp_path / "plan.toml")


def test_a_missing_file_and_empty_lists_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no file; give a plan in TOML"):
        read_plan(tmp_path / "plan.toml")
    with pytest.raises(BadConfig, match="at least one domain"):
        make_plan([])
    with pytest.raises(BadConfig, match="at least one system"):
        ComparisonPlan(domains=(DomainPlan(folder="x"),), systems=(), reference="x")


def test_a_name_with_a_comma_is_refused():
    with pytest.raises(BadConfig, match="the name of a system is"):
        SystemPlan(name="ours, before", family="itemknn")


class TestOverrides:
    def test_only_what_is_named_changes(self):
        changed = override(
            demo(), {"recommender.trainer.steps": 7, "tokenizer.quantizer.root_size": 9}
        )
        base = to_dict(demo())
        base["recommender"]["trainer"]["steps"] = 7
        base["tokenizer"]["quantizer"]["root_size"] = 9
        assert to_dict(changed) == base
        assert override(demo(), {}) == demo()

    def test_settings_that_need_each_other_change_together(self):
        """The warm-up must be shorter than the training, so one of them alone is refused."""
        steps = {"tokenizer.trainer.steps": 20}
        with pytest.raises(BadConfig, match="warmup_steps"):
            override(demo(), steps)
        both = steps | {"tokenizer.quantizer.warmup_steps": 5}
        for changes in (both, dict(reversed(both.items()))):
            assert override(demo(), changes).tokenizer.quantizer.warmup_steps == 5

    def test_whole_numbers_are_fine_as_floats(self):
        changed = override(demo(), {"recommender.trainer.learning_rate": 1})
        assert changed.recommender.trainer.learning_rate == 1.0
        assert isinstance(changed.recommender.trainer.learning_rate, float)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("recommender.trainer.stepz", 5, "TrainerConfig has no 'stepz'; it has"),
            ("recomender.trainer.steps", 5, "Recipe has no 'recomender'"),
            ("recommender.trainer", 5, "is a group of settings; name one of recommender.trainer."),
            ("recommender.trainer.steps.more", 5, "'steps' has no parts"),
            ("", 5, "Recipe has no ''"),
            ("recommender.trainer.steps", "5", "must be a int like 1200, got '5'"),
            ("recommender.trainer.steps", True, "must be a int"),
            ("recommender.trainer.steps", -5, "steps"),
            ("recommender.trainer.seed", 5, "seeds are those of the plan"),
            ("exclude_seen", False, "the plan's own exclude_seen"),
        ],
    )
    def test_wrong_ones_are_refused(self, name, value, message):
        with pytest.raises(BadConfig, match=message):
            override(demo(), {name: value})

    def test_every_setting_of_a_recipe_can_be_named(self):
        def names(config, before=""):
            for field in dataclasses.fields(config):
                value = getattr(config, field.name)
                if dataclasses.is_dataclass(value):
                    yield from names(value, f"{before}{field.name}.")
                else:
                    yield f"{before}{field.name}", value

        recipe = demo()
        found = {
            name: value
            for name, value in names(recipe)
            if name.rpartition(".")[2] not in ("seed", "name", "exclude_seen")
        }
        assert len(found) > 40
        assert override(recipe, found) == recipe


def test_what_a_plan_overrides_holds_for_every_recipe_and_a_systems_own_comes_first():
    steps = "recommender.trainer.steps"
    one = SystemPlan(name="one", recipe="tiny")
    other = SystemPlan(name="other", recipe="tiny", overrides={steps: 7, "decoding.beam": 9})
    plan = ComparisonPlan(
        domains=(DomainPlan(folder="shop"),),
        systems=(one, other),
        reference="one",
        overrides={steps: 5, "recommender.max_items": 11},
    )
    made = [recipe_of(plan, system, seed=3) for system in (one, other)]
    assert [recipe.recommender.trainer.steps for recipe in made] == [5, 7]
    assert [recipe.recommender.max_items for recipe in made] == [11, 11]
    assert [recipe.decoding.beam for recipe in made] == [tiny().decoding.beam, 9]
    assert made[0] == override(find_recipe("tiny", 3), plan.overrides)


def test_a_plan_overrides_nothing_where_no_system_has_a_recipe():
    with pytest.raises(BadConfig, match=r"overrides decoding\.beam, but no system of it has"):
        ComparisonPlan(
            domains=(DomainPlan(folder="shop"),),
            systems=(SystemPlan(name="knn", family="itemknn"),),
            reference="knn",
            overrides={"decoding.beam": 9},
        )


def test_the_example_is_a_plan_and_the_one_of_the_docs():
    root = Path(__file__).parents[2]
    plan = read_plan(root / "examples" / "comparison.toml")
    assert plan.domains[1].folder == str((root / "domains" / "shop").resolve())
    override(tiny(), plan.systems[3].overrides)
    page = (root / "docs" / "comparison.md").read_text(encoding="utf-8")
    shown = page.partition("```toml\n")[2].partition("```")[0]
    written = (root / "examples" / "comparison.toml").read_text(encoding="utf-8")
    assert tomllib.loads(shown) == tomllib.loads(written)


def test_the_docs_explain_every_key():
    page = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text(encoding="utf-8")
    for plan in (ComparisonPlan, DomainPlan, SystemPlan):
        for field in dataclasses.fields(plan):
            assert f"`{field.name}`" in page or f"`[[{field.name}]]`" in page, field.name
