"""The families of sequence models over item ids: SASRec, with two losses, and BERT4Rec.

Both are written here, since the library that has them (RecTools) computes the softmax of every
padded position: 314 s per epoch on beauty with one thread, see docs/baselines.md.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from utgrec.config import require
from utgrec.evaluation.baselines.family import FitInput, grid_trials
from utgrec.progress import Progress, silent

if TYPE_CHECKING:
    from utgrec.evaluation.baselines.sequence_model import SequenceSystem


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """What SASRec and BERT4Rec have in common."""

    width: int = 64
    """Width of an item's vector, D."""
    layers: int = 2
    """Transformer layers."""
    heads: int = 2
    """Attention heads."""
    dropout: float = 0.3
    """Dropout of the embeddings and of what each sublayer adds."""
    max_items: int = 50
    """Newest items of a history that are read; longer training histories are cut into windows."""
    batch_items: int = 1024
    """Items per step, no fewer than a window has."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices."""
    epochs: int = 40
    """Passes over the training part at most."""
    patience: int = 4
    """Epochs without gain on validation items before training stops; 0 trains all epochs."""
    validation_users: int = 2000
    """Users to validate on after each epoch; 0 never validates and keeps the last weights."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.layers, self.heads, self.epochs)
        require(min(sizes) >= 1, f"widths, layers, heads and epochs are at least 1, got {self}")
        require(
            self.width % self.heads == 0,
            f"width must be a multiple of heads, got {self.width} and {self.heads}",
        )
        require(self.max_items >= 2, f"max_items must be at least 2, got {self.max_items}")
        require(
            self.batch_items > self.max_items,
            f"batch_items must be above max_items, got {self.batch_items} and {self.max_items}",
        )
        require(0 <= self.dropout < 1, f"dropout is in [0, 1), got {self.dropout}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(
            min(self.weight_decay, self.patience, self.validation_users) >= 0,
            f"weight_decay, patience and validation_users are at least 0, got {self}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SASRecConfig(SequenceConfig):
    """Settings of SASRec."""

    negatives: int = 0
    """Items drawn per step that the target is told from; 0 takes the whole catalogue."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.negatives >= 0, f"negatives must be at least 0, got {self.negatives}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BERT4RecConfig(SequenceConfig):
    """Settings of BERT4Rec."""

    mask_share: float = 0.3
    """Share of the items of a window that are hidden and have to be guessed."""
    epochs: int = 80
    """Passes over the training part at most; a pass guesses `mask_share` of the items."""
    patience: int = 6
    """Epochs without gain on validation items before training stops; 0 trains all epochs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.mask_share < 1, f"mask_share is in (0, 1), got {self.mask_share}")


_GRID = {
    "width": (64, 128),
    "layers": (1, 2, 3),
    "dropout": (0.2, 0.3, 0.5),
    "learning_rate": (5e-4, 1e-3, 2e-3),
}


class SASRecFamily:
    """A causal Transformer over item ids that guesses the item after each one."""

    def __init__(self, name: str, title: str, negatives: Sequence[int]) -> None:
        """`negatives`: the choices of `SASRecConfig.negatives`, the default first."""
        self.name = name
        self.title = title
        self.negatives = tuple(negatives)

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[SASRecConfig]:
        """Width, layers, dropout, learning rate and, if there is a choice, negatives."""
        grid = {**_GRID, "negatives": self.negatives}
        return grid_trials(SASRecConfig(negatives=self.negatives[0]), grid, budget)

    def fit(
        self, given: FitInput, settings: SASRecConfig, progress: Progress = silent
    ) -> "SequenceSystem":
        """Train with the loss that `settings.negatives` says."""
        from utgrec.evaluation.baselines.sequence_model import SASRec
        from utgrec.evaluation.baselines.sequence_training import train_sequence_model

        return train_sequence_model(
            self.name,
            self.title,
            lambda: SASRec(given.item_count, settings),
            given,
            settings,
            progress,
        )


class BERT4RecFamily:
    """A bidirectional Transformer over item ids that guesses hidden items."""

    name = "bert4rec"
    title = "BERT4Rec"

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[BERT4RecConfig]:
        """Width, layers, dropout, learning rate and the share of hidden items."""
        return grid_trials(BERT4RecConfig(), {**_GRID, "mask_share": (0.15, 0.3, 0.5)}, budget)

    def fit(
        self, given: FitInput, settings: BERT4RecConfig, progress: Progress = silent
    ) -> "SequenceSystem":
        """Train on all items of the catalogue."""
        from utgrec.evaluation.baselines.sequence_model import BERT4Rec
        from utgrec.evaluation.baselines.sequence_training import train_sequence_model

        return train_sequence_model(
            self.name,
            self.title,
            lambda: BERT4Rec(given.item_count, settings),
            given,
            settings,
            progress,
        )
