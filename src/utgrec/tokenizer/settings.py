"""Everything that makes a tokenizer, and what of it may differ between two that share weights."""

import dataclasses
from typing import Any

from utgrec.config import require, to_dict
from utgrec.errors import BadConfig
from utgrec.tokenizer.backbone_config import MachineSettings, PretrainedBackboneConfig
from utgrec.tokenizer.batches import PartnersConfig, batches_per_epoch
from utgrec.tokenizer.company import CompanyConfig
from utgrec.tokenizer.kl_latents import KLLatentsConfig
from utgrec.tokenizer.latents import LatentsConfig
from utgrec.tokenizer.model import HeadsConfig, LossWeights
from utgrec.tokenizer.quantizer import QuantizerConfig
from utgrec.tokenizer.tiny import TinyBackboneConfig
from utgrec.training.trainer import TrainerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Everything that makes a tokenizer."""

    backbone: TinyBackboneConfig | PretrainedBackboneConfig
    """The embedded backbone, or a pretrained one."""
    quantizer: QuantizerConfig
    """Codebooks and code length."""
    heads: HeadsConfig
    """Projection and decoders."""
    latents: LatentsConfig | KLLatentsConfig
    """Picture latents: principal components of patches, or a pretrained autoencoder."""
    weights: LossWeights
    """Weights of the losses."""
    trainer: TrainerConfig
    """How it is trained; a step is one batch."""
    company: CompanyConfig = dataclasses.field(default_factory=CompanyConfig)
    """How the log helps to tell what an item is."""
    partners: PartnersConfig = dataclasses.field(default_factory=PartnersConfig)
    """How items that are taken together meet in a batch."""
    batch_size: int = 128
    """Items per batch of all processes together, partners included."""
    epochs: float = 0.0
    """Times that every trained item is an anchor; the trainer's steps are then the most that are
    done. 0 leaves it to the steps alone."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        require(self.epochs >= 0, f"epochs must be at least 0, got {self.epochs}")
        require(
            self.quantizer.warmup_steps < self.trainer.steps,
            f"the quantiser's warmup_steps ({self.quantizer.warmup_steps}) must be fewer than the "
            f"trainer's steps ({self.trainer.steps}): codebooks are placed after the warm-up",
        )


def training_steps(config: TokenizerConfig, trained: int) -> int:
    """Optimiser steps that a configuration does on so many trained items."""
    if not config.epochs:
        return config.trainer.steps
    epoch = batches_per_epoch(config.batch_size, trained)
    return min(config.trainer.steps, round(config.epochs * epoch))


def why_too_short(config: TokenizerConfig, trained: int) -> str:
    """Why so many trained items are too few for a configuration; empty if they are not."""
    steps, warmup = training_steps(config, trained), config.quantizer.warmup_steps
    if not config.epochs or steps > warmup:
        return ""
    return (
        f"{config.epochs:g} epochs of {batches_per_epoch(config.batch_size, trained)} batches are "
        f"{steps} steps, not more than the {warmup} of the quantiser's warm-up; train longer, or "
        "take a recipe for smaller catalogues"
    )


def recorded(config: TokenizerConfig) -> dict[str, Any]:
    """A configuration as stages record it: without what this machine alone decides."""
    backbone = config.backbone
    if isinstance(backbone, PretrainedBackboneConfig):
        backbone = dataclasses.replace(backbone, machine=MachineSettings())
    return to_dict(dataclasses.replace(config, backbone=backbone))


def with_backbone(config: TokenizerConfig, name: str) -> TokenizerConfig:
    """The same configuration with another pretrained model, or with the same one elsewhere.

    Raises:
        BadConfig: it has a small model of its own.
    """
    backbone = config.backbone
    if not isinstance(backbone, PretrainedBackboneConfig):
        raise BadConfig(
            f"a backbone ({name}) was given to a tokenizer that makes a small one of its own; "
            "leave it out, or take the recipe small or paper_pretrain"
        )
    return dataclasses.replace(config, backbone=dataclasses.replace(backbone, name=name))


def with_vae(config: TokenizerConfig, folder: str) -> TokenizerConfig:
    """The same configuration with the latents of a picture autoencoder, which is in a folder."""
    latents = config.latents
    if isinstance(latents, KLLatentsConfig):
        return dataclasses.replace(config, latents=dataclasses.replace(latents, vae=folder))
    return dataclasses.replace(config, latents=KLLatentsConfig(vae=folder))


def different_network(one: TokenizerConfig, other: TokenizerConfig) -> list[str]:
    """What two configurations would not share: shapes of weights and meaning of codes.

    Losses, training and how codebooks learn are left out; they may change from stage to stage.
    """
    was, now = _network(one), _network(other)
    return [
        f"{name}: {was.get(name)!r} there, {now.get(name)!r} asked"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]


def _network(config: TokenizerConfig) -> dict[str, Any]:
    values = to_dict(config)
    sections = {name: values[name] for name in ("backbone", "heads", "latents")}
    if isinstance(config.backbone, PretrainedBackboneConfig):
        # The base itself is recognised by its fingerprint, wherever it lies and in any type.
        free = ("name", "revision", "dtype", "machine")
        sections["backbone"] = {
            name: value for name, value in values["backbone"].items() if name not in free
        }
    if isinstance(config.latents, KLLatentsConfig):
        sections["latents"] = {**values["latents"], "vae": "an autoencoder"}
    sections["company"] = {name: values["company"][name] for name in ("rank", "window")}
    sections["quantizer"] = {
        name: values["quantizer"][name]
        for name in ("kind", "tree", "root_size", "leaf_size", "code_length", "dim")
    }
    return {
        f"{name}.{key}": value for name, part in sections.items() for key, value in part.items()
    }
