"""Models that read pictures alone, such as SigLIP, CLIP's vision tower, ViT or DINOv2.

They take no code queries, so two layers of our own read the frozen picture features and the
queries. Words of items are not read.

Shapes: B items · S prompt tokens · H backbone width · M picture tokens.
"""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utgrec.tokenizer.families.family import Family, Prompt, Read

# Patches are averaged down to a grid of at most 8 × 8: 64 tokens, as many as the other families.
SIDE = 8


class PicturesOnly(Family):
    """Any vision encoder of transformers whose last hidden states end in its patches."""

    reads_words: ClassVar[bool] = False
    causal: ClassVar[bool] = False

    def __init__(self, model: Any, text_tokenizer: Any, picture_processor: Any) -> None:
        super().__init__(model, text_tokenizer, picture_processor)
        self._reader = _Reader(self.hidden_size)

    @property
    def language_model(self) -> nn.Module:
        """What reads the prompt."""
        return self._reader

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """The whole pretrained model."""
        part: nn.Module = self.model
        return (part,)

    @property
    def trained(self) -> nn.Module | None:
        """The layers that read picture features."""
        return self._reader

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, H."""
        return int(self.model.config.hidden_size)

    @property
    def embeddings(self) -> Tensor:
        """The token embedding matrix, (2, H)."""
        return self._reader.words

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors of tokens; picture features and queries take their places."""
        return F.embedding(tokens, self._reader.words)

    def layout(self, words: npt.NDArray[np.int64], grid: tuple[int, int]) -> Prompt:
        """Lay out one item: its picture's tokens, or nothing at all."""
        shown = grid[0] * grid[1]
        positions = np.broadcast_to(np.arange(shown), (3, shown)).copy()
        return Prompt(np.zeros(shown, dtype=np.int64), positions, slice(0, shown), shown)

    def run(self, embedded: Tensor, features: Tensor, prompts: Read) -> Tensor:
        """Hidden states of laid-out prompts. Shapes: (B, S, H) → (B, S, H)."""
        assert prompts.mask is not None
        hidden: Tensor = self._reader(embedded, prompts.mask)
        return hidden

    def grids(self, processed: dict[str, Tensor]) -> npt.NDArray[np.int64]:
        """Height and width in picture tokens of processed pictures: (pictures, 2)."""
        count, _, height, width = processed["pixel_values"].shape
        patch = _patch(self.model.config)
        grid = (min(SIDE, height // patch), min(SIDE, width // patch))
        return np.broadcast_to(np.array(grid, dtype=np.int64), (count, 2)).copy()

    def picture_features(self, processed: dict[str, Tensor]) -> Tensor:
        """Averaged patches of processed pictures, of mean 0 and variance 1: (M, H)."""
        pixels = processed["pixel_values"]
        hidden = self.model(pixel_values=pixels).last_hidden_state  # (pictures, 1 + patches, H)
        patch = _patch(self.model.config)
        rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
        # What comes before the patches are class and register tokens.
        patches = hidden[:, -rows * columns :].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        grid = (min(SIDE, rows), min(SIDE, columns))
        pooled = F.adaptive_avg_pool2d(patches.float(), grid).flatten(2).transpose(1, 2)
        return F.layer_norm(pooled, pooled.shape[-1:]).flatten(0, 1)

    def count_tokens(self, height: int, width: int) -> int:
        """Picture tokens that a picture of so many pixels becomes, at most.

        Nearly all processors make pictures of one size, and tell it.
        """
        shown, patch = self.picture_processor, _patch(self.model.config)
        size = getattr(shown, "crop_size", None) or shown.size
        sides = [getattr(size, "height", None), getattr(size, "width", None)]
        return int(np.prod([min(SIDE, side // patch) if side else SIDE for side in sides]))

    def _pad_token(self) -> int:
        return 0


class _Reader(nn.Module):
    """Two layers in which code queries look at picture features."""

    words: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = 1 if width % 64 else width // 64
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, 2, nn.LayerNorm(width), enable_nested_tensor=False
        )
        # Layers that start as copies of one another would stay alike for long.
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        # A vocabulary of two words that no item has; as loud as picture features.
        words = torch.tensor([[1.0], [-1.0]]).repeat(1, width)
        self.register_buffer("words", words, persistent=False)  # (2, H)

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Shapes: (B, S, H), (B, S) → (B, S, H)."""
        hidden: Tensor = self.layers(embedded, src_key_padding_mask=mask == 0)
        return hidden


def _patch(config: Any) -> int:
    size = config.patch_size
    return int(size if isinstance(size, int) else size[0])
