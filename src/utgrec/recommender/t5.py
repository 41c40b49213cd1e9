"""The encoder-decoder: it reads a history and writes the next item.

It is transformers' T5, saved in its own format, so any tool can open it. The decoder begins with
the codes of the newest item and writes on: T5's cross-attention does not know positions, and
finding the newest item through it takes thousands of steps (docs/recommender.md).

Shapes: B samples · S tokens of a history · L codes per item · V token ids.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from utgrec.config import require
from utgrec.recommender.histories import newest_codes
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.prefixes import PrefixBatch
from utgrec.recommender.t5_forward import t5_logits
from utgrec.recommender.vocabulary import END, PAD, Vocabulary

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Sizes:
    """Sizes of the encoder-decoder (DESIGN: TIGER's, at a fraction of T5-small)."""

    width: int = 128
    """Width of the residual stream, d_model."""
    feed_forward: int = 512
    """Width of the ReLU feed-forward."""
    heads: int = 4
    """Attention heads."""
    head_width: int = 64
    """Width of one head."""
    encoder_layers: int = 3
    """Layers of the encoder."""
    decoder_layers: int = 3
    """Layers of the decoder."""
    dropout: float = 0.1
    """Dropout everywhere T5 has it."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.feed_forward, self.heads, self.head_width)
        require(min(sizes) >= 1, f"all widths and heads must be at least 1, got {self}")
        require(
            min(self.encoder_layers, self.decoder_layers) >= 1,
            f"encoder and decoder need at least one layer, got {self}",
        )
        require(0 <= self.dropout < 1, f"dropout is in [0, 1), got {self.dropout}")

    @property
    def summary(self) -> str:
        """A few words for people."""
        layers = f"{self.encoder_layers} + {self.decoder_layers} layers"
        return f"encoder-decoder, {layers} of width {self.width}"


class T5Recommender(GenerativeRecommender):
    """T5 over codes, with the loss that trains it."""

    def __init__(self, t5: "T5ForConditionalGeneration", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.t5: Any = t5
        self.label_smoothing = label_smoothing

    @classmethod
    def create(
        cls, sizes: T5Sizes, vocabulary: Vocabulary, label_smoothing: float = 0.0
    ) -> "T5Recommender":
        """A recommender with random weights, from torch's current seed."""
        from transformers import T5Config, T5ForConditionalGeneration

        config = T5Config(
            vocab_size=vocabulary.size,
            d_model=sizes.width,
            d_kv=sizes.head_width,
            d_ff=sizes.feed_forward,
            num_layers=sizes.encoder_layers,
            num_decoder_layers=sizes.decoder_layers,
            num_heads=sizes.heads,
            dropout_rate=sizes.dropout,
            feed_forward_proj="relu",
            pad_token_id=PAD,
            eos_token_id=END,
            decoder_start_token_id=PAD,
            use_cache=False,
        )
        return cls(T5ForConditionalGeneration(config), label_smoothing)

    @classmethod
    def load(cls, folder: Path) -> "T5Recommender":
        """Open a folder that `save`, or transformers itself, wrote."""
        from transformers import T5ForConditionalGeneration

        t5 = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        return cls(t5).eval()

    def save(self, folder: Path) -> None:
        """Write the weights in transformers' own format."""
        self.t5.save_pretrained(folder)

    def forward(self, batch: PrefixBatch) -> dict[str, Tensor]:
        """Cross-entropy of the next item's codes, by position; "loss" is their mean."""
        length = batch.targets.shape[1]
        start = torch.full_like(batch.targets[:, :1], PAD)
        newest = newest_codes(batch.tokens, batch.mask, length)  # (B, L)
        written = torch.cat([start, newest, batch.targets[:, :-1]], dim=1)  # (B, 2L)
        logits = t5_logits(self.t5, batch.tokens, batch.mask, written)[:, length:]  # (B, L, V)
        each = F.cross_entropy(
            logits.transpose(1, 2),
            batch.targets,
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )  # (B, L)
        by_position = {f"code_{place + 1}": each[:, place].mean() for place in range(each.shape[1])}
        return {"loss": each.mean(), **by_position}
