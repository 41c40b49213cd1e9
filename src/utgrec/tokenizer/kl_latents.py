"""Picture latents of a pretrained autoencoder, such as the KL-16 of MAR and LDM.

The autoencoder is a folder of diffusers' `AutoencoderKL`; `kl_convert.py` makes one out of the
published `kl16.ckpt`. It is named, not copied: only training needs it.

Shapes: B pictures · G latents of a picture · C latent channels.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from utgrec import storage
from utgrec.config import require
from utgrec.errors import CorruptFile, MissingDependency, MissingStage, SettingsMismatch
from utgrec.precision import own_device
from utgrec.tokenizer.backbone_source import fingerprint_folder
from utgrec.tokenizer.latents import SquareCodec

KL_FILE = "autoencoder.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KLLatentsConfig:
    """An autoencoder and how its latents are used."""

    vae: str
    """Folder of a diffusers AutoencoderKL (`utgrec tokenizer convert-vae` makes one)."""
    side: int = 256
    """Pictures are resized to side × side pixels."""
    channels: int = 16
    """Channels of a latent, C."""
    downsample: int = 16
    """Pixels per latent in each direction; 256 pixels become 16 × 16 latents."""
    scale: float = 0.2325
    """Latents are multiplied by this, which brings those of KL-16 to unit variance (MAR)."""

    def __post_init__(self) -> None:
        require(bool(self.vae.strip()), "vae is the folder of an autoencoder, got none")
        require(
            self.side % self.downsample == 0,
            f"side must be a multiple of downsample, got {self.side} and {self.downsample}",
        )
        require(self.channels >= 1, f"channels must be at least 1, got {self.channels}")
        require(self.scale > 0, f"scale must be above 0, got {self.scale}")

    @property
    def grid(self) -> int:
        """Latents per picture, G."""
        return (self.side // self.downsample) ** 2


class KLLatents(SquareCodec):
    """Pictures to the means of their posterior, and back; the autoencoder opens when it is used."""

    config: KLLatentsConfig

    def __init__(self, config: KLLatentsConfig, fingerprint: str = "") -> None:
        """`fingerprint` is that of the autoencoder it was trained with; "" takes any."""
        self.config = config
        self.fingerprint = fingerprint
        self._model: Any = None

    @property
    def dtype(self) -> torch.dtype:
        """Type in which latents are kept: rounding in float16 is far below their noise."""
        return torch.float16

    @torch.no_grad()
    def encode_prepared(self, pixels: Tensor) -> Tensor:
        """Latents of square pictures. Shapes: (B, side, side, 3) → (B, G, C), float16."""
        model = self._opened()
        values = pixels.to(model.device).float().permute(0, 3, 1, 2) / 127.5 - 1
        # The mean of the posterior, not a draw: the same picture has the same latents every time.
        latents = model.encode(values).latent_dist.mode() * self.config.scale  # (B, C, h, w)
        out: Tensor = latents.flatten(2).transpose(1, 2).to(self.dtype)
        return out

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of latents: (B, G, C) → B pictures."""
        model, side = self._opened(), self.config.side // self.config.downsample
        values = latents.to(model.device).float().transpose(1, 2)  # (B, C, G)
        grid = values.reshape(len(values), -1, side, side)
        pixels = model.decode(grid / self.config.scale).sample.clamp(-1, 1)
        shown = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(value) for value in shown]

    def describe(self) -> dict[str, Any]:
        """Everything that latents depend on, beside the picture."""
        self._check()
        return {
            "codec": "kl",
            "side": self.config.side,
            "scale": self.config.scale,
            "weights": self.fingerprint,
        }

    def save(self, folder: Path) -> None:
        """Write which autoencoder it is; the autoencoder itself is not copied."""
        self._check()
        storage.write_json(folder / KL_FILE, {"fingerprint": self.fingerprint})

    @classmethod
    def load(cls, path: Path, config: KLLatentsConfig) -> "KLLatents":
        """The inverse of `save`; the autoencoder may be absent until latents are asked for."""
        return cls(config, str(storage.read_json(path)["fingerprint"]))

    def _check(self) -> None:
        folder = Path(self.config.vae).expanduser()
        if not self._present(folder):
            if self.fingerprint:
                return  # named by what it was opened from
            raise MissingStage(
                f"{folder} holds no autoencoder (config.json and "
                "diffusion_pytorch_model.safetensors); make it with utgrec tokenizer convert-vae"
            )
        found = fingerprint_folder(folder, "diffusion_pytorch_model.safetensors")
        if self.fingerprint and found != self.fingerprint:
            raise SettingsMismatch(
                f"the autoencoder {folder} is not the one that this tokenizer was trained with; "
                "give that one, or train a new tokenizer"
            )
        self.fingerprint = found

    @staticmethod
    def _present(folder: Path) -> bool:
        names = ("config.json", "diffusion_pytorch_model.safetensors")
        return all((folder / name).is_file() for name in names)

    def _opened(self) -> Any:
        if self._model is None:
            try:
                from diffusers import AutoencoderKL
            except ImportError as error:
                raise MissingDependency(
                    "a pretrained autoencoder needs diffusers: pip install diffusers"
                ) from error
            self._check()
            folder = Path(self.config.vae).expanduser()
            try:
                model = AutoencoderKL.from_pretrained(
                    folder, use_safetensors=True, low_cpu_mem_usage=False
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise CorruptFile(f"{folder} holds no autoencoder that opens ({error})") from error
            factor = 2 ** (len(model.config.block_out_channels) - 1)
            made = (int(model.config.latent_channels), factor)
            asked = (self.config.channels, self.config.downsample)
            if made != asked:
                raise SettingsMismatch(
                    f"the autoencoder {folder} makes {made[0]} channels of {made[1]} pixels, the "
                    f"settings ask for {asked[0]} of {asked[1]}"
                )
            self._model = model.eval().requires_grad_(False).to(own_device())
        return self._model
