"""What training a tokenizer will take, worked out before anything starts.

Parameters are counted on the layers themselves, without their memory. Tokens are counted on a
sample of the items. Work and memory are formulas; hours are the work divided by what the device is
said, or on a CPU measured, to do.

Shapes: S prompt tokens · T text tokens · G latents of a picture · H backbone width · V vocabulary.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from utgrec.catalog import Domain
from utgrec.config import require
from utgrec.data.split import split_domain
from utgrec.errors import UTGRecError
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.tokenizer.backbone_source import find_source
from utgrec.tokenizer.diffusion import DiffusionHead
from utgrec.tokenizer.kl_latents import KLLatentsConfig
from utgrec.tokenizer.quantizer import TreeQuantizer
from utgrec.tokenizer.reconstruction import ImageDecoder, TextDecoder
from utgrec.tokenizer.settings import TokenizerConfig
from utgrec.tokenizer.tiny import TinyBackboneConfig

SAMPLE = 2000  # items whose words are counted
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
    shape = backbone_shape(config)
    trained, words, shown = _items(config, domains)
    steps = training_steps(config, trained)
    heads = _heads(config, shape)
    head_parameters = sum(value.numel() for part in heads for value in part.parameters())
    adapters = _adapters(config, shape)
    own = isinstance(config.backbone, TinyBackboneConfig)
    embedding = shape.vocabulary * shape.hidden
    language = shape.language + embedding + _norms(shape)
    parameters = head_parameters + (language if own else adapters)
    picture = _picture_tokens(config) * shown
    length = words + picture + FRAME_TOKENS * 0.5 + config.quantizer.code_length
    work = _work(config, shape, length, words, shown, heads)
    device, speed = _speed(tflops)
    items = steps * config.batch_size
    pictures = shown * sum(len(domain.catalog) for domain in domains)
    weights = (0 if own else language * (2 if _dtype(config) != "float32" else 4)) + 16 * parameters
    return Estimate(
        items_trained=trained,
        steps=steps,
        parameters_trained=parameters,
        parameters_frozen=shape.vision + (0 if own else language),
        tokens_per_item=round(length, 1),
        cache_gib=round(_cache_bytes(config, shape, pictures) / 2**30, 3),
        memory_gib=round((weights + _activations(config, shape, length, processes)) / 2**30, 2),
        gflop_per_item=round(work / 1e9, 2),
        device=device if processes == 1 else f"{processes} × {device}",
        tflops=round(speed * processes, 4),
        hours=round(items * work / (speed * processes * 1e12) / 3600, 3),
    )


def training_steps(config: TokenizerConfig, trained: int) -> int:
    """Optimiser steps that a configuration does on so many trained items."""
    per_epoch = -(-trained // max(1, config.batch_size // 2))
    if not config.epochs:
        return config.trainer.steps
    return min(config.trainer.steps, round(config.epochs * per_epoch))


def backbone_shape(config: TokenizerConfig) -> Shape:
    """Sizes of a configuration's backbone, from its own settings or from its folder."""
    backbone = config.backbone
    if isinstance(backbone, TinyBackboneConfig):
        wide = backbone.vision_width
        return Shape(
            hidden=backbone.hidden_size,
            layers=backbone.layers,
            feed_forward=backbone.feed_forward,
            key_value=backbone.hidden_size // 2,
            vocabulary=backbone.vocabulary,
            vision=8 * wide * wide + 2 * 3 * 14 * 14 * wide + 16 * wide * (wide + wide),
        )
    if backbone.name in KNOWN:
        return KNOWN[backbone.name]
    return _read_shape(find_source(backbone.name, backbone.revision).folder)


def _read_shape(folder: Path) -> Shape:
    from transformers import AutoConfig, AutoModel

    config: Any = AutoConfig.from_pretrained(folder)
    text = getattr(config, "text_config", config)
    with torch.device("meta"):
        model: Any = AutoModel.from_config(config)
    language = getattr(model, "language_model", getattr(model, "text_model", model))
    inner = sum(value.numel() for value in language.parameters())
    heads = getattr(text, "num_attention_heads", 1)
    key_value = text.hidden_size * getattr(text, "num_key_value_heads", heads) // heads
    return Shape(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        feed_forward=text.intermediate_size,
        key_value=key_value,
        vocabulary=getattr(text, "vocab_size", 0),
        vision=sum(value.numel() for value in model.parameters()) - inner,
    )


def _items(config: TokenizerConfig, domains: Sequence[Domain]) -> tuple[int, float, float]:
    """Trained items, mean text tokens, share of items with a picture."""
    texts: list[str] = []
    trained = shown = total = 0
    for domain in domains:
        rows = np.unique(split_domain(domain).train)
        trained += len(rows)
        total += len(domain.catalog)
        shown += sum(path is not None for path in domain.catalog.images)
        texts += [domain.catalog.texts[row] for row in rows]
    sample = texts[:: max(1, len(texts) // SAMPLE)]
    most = config.heads.max_text_tokens
    counts = [min(most, count) for count in _token_counts(config, sample)]
    return trained, float(np.mean(counts)) if counts else 0.0, shown / max(total, 1)


def _token_counts(config: TokenizerConfig, texts: Sequence[str]) -> list[float]:
    if isinstance(config.backbone, PretrainedBackboneConfig):
        try:
            from transformers import AutoTokenizer

            folder = find_source(config.backbone.name, config.backbone.revision).folder
            tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            return [len(ids) for ids in tokenizer(list(texts))["input_ids"]] if texts else []
        except (UTGRecError, OSError, ValueError):
            pass  # not fetched yet: counted by its characters
    return [len(text) / CHARACTERS_PER_TOKEN for text in texts]


def _picture_tokens(config: TokenizerConfig) -> float:
    backbone = config.backbone
    if isinstance(backbone, TinyBackboneConfig):
        return float(backbone.picture_tokens)
    return backbone.max_pixels / (28 * 28) if backbone.pictures else 0.0


def _dtype(config: TokenizerConfig) -> str:
    backbone = config.backbone
    return backbone.dtype if isinstance(backbone, PretrainedBackboneConfig) else "float32"


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
        queries = nn.Linear(4 * shape.hidden + 1, length * shape.hidden, bias=False)
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
    """Parameters of the adapters."""
    backbone = config.backbone
    if isinstance(backbone, TinyBackboneConfig) or backbone.lora is None:
        return 0
    # Where only some Linears get one, all are counted: an upper bound.
    return shape.layers * backbone.lora.rank * sum(one + other for one, other in shape.linears)


def _norms(shape: Shape) -> int:
    """What a Qwen2-like language model has beside its matrices."""
    return shape.layers * (3 * shape.hidden + 2 * shape.key_value) + shape.hidden


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


def _cache_bytes(config: TokenizerConfig, shape: Shape, pictures: float) -> float:
    size = 4 if _dtype(config) == "float32" else 2
    features = _picture_tokens(config) * shape.hidden * size
    latents = config.latents.grid * config.latents.channels * 4
    if isinstance(config.latents, KLLatentsConfig):
        latents //= 2
    return pictures * (features + latents)


def _speed(tflops: float | None) -> tuple[str, float]:
    """Name of the device and what it does, in 10¹² operations per second."""
    if tflops is not None:
        return f"a device of {tflops:g} TFLOP/s", tflops
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        peak = next((value for part, value in PEAK_TFLOPS.items() if part in name), None)
        if peak is not None:
            return f"{name} at {UTILISATION:.0%} of {peak} TFLOP/s", UTILISATION * peak
        return f"{name}, not known, taken for 50 TFLOP/s", 50.0
    return f"this CPU with {torch.get_num_threads()} threads, measured", _measured()


def _measured(size: int = 512, seconds: float = 0.1) -> float:
    """What this CPU does in matrix products of float32."""
    one = torch.randn(size, size)
    one @ one
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        one @ one
        done += 1
    return done * 2 * size**3 / (time.perf_counter() - started) / 1e12
