"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any shape, positions in three directions.

Shapes: B items · S prompt tokens · H backbone width · M picture tokens · F width of features.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from utgrec.tokenizer.families.family import Family, Read, joined
from utgrec.tokenizer.families.places import read_places, reads_places
from utgrec.tokenizer.families.qwen_pixels import Patches
from utgrec.tokenizer.families.qwen_tower import see, twice


class QwenVL(Family):
    """Qwen2-VL and Qwen2.5-VL."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl", "qwen2_5_vl")

    def __init__(self, model: Any, text_tokenizer: Any, picture_processor: Any) -> None:
        super().__init__(model, text_tokenizer, picture_processor)
        self._patches: Patches | None = None

    def process(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Patches, each once, and grids; touches no weights, so it can run in other processes."""
        if Patches.known(self.picture_processor):
            told = self.picture_processor.to_json_string()
            if self._patches is None or self._patches.told != told:
                self._patches = Patches(self.picture_processor)
            return self._patches(pictures)
        made = super().process(pictures)
        frames = made["pixel_values"].view(len(made["pixel_values"]), 3, self._film, -1)
        return {**made, "pixel_values": frames[:, :, 0].flatten(1)}

    def picture_marks(self) -> tuple[list[int], int, list[int]]:
        """Token ids before a picture, of one picture token, and after a picture."""
        config = self.model.config
        return [config.vision_start_token_id], config.image_token_id, [config.vision_end_token_id]

    def positions(
        self, length: int, picture: slice, grid: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int64], int]:
        """The same as the model's own `get_rope_index` (a test compares them), for one picture.

        A picture's tokens count by row and column; words go on after the larger side.
        """
        positions = np.empty((3, length), dtype=np.int64)
        positions[:, : picture.start] = np.arange(picture.start)
        rows, columns = np.divmod(np.arange(grid[0] * grid[1]), max(grid[1], 1))
        positions[0, picture] = picture.start
        positions[1, picture] = picture.start + rows
        positions[2, picture] = picture.start + columns
        resume = picture.start + max(grid)
        positions[:, picture.stop :] = resume + np.arange(length - picture.stop)
        return positions, resume + length - picture.stop

    def run(self, embedded: Tensor, features: Tensor, prompts: Read) -> Tensor:
        """Hidden states of laid-out prompts. Shapes: (B, S, H), (M, F) → (B, S, H)."""
        hidden: Tensor = self.model.language_model(
            inputs_embeds=embedded, position_ids=prompts.positions, use_cache=False
        ).last_hidden_state
        return hidden

    def run_at(self, embedded: Tensor, features: Tensor, prompts: Read, places: Tensor) -> Tensor:
        """The same for some places: (B, S, H), (M, F), (B, L) → (B, L, H)."""
        model = self.model.language_model
        if not reads_places(model):
            return super().run_at(embedded, features, prompts, places)
        deep = torch.split(features, self.hidden_size, dim=1)[1:]
        return read_places(model, embedded, prompts.positions, places, prompts.picture, deep)

    def grids(self, processed: dict[str, Tensor]) -> npt.NDArray[np.int64]:
        """Height and width in picture tokens of processed pictures: (pictures, 2)."""
        patches: npt.NDArray[np.int64] = processed["image_grid_thw"][:, 1:].cpu().numpy()
        return patches // int(self.model.config.vision_config.spatial_merge_size)

    def picture_features(self, processed: dict[str, Tensor]) -> Tensor:
        """What the vision tower makes of processed pictures, one after the other: (M, F)."""
        if self.model.config.model_type == "qwen2_vl":
            grids = processed["image_grid_thw"][:, 1:].cpu().numpy()
            return see(self.model.visual, processed["pixel_values"], grids)
        return joined(self._vision(processed).pooler_output, self.hidden_size)

    def count_tokens(self, height: int, width: int) -> int:
        """Picture tokens that a picture of so many pixels becomes."""
        patches = self.picture_processor.get_number_of_image_patches(height, width)
        return int(patches) // int(self.model.config.vision_config.spatial_merge_size) ** 2

    @property
    def _film(self) -> int:
        """Frames that the model reads at once; a picture is a film of equal ones."""
        return int(self.picture_processor.temporal_patch_size)

    def _vision(self, processed: dict[str, Tensor]) -> Any:
        pixels = twice(processed["pixel_values"], self._film)
        return self.model.get_image_features(pixels, processed["image_grid_thw"])


class Qwen3VL(QwenVL):
    """Qwen3-VL: features of earlier vision layers are added in the first language layers, too.

    They are kept beside the features that stand in the prompt: F = (1 + extra layers) × H.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)

    @property
    def feature_width(self) -> int:
        """Width of what is kept of a picture token, F; its first H columns stand in the prompt."""
        extra = len(self.model.config.vision_config.deepstack_visual_indexes)
        return (1 + extra) * self.hidden_size

    def picture_features(self, processed: dict[str, Tensor]) -> Tensor:
        """What the vision tower makes of processed pictures, one after the other: (M, F)."""
        seen, width = self._vision(processed), self.hidden_size
        deep = [joined(layer, width) for layer in seen.deepstack_features]
        return torch.cat([joined(seen.pooler_output, width), *deep], dim=1)

    def run(self, embedded: Tensor, features: Tensor, prompts: Read) -> Tensor:
        """Hidden states of laid-out prompts. Shapes: (B, S, H), (M, F) → (B, S, H)."""
        width = self.hidden_size
        deep = {}
        if len(features):
            deep = {
                "visual_pos_masks": prompts.picture,
                "deepstack_visual_embeds": list(torch.split(features[:, width:], width, dim=1)),
            }
        hidden: Tensor = self.model.language_model(
            inputs_embeds=embedded, position_ids=prompts.positions, use_cache=False, **deep
        ).last_hidden_state
        return hidden
