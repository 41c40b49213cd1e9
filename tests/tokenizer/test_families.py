"""Every family of models, on tiny random ones: prompts and states are those of transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import (
    FAMILIES,
    MULTIMODAL,
    PICTURES,
    PIXELS,
    QWEN,
    WIDTH,
    WORDS,
    fill,
    write_model,
)
from small_items import TEXTS

from utgrec.errors import BadConfig
from utgrec.tokenizer.backbone import Backbone, open_picture
from utgrec.tokenizer.backbone_config import LoraSettings, MachineSettings, PretrainedBackboneConfig
from utgrec.tokenizer.items import build_prompts, prompt_lengths, read_items

LENGTH = 3
GOLDEN = Path(__file__).with_name("golden_states.json")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of every family."""
    root = tmp_path_factory.mktemp("models")
    return {name: write_model(root / name, name) for name in FAMILIES}


def settings(name, folder, **changes):
    low, high = PIXELS.get(name, (1, 10_000))
    return PretrainedBackboneConfig(
        name=str(folder),
        dtype="float32",
        min_pixels=low,
        max_pixels=high,
        lora=None,
        machine=MachineSettings(workers=0),
        **changes,
    )


@pytest.fixture(scope="module")
def opened(folders):
    """A backbone of every family."""
    return {name: open_filled(name, folder) for name, folder in folders.items()}


def open_filled(name, folder):
    backbone = Backbone(folder, settings(name, folder)).eval()
    if backbone.trained_layers is not None:  # the reader of picture encoders
        fill(backbone.trained_layers)
    return backbone


@pytest.fixture(scope="module")
def read(opened, picture_files):
    """The odd items as every family reads them."""
    return {
        name: read_items(
            TEXTS, [None] * len(TEXTS) if name in WORDS else picture_files, one, None, 24
        )
        for name, one in opened.items()
    }


def processed(backbone, path):
    """A picture as the model's own forward pass takes it, from the processor that came with it."""
    picture = open_picture(path)
    if type(backbone.family).__name__.startswith("Qwen"):
        return dict(backbone.picture_processor(images=[picture], return_tensors="pt"))
    return backbone.family.process([picture])


def queries(seed=0):
    return torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MULTIMODAL)
@torch.no_grad()
def test_states_are_those_of_the_whole_model(opened, read, picture_files, name):
    """The model's own forward pass, from token ids and pixels, gives the same states."""
    backbone, items = opened[name], read[name]
    vectors = queries()
    for row in (0, 3, 5):
        prompts = build_prompts(items, np.array([row]), backbone, LENGTH)
        length = int(prompts.lengths[0])
        ids = prompts.tokens[:, :length].clone()
        free = [token for token in range(100, 290) if token not in set(ids[0].tolist())][:LENGTH]
        ids[0, -LENGTH:] = torch.tensor(free)
        inputs = {"input_ids": ids}
        if picture_files[row] is not None:
            seen = processed(backbone, picture_files[row])
            inputs |= {k: v for k, v in seen.items() if k not in ("rows", "cols")}
        if name in QWEN:
            inputs["mm_token_type_ids"] = (ids == backbone.model.config.image_token_id).int()
        table = backbone.embeddings
        kept = table[free].clone()
        table[free] = vectors
        expected = backbone.model(**inputs).last_hidden_state[0, -LENGTH:]
        table[free] = kept
        torch.testing.assert_close(backbone(prompts, vectors)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("row", [0, 2, 4, 6])
def test_positions_are_those_of_the_model(opened, read, picture_files, name, row):
    backbone = opened[name]
    prompts = build_prompts(read[name], np.array([row]), backbone, LENGTH)
    ids = prompts.tokens[:, : prompts.lengths[0]].clone()
    ids[0, -LENGTH:] = 100
    inputs = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == backbone.model.config.image_token_id).int(),
    }
    if picture_files[row] is not None:
        seen = processed(backbone, picture_files[row])
        inputs["image_grid_thw"] = seen["image_grid_thw"]
    positions, _ = backbone.model.get_rope_index(**inputs)
    assert torch.equal(prompts.positions[:, :, : prompts.lengths[0]], positions)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_padding_and_batch_change_nothing(opened, read, name):
    backbone, items = opened[name], read[name]
    vectors = queries()
    every = np.arange(len(TEXTS))
    alone = torch.cat(
        [
            backbone(build_prompts(items, np.array([row]), backbone, LENGTH), vectors)
            for row in every
        ]
    )
    for order in (every, every[::-1].copy(), np.array([7, 3, 1, 0])):
        together = build_prompts(items, order, backbone, LENGTH)
        found = backbone(together, vectors)
        torch.testing.assert_close(found, alone[order], atol=1e-5, rtol=1e-4)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_part_of_an_item_is_read(opened, read, name):
    backbone, items = opened[name], read[name]
    prompts = build_prompts(items, np.array([0]), backbone, LENGTH)
    base = backbone(prompts, queries())
    assert (backbone(prompts, queries(1)) - base).abs().max() > 1e-3
    if name not in WORDS:
        noise = torch.randn(
            len(prompts.features), WIDTH, generator=torch.Generator().manual_seed(2)
        )
        for at in range(0, prompts.features.shape[1], WIDTH):  # every layer of deepstack features
            features = prompts.features.clone()
            features[:, at : at + WIDTH] += noise
            other = backbone(prompts._replace(features=features), queries())
            assert (other - base).abs().max() > 1e-3
    if name not in PICTURES:
        tokens = prompts.tokens.clone()
        tokens[0, int(prompts.lengths[0]) - LENGTH - 1] += 1
        assert (backbone(prompts._replace(tokens=tokens), queries()) - base).abs().max() > 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_token_counts_are_known_before_a_picture_is_read(opened, read, picture_files, name):
    backbone, items = opened[name], read[name]
    for row, path in enumerate(picture_files):
        if path is not None and name not in WORDS:
            picture = open_picture(path)
            count = backbone.family.count_tokens(picture.height, picture.width)
            assert count == int(items.grids[row].prod())


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_states_do_not_change_with_transformers(opened, read, name):
    """Recorded with transformers 5.23; 5.17 gives the same (docs/backbones.md)."""
    states = opened[name](
        build_prompts(read[name], np.array([0, 5]), opened[name], LENGTH), queries()
    )
    recorded = torch.tensor(json.loads(GOLDEN.read_text())[name])
    torch.testing.assert_close(states[:, :, :4], recorded, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_prompt_lengths_are_known_before_prompts_are_laid_out(opened, read, name):
    prompts = build_prompts(read[name], np.arange(len(TEXTS)), opened[name], LENGTH)
    known = prompt_lengths(read[name], opened[name], LENGTH)
    assert known.tolist() == prompts.lengths.tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_only_what_should_is_trained(folders, name):
    frozen = Backbone(folders[name], settings(name, folders[name]))
    trained = [n for n, p in frozen.named_parameters() if p.requires_grad]
    assert all(n.startswith("trained_layers.") for n in trained)
    assert bool(trained) == (name in PICTURES)
    adapted = Backbone(
        folders[name],
        PretrainedBackboneConfig(
            name="x", dtype="float32", lora=LoraSettings(rank=2), machine=MachineSettings(workers=0)
        ),
    )
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trained
    if name not in PICTURES:
        assert all(".lora_" in n for n in trained)
        assert not any("visual" in n or "vision" in n or "pooler" in n for n in trained)
        linear = [
            n
            for n, m in frozen.family.language_model.named_modules()
            if isinstance(m, torch.nn.Linear) and not n.startswith("pooler")
        ]
        assert len(trained) == 2 * len(linear)  # A and B of every Linear layer


def test_models_that_cannot_read_items_are_refused(tmp_path):
    from transformers import T5Config

    T5Config(vocab_size=10, d_model=8, d_ff=8, num_layers=1, num_heads=1).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(BadConfig, match="type 't5' cannot read items; take one of qwen2_vl"):
        Backbone(tmp_path, settings("t5", tmp_path))


def test_pictures_for_a_model_without_are_an_error_unless_left_out(opened, folders, picture_files):
    with pytest.raises(BadConfig, match=r"6 of 8 items have a picture, and the backbone \(bert\)"):
        read_items(TEXTS, picture_files, opened["bert"], None, 24)
    bert = folders["bert"]
    blind = Backbone(bert, settings("bert", bert, pictures=False))
    assert read_items(TEXTS, picture_files, blind, None, 24).grids.max() == 0
