"""Picture latents without a download: principal components of the catalogue's own patches.

Closed form and deterministic. A picture is resized to a square, cut into patches, and each patch
becomes C whitened components, so that a diffusion head can learn them at unit variance.

Shapes: B pictures · G patches of a picture · C latent channels.
"""

import abc
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from utgrec.config import require

LATENTS_FILE = "latents.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """Sizes of the patch-PCA codec."""

    side: int = 64
    """Pictures are resized to side × side pixels."""
    patch: int = 16
    """Patches are patch × patch pixels."""
    channels: int = 16
    """Components kept per patch, C."""
    fit_pictures: int = 2000
    """Components are fitted on at most so many pictures, evenly spread over the catalogue."""

    def __post_init__(self) -> None:
        require(self.side % self.patch == 0, f"side must be a multiple of patch, got {self}")
        require(
            1 <= self.channels <= 3 * self.patch**2,
            f"channels is between 1 and {3 * self.patch**2}, got {self.channels}",
        )

    @property
    def grid(self) -> int:
        """Latents per picture, G."""
        return (self.side // self.patch) ** 2


class Codec(Protocol):
    """Pictures to latents, frozen: what the image decoder learns to rebuild."""

    @property
    def grid(self) -> int:
        """Latents per picture, G."""

    @property
    def channels(self) -> int:
        """Numbers of a latent, C."""

    @property
    def dtype(self) -> torch.dtype:
        """Type in which latents are kept."""

    def prepare(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Pixels, in any form that `encode_prepared` reads; touches no weights."""

    def encode_prepared(self, pixels: Tensor) -> Tensor:
        """Latents of prepared pictures: (B, G, C)."""

    def describe(self) -> dict[str, Any]:
        """Everything that latents depend on, beside the picture."""

    def save(self, folder: Path) -> None:
        """Write what is needed to open it again."""


class Sizes(Protocol):
    """What codecs of square pictures are configured with."""

    @property
    def side(self) -> int:
        """Pictures are resized to side × side pixels."""

    @property
    def channels(self) -> int:
        """Numbers of a latent, C."""

    @property
    def grid(self) -> int:
        """Latents per picture, G."""


class SquareCodec(abc.ABC):
    """What codecs have in common that make pictures square first."""

    config: Sizes

    @property
    def grid(self) -> int:
        """Latents per picture, G."""
        return self.config.grid

    @property
    def channels(self) -> int:
        """Numbers of a latent, C."""
        return self.config.channels

    def prepare(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Pixels of pictures made square: (B, side, side, 3), uint8."""
        return square_pixels(pictures, self.config.side)

    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Latents of pictures: (B, G, C)."""
        return self.encode_prepared(self.prepare(pictures))

    @abc.abstractmethod
    def encode_prepared(self, pixels: Tensor) -> Tensor:
        """Latents of square pictures. Shapes: (B, side, side, 3) → (B, G, C)."""


class PatchPCA(SquareCodec):
    """Pictures to latents and back."""

    config: LatentsConfig

    def __init__(self, config: LatentsConfig, mean: Tensor, components: Tensor, scale: Tensor):
        self.config = config
        self.mean = mean  # (P,), P = 3 · patch²
        self.components = components  # (C, P), orthonormal rows
        self.scale = scale  # (C,), standard deviation along each component

    @classmethod
    def fit(cls, pictures: Sequence[Image.Image], config: LatentsConfig) -> "PatchPCA":
        """Find the components of the patches of some pictures.

        Without pictures the components are the first pixels: nothing will be encoded anyway.
        """
        size = 3 * config.patch**2
        if not pictures:
            eye = torch.eye(size)[: config.channels]
            return cls(config, torch.zeros(size), eye, torch.ones(config.channels))
        pixels = square_pixels(pictures, config.side)
        patches = _patches(pixels, config).flatten(0, 1).double()  # (B·G, P)
        mean = patches.mean(dim=0)
        variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        vectors = vectors.flip(1)[:, : config.channels]
        # An eigenvector's sign is arbitrary; the largest entry is made positive, so runs agree.
        largest = vectors.abs().argmax(dim=0)
        vectors = vectors * vectors[largest, torch.arange(vectors.shape[1])].sign()
        scale = variances.flip(0)[: config.channels].clamp(min=1e-8).sqrt()
        return cls(config, mean.float(), vectors.T.float().contiguous(), scale.float())

    @property
    def dtype(self) -> torch.dtype:
        """Type in which latents are kept."""
        return torch.float32

    def encode_prepared(self, pixels: Tensor) -> Tensor:
        """Latents of square pictures. Shapes: (B, side, side, 3) → (B, G, C), float32."""
        return (_patches(pixels, self.config) - self.mean) @ self.components.T / self.scale

    def describe(self) -> dict[str, Any]:
        """Everything that latents depend on, beside the picture."""
        digest = hashlib.sha256()
        for tensor in (self.mean, self.components, self.scale):
            digest.update(tensor.contiguous().numpy().tobytes())
        return {"codec": "patch-pca", "side": self.config.side, "weights": digest.hexdigest()}

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of latents, the inverse of `encode` up to what C components can hold."""
        patches = (latents * self.scale) @ self.components + self.mean  # (B, G, P)
        n, patch = self.config.side // self.config.patch, self.config.patch
        pixels = (
            patches.view(-1, n, n, patch, patch, 3)
            .transpose(2, 3)
            .reshape(-1, n * patch, n * patch, 3)
        )
        values = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        return [Image.fromarray(value) for value in values]

    def save(self, folder: Path) -> None:
        """Write the codec as safetensors; its configuration is kept with the tokenizer's."""
        tensors = {"mean": self.mean, "components": self.components, "scale": self.scale}
        save_file(tensors, folder / LATENTS_FILE)

    @classmethod
    def load(cls, path: Path, config: LatentsConfig) -> "PatchPCA":
        """The inverse of `save`."""
        tensors = load_file(path)
        return cls(config, tensors["mean"], tensors["components"], tensors["scale"])


def square_pixels(pictures: Sequence[Image.Image], side: int) -> Tensor:
    """Pictures resized to squares, whatever their shape: (B, side, side, 3), uint8."""
    size = (side, side)
    pixels = [np.asarray(p.resize(size, Image.Resampling.BICUBIC)) for p in pictures]
    return torch.from_numpy(np.stack(pixels))


def _patches(pixels: Tensor, config: LatentsConfig) -> Tensor:
    """Pixels in [-1, 1], patch by patch: (B, G, 3·patch²)."""
    values = pixels.float() / 127.5 - 1  # (B, side, side, 3)
    n, patch = config.side // config.patch, config.patch
    cut = values.view(-1, n, patch, n, patch, 3).transpose(2, 3)  # (B, n, n, patch, patch, 3)
    return cut.reshape(len(pixels), n * n, -1)
