"""Models that read words alone: causal ones such as Qwen3 or Llama, encoders such as BERT."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from utgrec.tokenizer.families.family import Family, Read


class WordsOnly(Family):
    """Any text model of transformers that takes embeddings; padding is masked for encoders."""

    reads_pictures: ClassVar[bool] = False
    causal: ClassVar[bool] = False

    def __init__(self, model: Any, text_tokenizer: Any, picture_processor: Any) -> None:
        super().__init__(model, text_tokenizer, picture_processor)
        # Encoders do not take it as an argument; without it decoders keep keys and values.
        model.config.use_cache = False

    @property
    def language_model(self) -> nn.Module:
        """The part that reads the prompt: where adapters go."""
        part: nn.Module = self.model
        return part

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Encoders end in a pooler that nothing here reads."""
        pooler = getattr(self.model, "pooler", None)
        return (pooler,) if isinstance(pooler, nn.Module) else ()

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, H."""
        return int(self.model.config.hidden_size)

    def run(self, embedded: Tensor, features: Tensor, prompts: Read) -> Tensor:
        """Hidden states of laid-out prompts. Shapes: (B, S, H) → (B, S, H)."""
        hidden: Tensor = self.model(
            inputs_embeds=embedded, attention_mask=prompts.mask
        ).last_hidden_state
        return hidden

    def grids(self, processed: dict[str, Tensor]) -> npt.NDArray[np.int64]:
        """Nobody asks: there are no pictures."""
        return np.zeros((0, 2), dtype=np.int64)

    def count_tokens(self, height: int, width: int) -> int:
        """No picture becomes any token."""
        return 0
