"""A finished run, ready to recommend: `utgrec.load("runs/shop").recommend(history, k=10)`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utgrec.catalog import Catalog, Item
from utgrec.config import require
from utgrec.errors import InputError
from utgrec.evaluation.generative import GenerativeSystem
from utgrec.evaluation.ranking import read_ranker
from utgrec.recommender.train import read_memory, read_recommender
from utgrec.runs import RunFolder, read_plan
from utgrec.tokenizer.codes import read_codes


class Recommendation(NamedTuple):
    """One recommended item."""

    item: Item
    score: float  # log-probability of the item


class LoadedRun:
    """The recommender of one domain of a run."""

    def __init__(self, catalog: Catalog, system: GenerativeSystem, domain: str) -> None:
        self.catalog = catalog
        self.domain = domain
        self._system = system

    def recommend(
        self, history: Sequence[str], k: int = 10, *, exclude_seen: bool = True
    ) -> list[Recommendation]:
        """The k best next items after a history of item ids, oldest first.

        Raises:
            UnknownItem: an id that the catalogue does not hold.
        """
        return self.recommend_batch([history], k, exclude_seen=exclude_seen)[0]

    def recommend_batch(
        self, histories: Sequence[Sequence[str]], k: int = 10, *, exclude_seen: bool = True
    ) -> list[list[Recommendation]]:
        """The k best next items after each of several histories of item ids, oldest first."""
        require(k >= 1, f"k must be at least 1, got {k}")
        require(len(histories) > 0, "at least one history is needed, got none")
        for history in histories:
            if isinstance(history, str):
                raise InputError(f"a history is a list of item ids, got the text {history!r}")
        indices = [
            np.array(self.catalog.indices_of(history), dtype=np.int64) for history in histories
        ]
        answer = self._system.recommend_histories(indices, k, exclude_seen=exclude_seen)
        return [
            [
                Recommendation(self.catalog[int(item)], float(score))
                for item, score in zip(items, scores, strict=True)
                if item >= 0
            ]
            for items, scores in zip(answer.items, answer.scores, strict=True)
        ]


def load(run: str | Path, domain: str | None = None) -> LoadedRun:
    """Open a finished run for one of its domains; with one domain its name may be left out.

    Raises:
        MissingStage: the run is not finished.
        InputError: the run has several domains and none is named, or not this one.
    """
    folder = RunFolder(run)
    plan = read_plan(folder)
    names = list(plan.domains)
    if domain is None and len(names) > 1:
        raise InputError(
            f"{run} knows {', '.join(names)}; say which with domain=… (or with --domain NAME)"
        )
    name = domain or names[0]
    if name not in names:
        raise InputError(f"{run} does not know domain {name!r}; it knows {', '.join(names)}")
    model, vocabulary, config = read_recommender(folder.recommender)
    coded = read_codes(folder.codes(name), plan.domains[name])
    system = GenerativeSystem(
        model,
        vocabulary,
        name,
        coded.codes,
        max_items=config.max_items,
        decoding=plan.recipe.decoding,
        memory=read_memory(folder.recommender),
        ranker=read_ranker(folder.ranker, name),
    )
    return LoadedRun(coded.catalog, system, name)
