"""A few items with everything that can be odd about them, and a very small backbone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from utgrec import storage
from utgrec.catalog import write_domain
from utgrec.tokenizer.latents import LatentsConfig
from utgrec.tokenizer.model import HeadsConfig, LossWeights
from utgrec.tokenizer.pretrained import TokenizerConfig
from utgrec.tokenizer.quantizer import QuantizerConfig
from utgrec.tokenizer.tiny import TinyBackboneConfig
from utgrec.training.trainer import TrainerConfig

BACKBONE = TinyBackboneConfig(
    vocabulary=330,
    hidden_size=32,
    layers=2,
    heads=2,
    feed_forward=48,
    picture_tokens=12,
    vision_width=32,
)
LATENTS = LatentsConfig(side=16, patch=8, channels=4)
TEXTS = [
    "a red cup with flowers",
    "",
    "a blue bowl, large, made of stone and painted by hand in a small village by the sea",
    "a",
    "tea pot <|image_pad|> with <|vision_start|> inside <|endoftext|>",
    "grün und weiß — 茶",
    "a red bowl",
    "spoon " * 30,
]
# Width × height; None has no picture. Wide, high, square, tiny and large ones.
SHAPES: list[tuple[int, int] | None] = [
    (112, 56),
    (56, 84),
    None,
    (60, 60),
    (200, 40),
    None,
    (30, 300),
    (8, 9),
]
MAX_TEXT_TOKENS = 24


def draw_picture(width: int, height: int, seed: int) -> Image.Image:
    """Noise over a colour ramp."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, width)[None, :, None] * rng.random(3)
    noise = rng.integers(0, 120, (height, width, 3))
    return Image.fromarray((ramp + noise).astype(np.uint8))


def write_pictures(
    folder: Path, shapes: Sequence[tuple[int, int] | None] = SHAPES
) -> list[Path | None]:
    """The pictures as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path | None] = []
    for number, shape in enumerate(shapes):
        paths.append(None if shape is None else folder / f"{number}.png")
        if shape is not None:
            draw_picture(*shape, seed=number).save(folder / f"{number}.png")
    return paths


def small_config(**changes: object) -> TokenizerConfig:
    """A tokenizer that trains in a second; `changes` are settings of its trainer."""
    return TokenizerConfig(
        backbone=BACKBONE,
        quantizer=QuantizerConfig(root_size=4, leaf_size=6, dim=8, warmup_steps=2),
        heads=HeadsConfig(
            projection_width=16,
            decoder_width=16,
            decoder_heads=2,
            diffusion_width=16,
            diffusion_depth=1,
            diffusion_steps=50,
            diffusion_draws=2,
            max_text_tokens=MAX_TEXT_TOKENS,
        ),
        latents=LATENTS,
        weights=LossWeights(),
        trainer=dataclasses.replace(
            TrainerConfig(steps=5, learning_rate=1e-3, log_every=2), **changes
        ),
        batch_size=8,
    )


def write_small_domain(
    folder: Path,
    histories: list[list[int]],
    *,
    texts: Sequence[str] = TEXTS,
    pictures: bool = True,
) -> Path:
    """A domain of the odd items and these histories."""
    with storage.new_folder(folder) as partial:
        images: list[str | None] = [None] * len(texts)
        if pictures:
            write_pictures(partial / "images", SHAPES[: len(texts)])
            images = [
                None if shape is None else f"images/{number}.png"
                for number, shape in enumerate(SHAPES[: len(texts)])
            ]
            images += [None] * (len(texts) - len(images))
        lengths = [len(history) for history in histories]
        write_domain(
            partial,
            name=folder.name,
            items=pa.table(
                {
                    "item_id": [f"{folder.name}-{number}" for number in range(len(texts))],
                    "title": list(texts),
                    "text": list(texts),
                    "image": pa.array(images, pa.string()),
                }
            ),
            user_ids=[f"u{number}" for number in range(len(histories))],
            interactions=pa.table(
                {
                    "user": pa.array(np.repeat(np.arange(len(histories)), lengths), pa.int32()),
                    "item": pa.array([item for items in histories for item in items], pa.int32()),
                    "timestamp": pa.array(range(sum(lengths)), pa.int64()),
                }
            ),
            config={},
            inputs={},
            facts={},
        )
    return folder
