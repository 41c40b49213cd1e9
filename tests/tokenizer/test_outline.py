"""What a plan says of a backbone is what the training then finds: parameters, tokens, cache."""

import dataclasses

import numpy as np
import pytest
from random_models import PIXELS, write_model
from small_items import small_config, write_small_domain

from utgrec.catalog import Domain
from utgrec.errors import MissingStage
from utgrec.estimate import estimate_tokenizer
from utgrec.storage import CACHE_VARIABLE
from utgrec.tokenizer.backbone_config import (
    LoraSettings,
    MachineSettings,
    PretrainedBackboneConfig,
)
from utgrec.tokenizer.items import prompt_lengths
from utgrec.tokenizer.pretrained import ItemTokenizer
from utgrec.tokenizer.train import train_tokenizer

# All items are trained: what is counted on a sample of one kind must not differ from the other.
HISTORIES = [[0, 1, 3, 2, 7, 4, 6], [4, 6, 0, 5, 1, 2], [3, 2, 7, 0, 5, 1, 4]]


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    return Domain.open(write_small_domain(tmp_path_factory.mktemp("domains") / "shop", HISTORIES))


def check(config, domain, folder):
    """Plan, train, compare; `folder` has the cache."""
    planned = estimate_tokenizer(config, [domain], tflops=1.0)
    made = train_tokenizer([domain], config, folder / "out")
    assert planned.parameters_trained == made.facts["parameters_trained"]
    tokenizer = ItemTokenizer.from_pretrained(folder / "out", config)
    model = tokenizer.model
    frozen = [p for p in model.backbone.parameters() if not p.requires_grad]
    assert planned.parameters_frozen == sum(p.numel() for p in frozen)
    items = tokenizer.read(domain.catalog.texts, domain.catalog.images)
    rows = np.unique([item for history in HISTORIES for item in history[:-2]])
    lengths = prompt_lengths(items, model.backbone, config.quantizer.code_length)[rows]
    assert planned.tokens_per_item == pytest.approx(lengths.mean(), rel=0.05)
    kept = sum(path.stat().st_size for path in (folder / "cache").rglob("*.rows"))
    assert planned.cache_gib * 2**30 == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "smolvlm", "bert", "siglip"])
def test_a_plan_for_every_kind_of_model(domain, tmp_path, name):
    low, high = PIXELS.get(name, (1, 10_000))
    backbone = PretrainedBackboneConfig(
        name=str(write_model(tmp_path / "model", name)),
        dtype="float32",
        min_pixels=low,
        max_pixels=high,
        lora=LoraSettings(rank=2),
        pictures=name != "bert",
        machine=MachineSettings(cache=str(tmp_path / "cache"), workers=0),
    )
    check(dataclasses.replace(small_config(), backbone=backbone), domain, tmp_path)


def test_a_plan_for_a_small_model_of_our_own(domain, tmp_path, monkeypatch):
    """Where its features are kept, they are made once, also for what is done with it later."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("utgrec.tokenizer.pretrained.FEW", 0)
    check(small_config(), domain, tmp_path)
    found = ItemTokenizer.from_pretrained(tmp_path / "out")
    monkeypatch.setattr(
        type(found.model.backbone), "processed_features", lambda *_: pytest.fail("made again")
    )
    kept = found.read(domain.catalog.texts, domain.catalog.images)
    monkeypatch.undo()
    fresh = found.read(domain.catalog.texts, domain.catalog.images)
    every = np.arange(len(kept))
    np.testing.assert_allclose(kept.features.take(every), fresh.features.take(every), atol=1e-5)


def test_a_model_that_is_nowhere(domain, monkeypatch):
    config = dataclasses.replace(
        small_config(), backbone=PretrainedBackboneConfig(name="no/such-model")
    )
    with pytest.raises(MissingStage, match="no/such-model"):
        estimate_tokenizer(config, [domain], tflops=1.0)
