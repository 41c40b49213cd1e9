"""Turn the published KL-16 checkpoint into a folder of diffusers' AutoencoderKL, once.

The checkpoint of MAR and LDM is a pickle; it is read with `weights_only=True`, so nothing in it is
ever run. Sizes follow from the shapes of its weights; names are translated one by one, and none may
be left over.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utgrec import storage
from utgrec.errors import CorruptFile, MissingDependency, MissingStage

# MAR's constant for KL-16; brings latents to about unit variance.
SCALE = 0.2325
PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
# Of one attention or residual block: name there → name here.
INSIDE = {
    "norm.": "group_norm.",
    "q.": "to_q.",
    "k.": "to_k.",
    "v.": "to_v.",
    "proj_out.": "to_out.0.",
    "nin_shortcut.": "conv_shortcut.",
}
OUTSIDE = {"norm_out.": "conv_norm_out.", "conv_in.": "conv_in.", "conv_out.": "conv_out."}


def convert_vae(checkpoint: Path, out: Path) -> dict[str, Any]:
    """Write a checkpoint of LDM's autoencoder as an AutoencoderKL folder; returns its settings.

    Raises:
        MissingStage: there is no such file.
        CorruptFile: not a checkpoint of such an autoencoder, cut short, or with weights left over.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise MissingDependency(
            "a pretrained autoencoder needs diffusers: pip install diffusers"
        ) from error
    weights = read_checkpoint(checkpoint)
    try:
        settings = find_settings(weights)
    except (KeyError, IndexError, ValueError) as error:
        raise CorruptFile(
            f"{checkpoint} holds no autoencoder of LDM or MAR (no {error}); kl16.ckpt of MAR is one"
        ) from error
    model = AutoencoderKL(**settings)
    levels = len(settings["block_out_channels"])
    renamed = {rename(name, levels): value for name, value in weights.items()}
    for name, value in renamed.items():
        if ".attentions." in name and value.ndim == 4:  # 1 × 1 convolutions there, matrices here
            renamed[name] = value[:, :, 0, 0]
    try:
        model.load_state_dict({name: value.float() for name, value in renamed.items()})
    except RuntimeError as error:
        raise CorruptFile(
            f"{checkpoint} is not the autoencoder its shapes promise: {str(error).splitlines()[-1]}"
        ) from error
    with storage.new_folder(out) as partial:
        model.save_pretrained(partial, safe_serialization=True)
    return settings


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The autoencoder's weights by their names in the checkpoint.

    Raises:
        MissingStage: there is no such file.
        CorruptFile: not a checkpoint, cut short, or one that holds more than weights.
    """
    if not path.is_file():
        raise MissingStage(f"{path} does not exist; kl16.ckpt comes from the authors of MAR")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    # What a broken pickle raises depends on where it breaks.
    except Exception as error:
        whole = zipfile.is_zipfile(path)
        what = "holds more than weights" if whole else "is cut short, or no checkpoint"
        raise CorruptFile(
            f"{path} {what} ({type(error).__name__}); nothing in it was run. Take the file that "
            "the authors published"
        ) from error
    while isinstance(values, dict) and not any(isinstance(v, Tensor) for v in values.values()):
        inner = values.get("model", values.get("state_dict"))
        if inner is None:
            break
        values = inner
    if not isinstance(values, dict):
        raise CorruptFile(f"{path} holds a {type(values).__name__}, not weights by name")
    # Discriminators and the like, which only their training needs, are left out.
    return {
        str(name): value
        for name, value in values.items()
        if isinstance(value, Tensor) and str(name).startswith(PARTS)
    }


def find_settings(weights: dict[str, Tensor]) -> dict[str, Any]:
    """The settings of AutoencoderKL that fit the shapes of some weights."""
    levels = 1 + max(int(m[1]) for m in _matches(r"encoder\.down\.(\d+)\.", weights))
    widths = [
        int(weights[f"encoder.down.{i}.block.0.conv1.weight"].shape[0]) for i in range(levels)
    ]
    attention = [f"encoder.down.{i}.attn.0.q.weight" in weights for i in range(levels)]
    blocks = 1 + max(int(m[1]) for m in _matches(r"encoder\.down\.0\.block\.(\d+)\.", weights))
    return {
        "in_channels": int(weights["encoder.conv_in.weight"].shape[1]),
        "out_channels": int(weights["decoder.conv_out.weight"].shape[0]),
        "latent_channels": int(weights["post_quant_conv.weight"].shape[1]),
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "down_block_types": [
            "AttnDownEncoderBlock2D" if there else "DownEncoderBlock2D" for there in attention
        ],
        "up_block_types": [
            "AttnUpDecoderBlock2D" if there else "UpDecoderBlock2D" for there in attention[::-1]
        ],
        "sample_size": 16 * 2 ** (levels - 1),
        "scaling_factor": SCALE,
    }


def rename(name: str, levels: int) -> str:
    """The name that a weight of LDM has in diffusers.

    Raises:
        CorruptFile: no such weight is known.
    """
    part, _, rest = name.partition(".")
    if part in ("quant_conv", "post_quant_conv"):
        return name
    for old, new in OUTSIDE.items():
        if rest.startswith(old):
            return f"{part}.{new}{rest.removeprefix(old)}"
    if found := re.fullmatch(r"mid\.(block|attn)_(\d)\.(.+)", rest):
        kind = "resnets" if found[1] == "block" else "attentions"
        return f"{part}.mid_block.{kind}.{int(found[2]) - 1}.{_inside(found[3])}"
    if found := re.fullmatch(r"(down|up)\.(\d+)\.(block|attn)\.(\d+)\.(.+)", rest):
        kind = "resnets" if found[3] == "block" else "attentions"
        level = _level(found[1], int(found[2]), levels)
        return f"{part}.{found[1]}_blocks.{level}.{kind}.{found[4]}.{_inside(found[5])}"
    if found := re.fullmatch(r"(down|up)\.(\d+)\.(downsample|upsample)\.(.+)", rest):
        level = _level(found[1], int(found[2]), levels)
        return f"{part}.{found[1]}_blocks.{level}.{found[3]}rs.0.{found[4]}"
    raise CorruptFile(f"the checkpoint has a weight {name!r} that no KL autoencoder of LDM has")


def _level(direction: str, level: int, levels: int) -> int:
    """LDM counts the decoder's levels from the finest, diffusers in the order they run."""
    return level if direction == "down" else levels - 1 - level


def _inside(name: str) -> str:
    for old, new in INSIDE.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _matches(pattern: str, names: dict[str, Tensor]) -> Iterator[re.Match[str]]:
    return (found for name in names if (found := re.match(pattern, name)))
