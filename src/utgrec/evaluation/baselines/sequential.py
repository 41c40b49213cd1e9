"""The families of sequence models over item ids: SASRec, with two losses, and BERT4Rec.

Both are written here, since the library that has them (RecTools) computes the softmax of every
padded position: 314 s per epoch on beauty with one thread, see docs/baselines.md.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from utgrec.evaluation.baselines.family import FitInput, grid_trials
from utgrec.evaluation.baselines.sequence_config import BERT4RecConfig, SASRecConfig
from utgrec.progress import Progress, silent

if TYPE_CHECKING:
    from utgrec.evaluation.baselines.sequence_model import SequenceSystem


_GRID = {
    "width": (64, 128),
    "layers": (1, 2, 3),
    "dropout": (0.2, 0.3, 0.5),
    "learning_rate": (1e-3, 2e-3, 3e-3),
    "weight_decay": (0.01, 0.1),
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
