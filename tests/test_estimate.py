"""A plan says what the training then does: parameters, steps, and how they grow."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from mini_run import mini_domains, mini_recipe
from utgrec import estimate, recipes
from utgrec.catalog import Domain
from utgrec.cli import app
from utgrec.errors import BadConfig
from utgrec.estimate import estimate_tokenizer
from utgrec.recipes import find_recipe
from utgrec.tokenizer import backbone_config
from utgrec.tokenizer import train as stage
from utgrec.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A miniature shop."""
    return mini_domains(tmp_path_factory.mktemp("market"), shops=("kitchen",))[0]


def test_parameters_and_steps_are_those_of_the_training(shop, tmp_path):
    config = dataclasses.replace(mini_recipe().tokenizer, epochs=0.7)
    planned = estimate_tokenizer(config, [Domain.open(shop)], tflops=1.0)
    made = train_tokenizer([Domain.open(shop)], config, tmp_path / "tokenizer")
    assert planned.parameters_trained == made.facts["parameters_trained"]
    assert planned.steps == made.facts["steps"] < 8
    assert planned.items_trained == made.facts["items_trained"]


def test_work_grows_with_what_there_is_to_do(shop):
    domain = [Domain.open(shop)]

    def plan(**changes):
        config = mini_recipe().tokenizer
        trainer = dataclasses.replace(config.trainer, **changes.pop("trainer", {}))
        changed = dataclasses.replace(config, trainer=trainer, **changes)
        return estimate_tokenizer(changed, domain, tflops=1.0)

    base = plan()
    assert plan(trainer={"steps": 10}).hours == pytest.approx(2 * base.hours, rel=0.01, abs=2e-3)
    parts = plan(trainer={"at_once": 2})
    assert parts.gflop_per_item > base.gflop_per_item
    assert parts.memory_gib <= base.memory_gib
    many = estimate_tokenizer(mini_recipe().tokenizer, domain, tflops=1.0, processes=4)
    assert many.tflops == 4 and many.steps == base.steps


def test_the_papers_backbone_without_fetching_it(shop):
    """Two billion parameters frozen, LoRA of rank 8 on every Linear of 28 layers trained."""
    config = find_recipe("paper_pretrain").tokenizer
    shape = estimate.backbone_shape(config, None)
    assert 1.5e9 < shape.language + shape.vocabulary * shape.hidden < 1.6e9
    by_hand = 28 * 8 * (4 * 1536 + 2 * (1536 + 256) + 3 * (1536 + 8960))
    assert estimate._adapters(config, shape) == by_hand
    planned = estimate_tokenizer(config, [Domain.open(shop)], tflops=100.0, processes=16)
    assert planned.parameters_trained > by_hand
    assert planned.parameters_frozen == pytest.approx(2.2e9, rel=0.05)
    assert 1 < planned.memory_gib < 80


def test_recipes_are_the_papers():
    recipe = find_recipe("paper_pretrain")
    tokenizer = recipe.tokenizer
    assert (tokenizer.epochs, tokenizer.batch_size) == (3, 512)
    assert tokenizer.trainer.learning_rate == 3e-4
    assert (tokenizer.backbone.lora.rank, tokenizer.backbone.lora.alpha) == (8, 32)
    weights = tokenizer.weights
    assert (weights.image, weights.code, weights.alignment, weights.partner) == (5, 200, 0.01, 0.03)
    adapt = recipes.paper_adapt()
    assert recipe.adapt == adapt
    assert (adapt.tokenizer_epochs, adapt.tokenizer_learning_rate) == (40, 1e-4)
    assert find_recipe("small").tokenizer.batch_size == 128


def test_epochs_that_end_in_the_warm_up_are_refused(shop, tmp_path):
    config = mini_recipe().tokenizer
    config = dataclasses.replace(
        config, epochs=1.0, batch_size=128,
        quantizer=dataclasses.replace(config.quantizer, warmup_steps=4),
    )  # fmt: skip
    with pytest.raises(BadConfig, match="not more than the 4 of the quantiser's warm-up"):
        train_tokenizer([Domain.open(shop)], config, tmp_path / "out")
    assert "not more than the 4" in estimate_tokenizer(config, [Domain.open(shop)]).refused
    long_enough = dataclasses.replace(config, epochs=50.0)
    assert estimate_tokenizer(long_enough, [Domain.open(shop)]).refused == ""


def test_they_are_refused_before_anything_is_read(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_create", None)
    config = dataclasses.replace(find_recipe("small").tokenizer, epochs=0.1)
    with pytest.raises(BadConfig, match="quantiser's warm-up"):
        train_tokenizer([Domain.open(shop)], config, tmp_path / "out")


def test_a_machine_without_bf16_holds_the_backbone_in_float32(shop, monkeypatch):
    config, domain = find_recipe("paper_pretrain").tokenizer, [Domain.open(shop)]
    monkeypatch.setattr(estimate, "uses_bf16", lambda *_: False)
    monkeypatch.setattr(backbone_config, "uses_bf16", lambda *_: False)
    here = estimate_tokenizer(config, domain)
    elsewhere = estimate_tokenizer(config, domain, tflops=100.0)
    weights = elsewhere.parameters_frozen * 2 / 2**30
    assert here.memory_gib - elsewhere.memory_gib == pytest.approx(weights, rel=0.05)
    named = dataclasses.replace(config.backbone, dtype="bfloat16")
    asked = estimate_tokenizer(dataclasses.replace(config, backbone=named), domain)
    assert asked.memory_gib == elsewhere.memory_gib


@pytest.mark.parametrize("command", ["tokenizer train", "run mini", "pretrain"])
def test_a_dry_run_starts_nothing(shop, tmp_path, monkeypatch, command):
    monkeypatch.setitem(recipes.RECIPES, "mini", lambda seed: mini_recipe())
    out = tmp_path / "out"
    recipe = [] if command.startswith("run") else ["--recipe", "mini"]
    words = [*command.split(), str(shop), *recipe, "--out", str(out), "--dry-run", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["dry_run"] and document["tokenizer"]["parameters_trained"] > 1000
    assert not out.exists() and list(tmp_path.iterdir()) == []
