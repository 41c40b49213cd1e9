"""The pretrained autoencoder: conversion of its checkpoint, and latents."""

import argparse
import dataclasses
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_items import draw_picture

from utgrec.errors import BadConfig, CorruptFile, MissingStage, SettingsMismatch
from utgrec.recipes import find_recipe
from utgrec.tokenizer.kl_convert import convert_vae, find_settings, rename
from utgrec.tokenizer.kl_latents import KL_FILE, KLLatents, KLLatentsConfig

# As kl16.ckpt: five levels, two blocks each, attention at the coarsest; but 32 channels, not 128.
WIDTH, MULTIPLES, BLOCKS, LATENT = 32, (1, 1, 2, 2, 4), 2, 16


def checkpoint_weights(attention=True):
    """Random weights with the names and shapes of LDM's autoencoder."""
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def conv(name, inner, outer, size):
        shape = (outer, inner, size, size)
        weights[f"{name}.weight"] = (
            torch.randn(shape, generator=generator) * (inner * size**2) ** -0.5
        )
        weights[f"{name}.bias"] = torch.randn(outer, generator=generator) * 0.1

    def norm(name, width):
        weights[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=generator)
        weights[f"{name}.bias"] = 0.1 * torch.randn(width, generator=generator)

    def block(name, inner, outer):
        norm(f"{name}.norm1", inner)
        conv(f"{name}.conv1", inner, outer, 3)
        norm(f"{name}.norm2", outer)
        conv(f"{name}.conv2", outer, outer, 3)
        if inner != outer:
            conv(f"{name}.nin_shortcut", inner, outer, 1)

    def attend(name, width):
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", width, width, 1)

    def middle(name, width):
        block(f"{name}.mid.block_1", width, width)
        attend(f"{name}.mid.attn_1", width)
        block(f"{name}.mid.block_2", width, width)

    widths = [WIDTH * multiple for multiple in MULTIPLES]
    last = len(widths) - 1
    conv("encoder.conv_in", 3, WIDTH, 3)
    inner = WIDTH
    for level, outer in enumerate(widths):
        for number in range(BLOCKS):
            block(f"encoder.down.{level}.block.{number}", inner, outer)
            inner = outer
            if attention and level == last:
                attend(f"encoder.down.{level}.attn.{number}", outer)
        if level != last:
            conv(f"encoder.down.{level}.downsample.conv", outer, outer, 3)
    middle("encoder", inner)
    norm("encoder.norm_out", inner)
    conv("encoder.conv_out", inner, 2 * LATENT, 3)
    conv("quant_conv", 2 * LATENT, 2 * LATENT, 1)
    conv("post_quant_conv", LATENT, LATENT, 1)
    conv("decoder.conv_in", LATENT, inner, 3)
    middle("decoder", inner)
    for level in reversed(range(len(widths))):
        for number in range(BLOCKS + 1):
            block(f"decoder.up.{level}.block.{number}", inner, widths[level])
            inner = widths[level]
            if attention and level == last:
                attend(f"decoder.up.{level}.attn.{number}", inner)
        if level:
            conv(f"decoder.up.{level}.upsample.conv", inner, inner, 3)
    norm("decoder.norm_out", inner)
    conv("decoder.conv_out", inner, 3, 3)
    return weights


class Plain:
    """The forward pass of LDM's autoencoder, straight from the weights of a checkpoint."""

    def __init__(self, weights):
        self.weights = weights

    def conv(self, name, x, stride=1, padding=0):
        w = self.weights
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding)

    def norm(self, name, x):
        return F.group_norm(
            x, 32, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6
        )

    def block(self, name, x):
        y = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), padding=1)
        y = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", y)), padding=1)
        if f"{name}.nin_shortcut.weight" in self.weights:
            x = self.conv(f"{name}.nin_shortcut", x)
        return x + y

    def attend(self, name, x):
        y = self.norm(f"{name}.norm", x)
        query, key, value = (self.conv(f"{name}.{part}", y).flatten(2) for part in "qkv")
        share = (query.transpose(1, 2) @ key * x.shape[1] ** -0.5).softmax(dim=-1)
        mixed = (value @ share.transpose(1, 2)).view_as(x)
        return x + self.conv(f"{name}.proj_out", mixed)

    def stack(self, name, x, blocks):
        for number in range(blocks):
            x = self.block(f"{name}.block.{number}", x)
            if f"{name}.attn.{number}.q.weight" in self.weights:
                x = self.attend(f"{name}.attn.{number}", x)
        return x

    def middle(self, name, x):
        x = self.attend(f"{name}.mid.attn_1", self.block(f"{name}.mid.block_1", x))
        return self.block(f"{name}.mid.block_2", x)

    def encode(self, x):
        x = self.conv("encoder.conv_in", x, padding=1)
        for level in range(len(MULTIPLES)):
            x = self.stack(f"encoder.down.{level}", x, BLOCKS)
            if level < len(MULTIPLES) - 1:
                x = F.pad(x, (0, 1, 0, 1))
                x = self.conv(f"encoder.down.{level}.downsample.conv", x, stride=2)
        x = F.silu(self.norm("encoder.norm_out", self.middle("encoder", x)))
        moments = self.conv("quant_conv", self.conv("encoder.conv_out", x, padding=1))
        return moments[:, :LATENT]  # the mean of the posterior

    def decode(self, z):
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", z), padding=1)
        x = self.middle("decoder", x)
        for level in reversed(range(len(MULTIPLES))):
            x = self.stack(f"decoder.up.{level}", x, BLOCKS + 1)
            if level:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self.conv(f"decoder.up.{level}.upsample.conv", x, padding=1)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", x)), padding=1)


@pytest.fixture(scope="module")
def weights():
    return checkpoint_weights()


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    """The converted autoencoder."""
    root = tmp_path_factory.mktemp("vae")
    extra = {"loss.discriminator.main.0.weight": torch.zeros(3)}
    torch.save({"model": {**weights, **extra}}, root / "kl16.ckpt")
    settings = convert_vae(root / "kl16.ckpt", root / "kl16")
    assert settings["latent_channels"] == 16
    assert settings["block_out_channels"] == [32, 32, 64, 64, 128]
    return root / "kl16"


def config(folder, **changes):
    return KLLatentsConfig(**{"vae": str(folder), "side": 64, **changes})


def pictures():
    return [draw_picture(64, 64, seed=0), draw_picture(90, 40, seed=1)]


def pixels(shown):
    square = [np.asarray(p.resize((64, 64), Image.Resampling.BICUBIC)) for p in shown]
    return torch.from_numpy(np.stack(square)).float().permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def test_latents_are_those_of_the_checkpoint(weights, folder):
    codec = KLLatents(config(folder))
    latents = codec.encode(pictures())
    assert latents.shape == (2, codec.grid, codec.channels) == (2, 16, 16)
    expected = 0.2325 * Plain(weights).encode(pixels(pictures()))  # (B, C, 4, 4)
    expected = expected.flatten(2).transpose(1, 2)
    assert expected.std() > 0.01
    torch.testing.assert_close(latents.float(), expected, atol=2e-3, rtol=2e-3)  # float16


@torch.no_grad()
def test_pictures_are_those_of_the_checkpoint(weights, folder):
    latents = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    shown = np.asarray(KLLatents(config(folder)).decode(latents)[0]).astype(int)
    grid = latents.transpose(1, 2).reshape(1, 16, 4, 4) / 0.2325
    values = Plain(weights).decode(grid).clamp(-1, 1)[0].permute(1, 2, 0)
    expected = ((values + 1) * 127.5).round().numpy().astype(int)
    assert expected.std() > 5
    assert np.abs(shown - expected).max() <= 1


def test_any_recipe_takes_the_autoencoder_that_is_named():
    assert find_recipe("tiny", vae="a").tokenizer.latents == KLLatentsConfig(vae="a")
    paper, other = (find_recipe("paper_pretrain", vae=vae).tokenizer for vae in (None, "b"))
    assert other == dataclasses.replace(paper, latents=KLLatentsConfig(vae="b"))


def test_nothing_of_the_checkpoint_is_lost_or_left_over(weights):
    names = {rename(name, len(MULTIPLES)) for name in weights}
    assert len(names) == len(weights)
    from diffusers import AutoencoderKL

    assert names == set(AutoencoderKL(**find_settings(weights)).state_dict())


def test_a_checkpoint_without_attention_at_the_coarsest_level(tmp_path):
    torch.save({"state_dict": checkpoint_weights(attention=False)}, tmp_path / "x.ckpt")
    settings = convert_vae(tmp_path / "x.ckpt", tmp_path / "out")
    assert settings["down_block_types"] == ["DownEncoderBlock2D"] * 5


class TestBadCheckpoints:
    def test_missing(self, tmp_path):
        with pytest.raises(MissingStage, match=r"kl16\.ckpt does not exist"):
            convert_vae(tmp_path / "kl16.ckpt", tmp_path / "out")

    def test_cut_short(self, weights, tmp_path):
        torch.save(weights, tmp_path / "x.ckpt")
        data = (tmp_path / "x.ckpt").read_bytes()
        (tmp_path / "x.ckpt").write_bytes(data[: len(data) // 2])
        with pytest.raises(CorruptFile, match="cut short, or no checkpoint"):
            convert_vae(tmp_path / "x.ckpt", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_more_than_weights_is_never_run(self, weights, tmp_path):
        torch.save({"model": weights, "args": argparse.Namespace(a=1)}, tmp_path / "x.ckpt")
        with pytest.raises(CorruptFile, match=r"holds more than weights .* nothing in it was run"):
            convert_vae(tmp_path / "x.ckpt", tmp_path / "out")

    def test_another_model(self, tmp_path):
        torch.save({"linear.weight": torch.zeros(2, 2)}, tmp_path / "x.ckpt")
        with pytest.raises(CorruptFile, match="holds no autoencoder of LDM or MAR"):
            convert_vae(tmp_path / "x.ckpt", tmp_path / "out")

    @pytest.mark.parametrize("change", ["missing", "strange"])
    def test_weights_that_do_not_fit(self, weights, tmp_path, change):
        weights = dict(weights)
        if change == "missing":
            del weights["decoder.up.0.block.1.conv1.weight"]
        else:
            weights["encoder.strange.weight"] = torch.zeros(1)
        torch.save(weights, tmp_path / "x.ckpt")
        match = "not the autoencoder" if change == "missing" else "weight 'encoder.strange.weight'"
        with pytest.raises(CorruptFile, match=match):
            convert_vae(tmp_path / "x.ckpt", tmp_path / "out")


class TestFolders:
    def test_it_is_named_not_copied_and_opens_without_the_autoencoder(self, folder, tmp_path):
        codec = KLLatents(config(folder))
        codec.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [KL_FILE]
        again = KLLatents.load(tmp_path / KL_FILE, config(folder))
        assert torch.equal(again.encode(pictures()), codec.encode(pictures()))
        away = KLLatents.load(tmp_path / KL_FILE, config("/nowhere"))
        assert away.describe()["weights"] == codec.describe()["weights"]
        with pytest.raises(CorruptFile, match="holds no autoencoder that opens"):
            away.encode(pictures())

    def test_another_autoencoder_is_refused(self, folder):
        with pytest.raises(SettingsMismatch, match="not the one that this tokenizer"):
            KLLatents(config(folder), "0" * 64).encode(pictures())

    def test_other_sizes_are_refused(self, folder):
        with pytest.raises(SettingsMismatch, match="makes 16 channels of 16 pixels"):
            KLLatents(config(folder, channels=4)).encode(pictures())

    def test_no_autoencoder_at_all(self, tmp_path):
        with pytest.raises(MissingStage, match="convert-vae"):
            KLLatents(config(tmp_path)).describe()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"side": 100}, "multiple of downsample"),
            ({"scale": 0.0}, "scale"),
            ({"vae": " "}, "vae"),
        ],
    )
    def test_settings_that_cannot_work(self, folder, changes, message):
        with pytest.raises(BadConfig, match=re.escape(message)):
            config(folder, **changes)
