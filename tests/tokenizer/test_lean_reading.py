"""What encoding does less of than the model's own forward pass changes no number: patches, picture
features and the states of code queries."""

import numpy as np
import pytest
import torch
from PIL import Image
from random_models import MULTIMODAL, PIXELS, QWEN, WIDTH, write_model
from small_items import TEXTS

from utgrec.tokenizer.backbone import Backbone
from utgrec.tokenizer.backbone_config import LoraSettings, MachineSettings, PretrainedBackboneConfig
from utgrec.tokenizer.families.places import reads_places
from utgrec.tokenizer.items import build_prompts, read_items

SIZES = [(40, 40), (30, 90), (40, 40), (200, 61), (7, 5), (300, 300)]
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A backbone of every family with pictures; its adapters are random too, not zero."""
    root, made = tmp_path_factory.mktemp("models"), {}
    for name in MULTIMODAL:
        low, high = PIXELS.get(name, (1, 10_000))
        settings = PretrainedBackboneConfig(
            name=name,
            dtype="float32",
            min_pixels=low,
            max_pixels=high,
            lora=LoraSettings(rank=2, dropout=0.0),
            machine=MachineSettings(workers=0),
        )
        made[name] = Backbone(write_model(root / name, name), settings).eval()
        torch.manual_seed(0)
        for path, value in made[name].named_parameters():
            if ".lora_B." in path:
                torch.nn.init.normal_(value, std=0.3)
    return made


@pytest.fixture(scope="module")
def pictures():
    """Noise of many shapes, with every value of every colour."""
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    assert all(len(np.unique(made[-1][:, :, colour])) == 256 for colour in range(3))
    return [Image.fromarray(pixels) for pixels in made]


def own_patches(backbone, pictures):
    """What the processor that came with the model makes of pictures."""
    return dict(backbone.picture_processor(images=pictures, return_tensors="pt"))


@pytest.mark.parametrize("name", QWEN)
def test_patches_are_those_of_the_models_own_processor_bit_for_bit(opened, pictures, name):
    backbone = opened[name]
    found, own = backbone.family.process(pictures), own_patches(backbone, pictures)
    assert found["image_grid_thw"].equal(own["image_grid_thw"])
    frames = own["pixel_values"].unflatten(1, (3, 2, -1))
    for frame in (0, 1):
        assert found["pixel_values"].equal(frames[:, :, frame].flatten(1))
    with pytest.raises(ValueError, match="aspect ratio"):
        backbone.family.process([Image.new("RGB", (900, 2))])


@pytest.mark.parametrize("name", QWEN)
def test_a_processor_that_does_otherwise_is_asked_itself(opened, pictures, name, monkeypatch):
    backbone = opened[name]
    expected = backbone.family.process(pictures)
    monkeypatch.setattr(backbone.picture_processor, "do_normalize", False)
    family = type(backbone.family)(
        backbone.model, backbone.text_tokenizer, backbone.picture_processor
    )
    found = family.process(pictures)
    assert found["pixel_values"].shape == expected["pixel_values"].shape
    assert found["pixel_values"].min() >= 0 and found["pixel_values"].max() <= 1


@pytest.mark.parametrize("name", QWEN)
@torch.no_grad()
def test_features_are_those_of_the_models_own_forward_pass(opened, pictures, name):
    """Pictures of several shapes, in an order that keeps those of a shape apart."""
    backbone = opened[name]
    own = own_patches(backbone, pictures)
    seen = backbone.model.get_image_features(own["pixel_values"], own["image_grid_thw"])
    found = backbone.picture_features(pictures).features[:, :WIDTH]
    torch.testing.assert_close(found, torch.cat(list(seen.pooler_output)), **CLOSE)


@torch.no_grad()
def test_features_in_bfloat16_are_as_near_as_the_models_own(opened, pictures):
    backbone = opened["qwen2_vl"]
    exact = backbone.picture_features(pictures).features
    own = own_patches(backbone, pictures)
    tower = backbone.model.visual
    try:
        tower.to(torch.bfloat16)
        rounded = backbone.family.picture_features(backbone.family.process(pictures)).float()
        theirs = torch.cat(
            list(
                backbone.model.get_image_features(
                    own["pixel_values"], own["image_grid_thw"]
                ).pooler_output
            )
        ).float()
    finally:
        tower.float()
    far = (theirs - exact).square().mean().sqrt()
    assert 0 < (rounded - exact).square().mean().sqrt() < 1.5 * far


@pytest.mark.parametrize("name", MULTIMODAL)
def test_states_without_gradients_are_those_with(opened, picture_files, name):
    """With adapters, of which the last layer's must be there too."""
    backbone = opened[name]
    with torch.no_grad():
        items = read_items(TEXTS, picture_files, backbone, None, 24)
    prompts = build_prompts(items, np.arange(len(TEXTS)), backbone, 3)
    queries = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    whole = backbone(prompts, queries)
    assert whole.requires_grad
    calls = []
    last = backbone.family.language_model.layers[-1].mlp
    hook = last.register_forward_hook(lambda _, given, made: calls.append(made.shape[1]))
    with torch.no_grad():
        lean = backbone(prompts, queries)
    hook.remove()
    assert calls == [3], "the last layer is computed for the code queries alone"
    torch.testing.assert_close(lean, whole.detach(), **CLOSE)


def test_a_model_with_sliding_windows_goes_through_its_own_forward_pass(opened, monkeypatch):
    model = opened["qwen2_vl"].family.language_model
    assert reads_places(model)
    kinds = ["sliding_attention", *model.config.layer_types[1:]]
    monkeypatch.setattr(model.config, "layer_types", kinds)
    assert not reads_places(model)
