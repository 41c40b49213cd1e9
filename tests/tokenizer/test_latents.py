"""Patch-PCA: a change of basis, so nothing is lost where all of it is kept."""

import numpy as np
import pytest
import torch
from PIL import Image

from utgrec.errors import BadConfig
from utgrec.tokenizer.latents import LATENTS_FILE, LatentsConfig, PatchPCA

ALL = LatentsConfig(side=16, patch=4, channels=48)


def pictures(count=12, size=16, seed=0):
    """Noise on colour ramps: no component is empty."""
    rng = np.random.default_rng(seed)
    ramps = np.linspace(0, 128, size)[None, :, None] * rng.random((count, 1, 1, 3))
    return [Image.fromarray((ramp + rng.integers(0, 127, (size, size, 3))).astype(np.uint8))
            for ramp in ramps]  # fmt: skip


def arrays(images):
    """Pixels, (B, side, side, 3)."""
    return np.stack([np.asarray(image) for image in images]).astype(int)


def test_with_all_channels_nothing_is_lost():
    codec = PatchPCA.fit(pictures(), ALL)
    others = pictures(seed=1)
    assert np.abs(arrays(codec.decode(codec.encode(others))) - arrays(others)).max() <= 1


def test_fewer_channels_are_a_projection():
    """Encoding what was decoded gives the same latents again, up to the rounding of pixels."""
    whole, few = PatchPCA.fit(pictures(), ALL), PatchPCA.fit(
        pictures(), LatentsConfig(side=16, patch=4, channels=8)
    )  # fmt: skip
    torch.testing.assert_close(few.encode(pictures()), whole.encode(pictures())[..., :8],
                               atol=1e-4, rtol=1e-4)  # fmt: skip
    latents = few.encode(pictures())
    again = few.encode(few.decode(latents))
    assert (again - latents).abs().max() < 0.1
    lost = [
        np.square(arrays(codec.decode(codec.encode(pictures()))) - arrays(pictures())).mean()
        for codec in (
            PatchPCA.fit(pictures(), LatentsConfig(side=16, patch=4, channels=channels))
            for channels in (1, 8, 24, 48)
        )
    ]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 100 * lost[-1]


def test_channels_are_white():
    latents = PatchPCA.fit(pictures(40), ALL).encode(pictures(40)).flatten(0, 1)
    torch.testing.assert_close(latents.mean(dim=0), torch.zeros(48), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(latents.T, correction=0), torch.eye(48), atol=1e-2, rtol=0)


def test_it_is_deterministic_and_survives_saving(tmp_path):
    codec, again = PatchPCA.fit(pictures(), ALL), PatchPCA.fit(pictures(), ALL)
    codec.save(tmp_path)
    read = PatchPCA.load(tmp_path / LATENTS_FILE, ALL)
    for other in (again, read):
        assert torch.equal(codec.encode(pictures()), other.encode(pictures()))


def test_a_picture_does_not_depend_on_the_others():
    codec = PatchPCA.fit(pictures(), ALL)
    together = codec.encode(pictures())
    torch.testing.assert_close(codec.encode(pictures()[3:4])[0], together[3], atol=1e-5, rtol=1e-5)


def test_patches_are_read_row_by_row():
    """One white patch in the second row, third column of four is latent 6."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[4:8, 8:12] = 255
    codec = PatchPCA(ALL, torch.zeros(48), torch.eye(48), torch.ones(48))
    latents = codec.encode([Image.fromarray(pixels)])[0]
    assert latents.mean(dim=1).tolist() == [1.0 if patch == 6 else -1.0 for patch in range(16)]
    assert np.array_equal(np.asarray(codec.decode(latents[None])[0]), pixels)


def test_any_size_becomes_the_same_grid():
    codec = PatchPCA.fit(pictures(), ALL)
    shapes = [Image.new("RGB", size, "red") for size in ((16, 16), (5, 90), (200, 31))]
    latents = codec.encode(shapes)
    assert latents.shape == (3, 16, 48)
    torch.testing.assert_close(latents[1], latents[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("shown", [0, 1])
def test_few_pictures_are_fine(shown):
    codec = PatchPCA.fit(pictures()[:shown], LatentsConfig(side=16, patch=4, channels=20))
    assert torch.isfinite(codec.encode(pictures())).all()
    assert codec.components.shape == (20, 48)


def test_one_colour_everywhere_is_fine():
    white = [Image.new("RGB", (16, 16), "white")] * 3
    codec = PatchPCA.fit(white, ALL)
    assert codec.encode(white).abs().max() < 0.1
    assert np.abs(arrays(codec.decode(codec.encode(white))) - 255).max() <= 1


@pytest.mark.parametrize(
    "settings",
    [{"side": 20, "patch": 16}, {"channels": 0}, {"patch": 2, "side": 4, "channels": 13}],
)
def test_sizes_that_do_not_fit_are_refused(settings):
    with pytest.raises(BadConfig, match=r"multiple of patch|channels is between"):
        LatentsConfig(**settings)
