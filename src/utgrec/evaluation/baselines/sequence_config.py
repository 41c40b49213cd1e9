"""Settings of the sequence models."""

import dataclasses

from utgrec.config import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """What SASRec and BERT4Rec have in common."""

    width: int = 64
    """Width of an item's vector, D."""
    layers: int = 2
    """Transformer layers."""
    heads: int = 2
    """Attention heads."""
    dropout: float = 0.5
    """Dropout of the embeddings and of what each sublayer adds."""
    max_items: int = 50
    """Newest items of a history that are read; longer training histories are cut into windows."""
    batch_items: int = 1024
    """Items per step, no fewer than a window has."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices."""
    epochs: int = 30
    """Passes over the training part at most; there are as many validations."""
    min_steps: int = 2000
    """Steps at most, where these passes are fewer: small shops need more of them."""
    patience: int = 4
    """Validations without gain before training stops; 0 never stops it."""
    validation_users: int = 2000
    """Users to validate on; 0 never validates and keeps the last weights."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.layers, self.heads, self.epochs, self.min_steps)
        require(
            min(sizes) >= 1,
            f"width, layers, heads, epochs and min_steps are at least 1, got {self}",
        )
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
    last_share: float = 0.1
    """Share of the windows that hide their newest item alone, as in the authors' code."""
    epochs: int = 80
    """Passes over the training part at most; a pass guesses `mask_share` of the items."""
    patience: int = 8
    """Validations without gain before training stops; 0 never stops it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.mask_share < 1, f"mask_share is in (0, 1), got {self.mask_share}")
        require(0 <= self.last_share <= 1, f"last_share is in [0, 1], got {self.last_share}")
