"""Configurations and JSON are inverses, and nothing is accepted that is not a setting."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utgrec.config import fingerprint, from_dict, require, to_dict
from utgrec.data.marketplace import MarketplaceConfig
from utgrec.errors import BadConfig
from utgrec.recipes import RECIPES, Recipe
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.tokenizer.quantizer import QuantizerConfig
from utgrec.training.trainer import TrainerConfig


def through_json(config):
    """What a configuration is after a trip through a file."""
    return from_dict(type(config), json.loads(json.dumps(to_dict(config))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        require(self.name != "bad", f"name must not be bad, got {self.name!r}")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_json(name):
    recipe = RECIPES[name](3)
    assert through_json(recipe) == recipe
    assert isinstance(through_json(recipe), Recipe)


@given(
    steps=st.integers(0, 10**6),
    rate=st.floats(1e-9, 1.0),
    decay=st.floats(0, 1),
    patience=st.integers(0, 9),
    precision=st.sampled_from(["auto", "bf16", "fp32"]),
)
def test_numbers_come_back_exactly(steps, rate, decay, patience, precision):
    config = TrainerConfig(
        steps=steps,
        learning_rate=rate,
        weight_decay=decay,
        patience=patience,
        precision=precision,
    )
    assert through_json(config) == config
    assert fingerprint(through_json(config)) == fingerprint(config)


@pytest.mark.parametrize(
    "config",
    [
        Outer(name="a", inner=Inner(share=0.25)),
        Outer(name="ü", inner=Inner(), maybe=Inner(share=1.5), many=(Inner(), Inner(share=2.0))),
        Outer(name="", inner=Inner(), limit=0),
        MarketplaceConfig(shops=("clothing",)),
        Vocabulary(root_size=3, leaf_size=4, code_length=2, domains=("b", "a")),
    ],
)
def test_nested_optional_and_repeated_parts_come_back(config):
    assert through_json(config) == config


def test_what_comes_back_can_be_hashed():
    config = Outer(name="a", inner=Inner(), many=(Inner(),))
    assert hash(through_json(config)) == hash(config)  # fails where a tuple came back as a list


def test_an_unknown_setting_is_named_with_those_that_exist():
    with pytest.raises(BadConfig, match=r"Inner has no setting shar; it has share"):
        from_dict(Outer, {"name": "a", "inner": {"shar": 1.0}})


def test_a_missing_setting_is_named():
    with pytest.raises(BadConfig, match="Outer needs name, which is not given"):
        from_dict(Outer, {"inner": {}})


def test_a_value_outside_its_range_is_refused_on_the_way_back():
    values = to_dict(Outer(name="a", inner=Inner()))
    with pytest.raises(BadConfig, match="name must not be bad, got 'bad'"):
        from_dict(Outer, {**values, "name": "bad"})


def test_a_value_of_another_type_is_refused():
    with pytest.raises(BadConfig, match="TrainerConfig"):
        from_dict(TrainerConfig, {"steps": "many", "learning_rate": 0.1})


def test_the_fingerprint_knows_content_not_order():
    assert fingerprint({"a": 1, "b": [2, {"c": 3, "d": 4}]}) == fingerprint(
        {"b": [2, {"d": 4, "c": 3}], "a": 1}
    )
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})


def leaves(values, path=()):
    """The path of every value in nested dictionaries."""
    if isinstance(values, dict):
        return [leaf for key, entry in values.items() for leaf in leaves(entry, (*path, key))]
    return [path]


def test_every_setting_of_a_recipe_counts_in_its_fingerprint():
    recipe = to_dict(RECIPES["tiny"](0))
    prints = {fingerprint(recipe)}
    paths = leaves(recipe)
    for path in paths:
        changed = json.loads(json.dumps(recipe))
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = f"{place[path[-1]]} changed"
        prints.add(fingerprint(changed))
    assert len(prints) == len(paths) + 1 > 40


def test_not_a_number_has_no_fingerprint():
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"rate": float("nan")})


def test_configurations_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["tiny"](0).tokenizer.trainer.steps = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (TrainerConfig, {"steps": -1, "learning_rate": 0.1}, "steps must be at least 0, got -1"),
        (TrainerConfig, {"steps": 1, "learning_rate": 0.0}, "learning_rate must be above 0, got 0"),
        (TrainerConfig, {"steps": 1, "learning_rate": float("nan")}, "learning_rate .* got nan"),
        (TrainerConfig, {"steps": 1, "learning_rate": 1.0, "precision": "fp8"}, "got 'fp8'"),
        (TrainerConfig, {"steps": 1, "learning_rate": 1.0, "warmup_share": 1.0}, "warmup_share"),
        (TrainerConfig, {"steps": 1, "learning_rate": 1.0, "clip_norm": 0.0}, "clip_norm"),
        (TrainerConfig, {"steps": 1, "learning_rate": 1.0, "log_every": 0}, "log_every"),
        (TrainerConfig, {"steps": 1, "learning_rate": 1.0, "patience": -1}, "patience"),
        (QuantizerConfig, {"kind": "fsq"}, "kind is one of simvq, vq, ema, got 'fsq'"),
        (QuantizerConfig, {"leaf_size": 40_000}, "2 to 32768 entries, got 256 and 40000"),
        (QuantizerConfig, {"code_length": 1}, "code_length must be at least 2, got 1"),
        (QuantizerConfig, {"warmup_steps": -1}, "warmup_steps is at least 0, got -1"),
    ],
)
def test_a_bad_setting_is_refused_with_its_value(cls, values, message):
    with pytest.raises(BadConfig, match=message):
        cls(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
    width: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Either:
    part: Inner | Other


class TestOneOfTwoClasses:
    @pytest.mark.parametrize("part", [Inner(share=0.25), Other(width=7)])
    def test_the_settings_tell_which_it_is(self, part):
        assert through_json(Either(part=part)) == Either(part=part)

    @pytest.mark.parametrize("part", [{"share": 0.1, "width": 3}, {"depth": 1}, {}])
    def test_settings_of_both_or_of_neither_are_refused(self, part):
        with pytest.raises(BadConfig, match="either Inner or Other"):
            from_dict(Either, {"part": part})
