"""The families that count: popularity, and ItemKNN with tf-idf weights."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from utgrec import storage
from utgrec.config import require
from utgrec.data.similarities import Similarities
from utgrec.data.split import Split
from utgrec.evaluation.baselines.family import FitInput, grid_trials, scratch
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig, find_similarities
from utgrec.evaluation.popularity import Popularity
from utgrec.progress import Progress, silent

_NEIGHBOURS = (50, 100, 200, 500)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    """Settings of popularity."""

    last: int | None = None
    """Only this many of the latest training items of each user count; None means all."""

    def __post_init__(self) -> None:
        require(self.last is None or self.last >= 1, f"last must be ≥ 1 or None, got {self.last}")


class PopularityFamily:
    """The items that most users took, the same for everybody."""

    name = "popularity"
    title = "Popularity"

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[PopularityConfig]:
        """All items first; then only the latest of each user, which follows what is in fashion."""
        return grid_trials(PopularityConfig(), {"last": (None, 20, 10, 5, 3, 2, 1)}, budget)

    def fit(
        self, given: FitInput, settings: PopularityConfig, progress: Progress = silent
    ) -> Popularity:
        """Count users per item."""
        split = given.split if settings.last is None else latest(given.split, settings.last)
        return Popularity.fit(split, given.item_count)


class ItemKNNFamily:
    """Items taken by the same users, by cosine of tf-idf vectors."""

    name = "itemknn"
    title = "ItemKNN"

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[ItemKNNConfig]:
        """Neighbours, shrinkage and decay.

        Whether an item is its own neighbour is tried both ways where seen items may be
        recommended; elsewhere it changes next to nothing.
        """
        grid = {
            "neighbours": _NEIGHBOURS,
            "shrink": (0.0, 5.0, 20.0),
            "decay": (1.0, 0.8, 0.6, 0.4, 0.2),
            "self_similar": (True,) if exclude_seen else (True, False),
        }
        return grid_trials(ItemKNNConfig(), grid, budget)

    def fit(self, given: FitInput, settings: ItemKNNConfig, progress: Progress = silent) -> ItemKNN:
        """Compare all items; fits that share shrink and self_similar do so once."""
        return ItemKNN(self._similarities(given, settings), settings)

    def _similarities(self, given: FitInput, settings: ItemKNNConfig) -> Similarities:
        # A shorter list of neighbours is the beginning of a longer one.
        width = max(settings.neighbours, *_NEIGHBOURS)
        made_from = {
            "shrink": settings.shrink,
            "self_similar": settings.self_similar,
            "neighbours": width,
        }
        return kept_similarities(
            scratch(given, self.name, made_from),
            lambda: find_similarities(
                given.split,
                given.item_count,
                neighbours=width,
                shrink=settings.shrink,
                self_similar=settings.self_similar,
            ),
        )


def kept_similarities(folder: Path, make: Callable[[], Similarities]) -> Similarities:
    """What an earlier trial left in a scratch folder, or else what `make` gives, left there."""
    path = folder / "similarities.safetensors"
    if path.is_file():
        return Similarities(**load_file(path))
    found = make()
    with storage.new_folder(folder) as partial:
        save_file(found._asdict(), partial / path.name)
    return found


def latest(split: Split, count: int) -> Split:
    """The same split with the latest `count` training items of each user only."""
    ends = split.offsets[1:]
    starts = np.maximum(split.offsets[:-1], ends - count)
    places = np.arange(len(split.train))
    users = np.repeat(np.arange(len(ends)), np.diff(split.offsets))
    kept = places >= starts[users]
    offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
    return split._replace(offsets=offsets, train=split.train[kept])
