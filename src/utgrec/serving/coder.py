"""What encodes the items that join a live catalogue: the run's own tokenizer.

Shapes: n items · L codes per item · D code dimension.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from utgrec.serving.shared import share_module
from utgrec.tokenizer.pretrained import ItemTokenizer
from utgrec.tokenizer.quantizer import TreeQuantizer


class Coder(Protocol):
    """What turns new items into states, and knows the codebooks."""

    @property
    def quantizer(self) -> TreeQuantizer:
        """The codebooks."""

    def states(self, texts: Sequence[str], pictures: Sequence[Path | None]) -> Tensor:
        """States of n items, (n, L, D), float32."""


class RunCoder:
    """A run's tokenizer, opened when it is first needed."""

    def __init__(self, folder: Path, weights: Path | None = None) -> None:
        """`weights` is a folder that several processes use, to hold the weights in memory once."""
        self._folder, self._weights = folder, weights
        self._tokenizer: ItemTokenizer | None = None

    @property
    def quantizer(self) -> TreeQuantizer:
        """The codebooks."""
        return self._opened().model.quantizer

    def states(self, texts: Sequence[str], pictures: Sequence[Path | None]) -> Tensor:
        """States of n items, (n, L, D), float32."""
        tokenizer = self._opened()
        return tokenizer.states(tokenizer.read(texts, pictures))

    def _opened(self) -> ItemTokenizer:
        if self._tokenizer is None:
            self._tokenizer = ItemTokenizer.from_pretrained(self._folder)
            if self._weights is not None:
                share_module(self._tokenizer.model, self._weights)
        return self._tokenizer
