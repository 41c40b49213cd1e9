"""The multimodal language model that reads an item: opened from a folder, never patched.

An item's prompt is `[picture] text instruction code-queries`; the hidden states of the code queries
are what the tokenizer quantises. The code queries are trained vectors of our own, so the model's
vocabulary stays as it is. The language-model head is never loaded.

Shapes: B items · S prompt tokens · L codes per item · H backbone width · M picture tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from utgrec.errors import BadImage, MissingStage

WITH_IMAGE = "Compress the picture and the words into codes, from coarse to fine:"
WITHOUT_IMAGE = "Compress the words into codes, from coarse to fine:"


class Prompts(NamedTuple):
    """A padded batch of prompts; padding is on the right, where a causal model cannot see it."""

    tokens: Tensor  # (B, S), int64
    positions: Tensor  # (3, B, S), int64: time, height and width as Qwen2-VL counts them
    lengths: Tensor  # (B,), tokens that are not padding, the L code queries included
    picture: Tensor  # (B, S), bool, where picture features stand
    features: Tensor  # (M, H), picture features of the batch in reading order
    summary: Tensor  # (B, F), see features.py


class PictureFeatures(NamedTuple):
    """What the frozen vision tower makes of some pictures."""

    features: Tensor  # (M, H), one row per picture token, one picture after the other
    grids: npt.NDArray[np.int64]  # (pictures, 2), height and width in picture tokens


class Backbone(nn.Module):
    """A Qwen2-VL-like model without its head, with its text tokenizer and picture processor."""

    def __init__(self, folder: Path) -> None:
        """Open a transformers folder (configuration, weights, tokenizer, processor).

        Raises:
            MissingStage: there is no model in the folder.
        """
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        super().__init__()
        if not (folder / "config.json").is_file():
            raise MissingStage(f"{folder} holds no model (config.json is missing); check the path")
        # On a CPU the backward pass of torch's fused attention is six times slower than plain
        # matrix products (32 against 5 ms at B 128, S 52, 4 heads of 32, bf16, two cores).
        attention = "sdpa" if torch.cuda.is_available() else "eager"
        self.model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention
        )
        self.text_tokenizer = AutoTokenizer.from_pretrained(folder)
        self.picture_processor = AutoImageProcessor.from_pretrained(folder)
        # The vision tower stays frozen (paper §4.1.3), so its features are computed once.
        self.model.visual.requires_grad_(False)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, H."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def embeddings(self) -> Tensor:
        """The token embedding matrix, (V, H)."""
        weight: Tensor = self.model.language_model.embed_tokens.weight
        return weight

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of plain texts; what looks like a special token in them is plain text."""
        encoded = self.text_tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def frame(self, *, picture: bool) -> tuple[list[int], list[int]]:
        """Token ids before and after an item's words; the picture's tokens come in between."""
        instruction = WITH_IMAGE if picture else WITHOUT_IMAGE
        after = self.text_tokenizer(instruction, add_special_tokens=False)["input_ids"]
        return [], list(after)

    @property
    def picture_tokens(self) -> tuple[int, int, int]:
        """Token ids of: start of picture, one picture token, end of picture."""
        config = self.model.config
        return config.vision_start_token_id, config.image_token_id, config.vision_end_token_id

    @torch.no_grad()
    def picture_features(self, pictures: Sequence[Image.Image]) -> PictureFeatures:
        """Features of some pictures from the frozen vision tower."""
        processed = self.picture_processor(images=list(pictures), return_tensors="pt")
        grids = processed["image_grid_thw"]  # (pictures, 3), in patches
        merge = self.model.visual.spatial_merge_size
        out = self.model.visual(processed["pixel_values"], grid_thw=grids)
        return PictureFeatures(
            features=out.pooler_output,  # (M, H)
            grids=(grids[:, 1:] // merge).numpy(),
        )

    def forward(self, prompts: Prompts, queries: Tensor) -> Tensor:
        """Hidden states of the code queries. Shapes: prompts, (B, L, H) or (L, H) → (B, L, H)."""
        model: Any = self.model
        embedded = model.language_model.embed_tokens(prompts.tokens)  # (B, S, H)
        embedded[prompts.picture] = prompts.features.to(embedded.dtype)
        length = queries.shape[-2]
        places = prompts.lengths[:, None] - length + torch.arange(length)  # (B, L)
        rows = torch.arange(len(places))[:, None]
        embedded[rows, places] = queries.to(embedded.dtype)
        hidden = model.language_model(
            inputs_embeds=embedded, position_ids=prompts.positions, use_cache=False
        ).last_hidden_state  # (B, S, H)
        states: Tensor = hidden[rows, places]
        return states  # (B, L, H)


def open_picture(path: Path, max_pixels: int = 40_000_000) -> Image.Image:
    """A picture as RGB, turned as its EXIF data say.

    Raises:
        BadImage: unreadable, or more than `max_pixels`.
    """
    from PIL import ImageOps

    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise BadImage(
                    f"{path} has {image.width}×{image.height} pixels; at most {max_pixels} are "
                    "read: make it smaller, or raise the limit"
                )
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(
            f"{path} cannot be read as a picture ({error}); replace it, or prepare the domain again"
        ) from error
