"""What matrices are multiplied in: what was asked for, or what the processor is made for."""

import pytest
import torch

from utgrec import precision
from utgrec.errors import BadConfig
from utgrec.evaluation.generative import DecodingConfig
from utgrec.precision import multiplies_bf16, own_device, uses_bf16
from utgrec.recipes import RECIPES
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.training.trainer import TrainerConfig


@pytest.fixture
def processor(monkeypatch):
    """A function that lets this processor have some instructions, and no others."""

    def pretend(*instructions: str) -> None:
        found = {"avx2": True, "avx512_bf16": False, **dict.fromkeys(instructions, True)}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
        multiplies_bf16.cache_clear()

    yield pretend
    multiplies_bf16.cache_clear()


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_made_for_bf16_multiplies_it(processor, name):
    processor(name)
    assert uses_bf16("auto") and uses_bf16("auto", torch.device("cpu"))
    assert DecodingConfig().dtype == torch.bfloat16


def test_any_other_multiplies_float32(processor):
    processor()
    assert not uses_bf16("auto")
    assert DecodingConfig().dtype == torch.float32


def test_a_torch_that_cannot_tell_multiplies_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    multiplies_bf16.cache_clear()
    assert not uses_bf16("auto")
    multiplies_bf16.cache_clear()


def test_what_is_asked_for_is_done_everywhere(processor):
    for instructions in ((), ("avx512_bf16",)):
        processor(*instructions)
        assert uses_bf16("bf16") and not uses_bf16("fp32")


def test_cuda_is_asked_for_what_it_does_without_detours(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(1) or True
    )
    multiplies_bf16.cache_clear()
    assert uses_bf16("auto", "cuda:1") and asked == [1]
    multiplies_bf16.cache_clear()


def test_a_process_has_a_gpu_of_its_own_unless_told_to_do_without(monkeypatch):
    assert own_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert own_device() == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device() == torch.device("cuda:3")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert own_device() == torch.device("cpu")


def test_the_weights_of_a_backbone_are_what_its_device_multiplies(processor):
    cpu = torch.device("cpu")
    config = PretrainedBackboneConfig(name="some/model")
    processor()
    assert config.weights_dtype(cpu) == torch.float32
    processor("amx_bf16")
    assert config.weights_dtype(cpu) == torch.bfloat16
    processor()
    asked = PretrainedBackboneConfig(name="some/model", dtype="bfloat16")
    assert asked.weights_dtype(cpu) == torch.bfloat16


def test_every_recipe_leaves_it_to_the_device():
    for make in RECIPES.values():
        recipe = make(0)
        trainers = (recipe.tokenizer.trainer, recipe.recommender.trainer)
        assert {one.precision for one in (*trainers, recipe.decoding)} == {"auto"}
        assert getattr(recipe.tokenizer.backbone, "dtype", "auto") == "auto"


def test_anything_else_is_refused():
    for make in (
        lambda: TrainerConfig(steps=1, learning_rate=1.0, precision="fp16"),
        lambda: DecodingConfig(precision="half"),
    ):
        with pytest.raises(BadConfig, match=r"auto, bf16, fp32, got '(fp16|half)'"):
            make()
    assert precision.PRECISIONS == ("auto", "bf16", "fp32")
