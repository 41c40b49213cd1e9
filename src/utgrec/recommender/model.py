"""What every recommender network is: histories of codes in, codes of the next item out."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn


class GenerativeRecommender(nn.Module, ABC):
    """A network over the vocabulary's tokens, with the loss that trains it."""

    label_smoothing: float

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights and configuration into `folder`."""

    def taking_for_new(self, keys: Tensor) -> Self:
        """The same network without what it knows of these items (m,) alone, by their keys
        (`item_vectors.py`)."""
        return self

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Cross-entropy of the next item's codes, by position; "loss" is their mean."""
