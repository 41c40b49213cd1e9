"""What training a tokenizer will take, worked out before anything starts.

Parameters are counted on the layers themselves, without their memory. Tokens are counted on a
sample of the items. Work and memory are formulas; hours are the work divided by what the device is
said, or on a CPU measured, to do.

Shapes: S prompt tokens · T text tokens · G latents of a picture · H backbone width · V vocabulary.
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from utgrec.catalog import Domain
from utgrec.config import require
from utgrec.data.split import split_domain
from utgrec.precision import own_device, uses_bf16
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.tokenizer.backbone_source import find_source
from utgrec.tokenizer.diffusion import DiffusionHead
from utgrec.tokenizer.families.family import Family
from utgrec.tokenizer.features import summary_width
from utgrec.tokenizer.kl_latents import KLLatentsConfig
from utgrec.tokenizer.outline import (
    Counted,
    count_tokens,
    frozen_parameters,
    outline,
    trained_parameters,
)
from utgrec.tokenizer.quantizer import TreeQuantizer
from utgrec.tokenizer.reconstruction import ImageDecoder, TextDecoder
from utgrec.tokenizer.settings import TokenizerConfig, training_steps, why_too_short
from utgrec.tokenizer.tiny import TinyBackboneConfig

Rows = npt.NDArray[np.int64]
SAMPLE = 2000  # items whose words and pictures are counted
CHARACTERS_PER_TOKEN = 4.0  # of English product texts, where no text tokenizer is at hand
FRAME_TOKENS = 24  # instruction and the marks around a picture, at most
UTILISATION = 0.4  # share of a GPU's peak that training reaches
# Dense bfloat16 peak in TFLOP/s, as the makers state it.
PEAK_TFLOPS = {
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "L40": 181,
    "4090": 165,
    "L4": 121,
    "3090": 71,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a backbone that its work follows from."""

    hidden: int
    """Width, H."""
    layers: int
    """Layers of the language model."""
    feed_forward: int
    """Width of the gated feed-forward."""
    key_value: int
    """Width of keys, and of values."""
    vocabulary: int
    """Entries of the vocabulary, V."""
    vision: int
    """Parameters of the frozen vision tower."""

    @property
    def linears(self) -> list[tuple[int, int]]:
        """In and out of every Linear of a layer."""
        wide, kv, feed = self.hidden, self.key_value, self.feed_forward
        gate = [(wide, feed), (wide, feed), (feed, wide)]
        return [(wide, wide), (wide, kv), (wide, kv), (wide, wide), *gate]

    @property
    def language(self) -> int:
        """Parameters of the language model that work on every token."""
        return self.layers * sum(one * other for one, other in self.linears)

    @property
    def frozen(self) -> int:
        """Parameters of a Qwen2-like model with its word vectors, norms and vision tower."""
        norms = self.layers * (3 * self.hidden + 2 * self.key_value) + self.hidden
        return self.language + norms + self.vocabulary * self.hidden + self.vision


# So that a plan can be made before a model of four gigabytes is fetched.
KNOWN = {
    "Qwen/Qwen2-VL-2B-Instruct": Shape(
        hidden=1536, layers=28, feed_forward=8960, key_value=256, vocabulary=151_936,
        vision=665_000_000,
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What training a tokenizer will take."""

    items_trained: int
    """Items that occur in training histories."""
    steps: int
    """Optimiser steps."""
    refused: str
    """Why the training would be refused; empty if it would not be."""
    parameters_trained: int
    """Parameters that gradients move."""
    parameters_frozen: int
    """Parameters of the backbone that stay as they are."""
    tokens_per_item: float
    """Mean prompt length: picture, words, instruction and code queries (tokens)."""
    cache_gib: float
    """Picture features and latents that are kept (GiB)."""
    memory_gib: float
    """Peak memory of one process while training (GiB)."""
    gflop_per_item: float
    """Work of one item in one step (10⁹ floating-point operations)."""
    device: str
    """What the hours are for."""
    tflops: float
    """What it is taken to do (10¹² operations per second, of all processes together)."""
    hours: float
    """Hours of training, without reading the pictures."""


def estimate_tokenizer(
    config: TokenizerConfig,
    domains: Sequence[Domain],
    *,
    processes: int = 1,
    tflops: float | None = None,
) -> Estimate:
    """Work out what `train_tokenizer` will take with this configuration on these domains.

    Args:
        processes: devices that train together.
        tflops: what one device does, in 10¹² operations per second; None is looked up or measured.
    """
    require(tflops is None or tflops > 0, f"tflops must be above 0, got {tflops}")
    rows = [np.unique(split_domain(domain).train).astype(np.int64) for domain in domains]
    trained = sum(map(len, rows))
    family = outline(config, _texts(domains, rows))
    shape = backbone_shape(config, family)
    counted = _count(config, family, domains, rows)
    steps = training_steps(config, trained)
    refused = why_too_short(config, trained)
    heads = _heads(config, shape)
    parameters = sum(value.numel() for part in heads for value in part.parameters())
    parameters += _adapters(config, shape) if family is None else trained_parameters(family, config)
    frozen = shape.frozen if family is None else frozen_parameters(family, config)
    catalogs = [domain.catalog for domain in domains]
    # None of them where the backbone reads none.
    reads = counted.picture > 0
    pictures = sum(path is not None for catalog in catalogs for path in catalog.images) * reads
    shown = pictures / max(1, sum(map(len, catalogs)))
    length = counted.words + counted.picture * shown + counted.frame + config.quantizer.code_length
    work = _work(config, shape, length, counted.words, shown, heads)
    base = _weights_dtype(config, elsewhere=tflops is not None)
    device, speed = _speed(tflops, _multiplied_in(config, base))
    items = steps * config.batch_size
    width = shape.hidden if family is None else family.feature_width
    kept = pictures * _cache_bytes(config, width * counted.picture, base)
    weights = frozen * base.itemsize + 16 * parameters
    return Estimate(
        items_trained=trained,
        steps=steps,
        refused=refused,
        parameters_trained=parameters,
        parameters_frozen=frozen,
        tokens_per_item=round(length, 1),
        cache_gib=_shown(kept / 2**30),
        memory_gib=_shown((weights + _activations(config, shape, length, processes)) / 2**30),
        gflop_per_item=_shown(work / 1e9),
        device=device if processes == 1 else f"{processes} × {device}",
        tflops=round(speed * processes, 4),
        hours=_shown(items * work / (speed * processes * 1e12) / 3600),
    )


def backbone_shape(config: TokenizerConfig, family: Family | None) -> Shape:
    """Sizes of a configuration's backbone: as its outline says, or as they are known.

    Raises:
        MissingStage: neither.
    """
    backbone = config.backbone
    if family is not None:
        return _read_shape(family)
    assert isinstance(backbone, PretrainedBackboneConfig)
    if backbone.name in KNOWN:
        return KNOWN[backbone.name]
    find_source(backbone.name, backbone.revision, weights=False)  # says what is missing
    raise AssertionError("an outline would have been made")


def _read_shape(family: Family) -> Shape:
    text = family.model.config.get_text_config()
    heads = getattr(text, "num_attention_heads", 1)
    return Shape(
        hidden=family.hidden_size,
        layers=text.num_hidden_layers,
        feed_forward=text.intermediate_size,
        key_value=text.hidden_size * getattr(text, "num_key_value_heads", heads) // heads,
        vocabulary=len(family.embeddings),
        vision=sum(value.numel() for part in family.frozen for value in part.parameters()),
    )


def _texts(domains: Sequence[Domain], rows: Sequence[Rows]) -> list[str]:
    """Words of trained items: what the vocabulary of an embedded backbone is trained on."""
    return [
        domain.catalog.texts[row] for domain, own in zip(domains, rows, strict=True) for row in own
    ]


def _count(
    config: TokenizerConfig, family: Family | None, domains: Sequence[Domain], rows: Sequence[Rows]
) -> Counted:
    """Tokens of trained items, on a sample; what they are at most where nothing can be counted."""
    every = max(1, -(-sum(map(len, rows)) // SAMPLE))
    if family is not None:
        catalogs = [domain.catalog for domain in domains]
        return count_tokens(family, config, catalogs, [own[::every] for own in rows])
    texts, most = _texts(domains, rows)[::every], config.heads.max_text_tokens
    words = np.mean([min(most, len(text) / CHARACTERS_PER_TOKEN) for text in texts] or [0.0])
    return Counted(float(words), _picture_tokens(config), FRAME_TOKENS / 2)


def _picture_tokens(config: TokenizerConfig) -> float:
    backbone = config.backbone
    assert isinstance(backbone, PretrainedBackboneConfig)
    return backbone.max_pixels / (28 * 28) if backbone.pictures else 0.0


def _weights_dtype(config: TokenizerConfig, *, elsewhere: bool) -> torch.dtype:
    """Type of the backbone's own weights: on this machine, or on one made for bfloat16."""
    backbone = config.backbone
    if not isinstance(backbone, PretrainedBackboneConfig):
        return torch.float32
    if elsewhere and backbone.dtype == "auto":
        return torch.bfloat16
    return backbone.weights_dtype(own_device())


def _multiplied_in(config: TokenizerConfig, base: torch.dtype) -> torch.dtype:
    """What this machine multiplies in training; weights that are narrow are multiplied so."""
    narrow = uses_bf16(config.trainer.precision, own_device())
    return torch.bfloat16 if narrow and base == torch.float32 else base


def _heads(config: TokenizerConfig, shape: Shape) -> list[nn.Module]:
    """Everything around the backbone, without its memory."""
    heads, sizes, latents = config.heads, config.quantizer, config.latents
    length, dim, wide = sizes.code_length, sizes.dim, heads.decoder_width
    with torch.device("meta"):
        diffusion = DiffusionHead(
            latents.channels,
            wide,
            heads.diffusion_width,
            heads.diffusion_depth,
            heads.diffusion_steps,
            heads.diffusion_draws,
        )
        queries = nn.Linear(summary_width(shape.hidden) + 1, length * shape.hidden, bias=False)
        projection = nn.Sequential(
            nn.Linear(shape.hidden, heads.projection_width), nn.Linear(heads.projection_width, dim)
        )
        attention = heads.decoder_heads
        most = heads.max_text_tokens
        return [
            TextDecoder(dim, wide, attention, length, most, shape.hidden),
            ImageDecoder(dim, wide, attention, length, latents.grid, diffusion),
            queries,  # of features, and one of their own for each position
            projection,
            TreeQuantizer(sizes),
        ]


def _adapters(config: TokenizerConfig, shape: Shape) -> int:
    """Parameters of the adapters of a model whose shape alone is known."""
    backbone = config.backbone
    assert isinstance(backbone, PretrainedBackboneConfig)
    if backbone.lora is None:
        return 0
    # Where only some Linears get one, all are counted: an upper bound.
    return shape.layers * backbone.lora.rank * sum(one + other for one, other in shape.linears)


def _work(
    config: TokenizerConfig,
    shape: Shape,
    length: float,
    words: float,
    shown: float,
    heads: list[nn.Module],
) -> float:
    """Operations of one item in one training step."""
    own = isinstance(config.backbone, TinyBackboneConfig)
    # Two operations per weight and token forward, as many for the gradient of the input, and again
    # for the gradient of the weight where it is trained; two more where it is computed again.
    again = 2 if config.trainer.at_once or _checkpoints(config) else 0
    passes = (6 if own else 4) + again
    attention = 2 * length * shape.hidden * shape.layers  # half of the square: causal
    language = length * passes * (shape.language + attention)
    text, image = (sum(value.numel() for value in part.parameters()) for part in heads[:2])
    # The vocabulary is met forward, once more backward, and by the gradients.
    vocabulary = words * shape.hidden * shape.vocabulary * (8 if own else 6)
    draws = config.heads.diffusion_draws * config.latents.grid * shown
    return language + words * 6 * text + vocabulary + 2 * draws * 6 * image


def _checkpoints(config: TokenizerConfig) -> bool:
    backbone = config.backbone
    return isinstance(backbone, PretrainedBackboneConfig) and backbone.machine.checkpointing


def _activations(config: TokenizerConfig, shape: Shape, length: float, processes: int) -> float:
    """Bytes of what the backward pass needs at once."""
    share = -(-config.batch_size // processes)
    at_once = min(config.trainer.at_once or share, share)
    kept = 2 * (14 * shape.hidden + 4 * shape.feed_forward)  # of a layer and token, in bfloat16
    layers = shape.layers * (2 * shape.hidden if _checkpoints(config) else kept)
    latents, heads = config.latents, config.heads
    diffusion = heads.diffusion_draws * latents.grid * heads.diffusion_width
    decoders = 4 * share * (2 * diffusion * (4 + 8 * heads.diffusion_depth))
    decoders += 4 * share * (heads.max_text_tokens + latents.grid) * 16 * heads.decoder_width
    return at_once * length * (layers + kept) + decoders


def _cache_bytes(config: TokenizerConfig, features: float, base: torch.dtype) -> float:
    """Bytes that are kept of a picture, of which so many numbers are features."""
    latents = config.latents.grid * config.latents.channels
    size = 2 if isinstance(config.latents, KLLatentsConfig) else 4
    return features * base.itemsize + latents * size


def _shown(value: float) -> float:
    """Three digits are more than a plan can know."""
    return float(f"{value:.3g}")


def _speed(tflops: float | None, dtype: torch.dtype) -> tuple[str, float]:
    """Name of the device and what it does in a type, in 10¹² operations per second."""
    if tflops is not None:
        return f"a device of {tflops:g} TFLOP/s", tflops
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        peak = next((value for part, value in PEAK_TFLOPS.items() if part in name), None)
        if peak is not None:
            return f"{name} at {UTILISATION:.0%} of {peak} TFLOP/s", UTILISATION * peak
        return f"{name}, not known, taken for 50 TFLOP/s", 50.0
    return f"this CPU with {torch.get_num_threads()} threads, measured", _measured(dtype)


def _measured(dtype: torch.dtype, size: int = 512, seconds: float = 0.1) -> float:
    """What this CPU does in matrix products of a type."""
    one = torch.randn(size, size).to(dtype)
    one @ one
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        one @ one
        done += 1
    return done * 2 * size**3 / (time.perf_counter() - started) / 1e12
