"""SmolVLM and Idefics3: every picture becomes one square view with a fixed number of tokens.

The processors of this family can also cut a picture into tiles with 64 tokens or more each; one
view is enough for the picture of an item, and keeps prompts short.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor, nn

from utgrec.tokenizer.families.family import Family, Read, joined, token_id
from utgrec.tokenizer.families.places import read_places, reads_places


class SmolVLM(Family):
    """SmolVLM and Idefics3."""

    model_types: ClassVar[tuple[str, ...]] = ("smolvlm", "idefics3")

    def __init__(self, model: Any, text_tokenizer: Any, picture_processor: Any) -> None:
        super().__init__(model, text_tokenizer, picture_processor)
        around = token_id(text_tokenizer, "<fake_token_around_image>")
        whole = token_id(text_tokenizer, "<global-img>")
        self._marks = [around, whole], int(model.config.image_token_id), [around]

    @property
    def language_model(self) -> nn.Module:
        """The part that reads the prompt: where adapters go."""
        part: nn.Module = self.model.text_model
        return part

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Parts that are never trained: what makes picture features."""
        return self.model.vision_model, self.model.connector

    def run_at(self, embedded: Tensor, features: Tensor, prompts: Read, places: Tensor) -> Tensor:
        """Hidden states of some places: (B, S, H), (M, F), (B, L) → (B, L, H)."""
        model = self.model.text_model
        if not reads_places(model):
            return super().run_at(embedded, features, prompts, places)
        return read_places(model, embedded, prompts.positions[0], places)

    def picture_marks(self) -> tuple[list[int], int, list[int]]:
        """Token ids before a picture, of one picture token, and after a picture."""
        return self._marks

    def process(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Pixels as the model wants them; touches no weights, so it can run in other processes."""
        return dict(
            self.picture_processor(
                images=[[picture] for picture in pictures],
                do_image_splitting=False,
                return_tensors="pt",
            )
        )

    @property
    def _side(self) -> int:
        """Picture tokens in a row or column of the view."""
        config = self.model.config
        side = self.picture_processor.max_image_size["longest_edge"]
        return int(side) // int(config.vision_config.patch_size) // int(config.scale_factor)

    def grids(self, processed: dict[str, Tensor]) -> npt.NDArray[np.int64]:
        """Height and width in picture tokens of processed pictures: (pictures, 2)."""
        return np.full((len(processed["pixel_values"]), 2), self._side, dtype=np.int64)

    def picture_features(self, processed: dict[str, Tensor]) -> Tensor:
        """What the vision tower and the connector make of processed pictures: (M, H)."""
        seen = self.model.get_image_features(
            processed["pixel_values"], processed.get("pixel_attention_mask")
        )
        return joined(seen.pooler_output, self.hidden_size)

    def count_tokens(self, height: int, width: int) -> int:
        """Picture tokens that a picture of so many pixels becomes."""
        return self._side**2
