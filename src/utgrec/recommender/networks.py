"""The two recommender networks behind one door: sizes decide which one is meant."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from utgrec.recommender.causal import (
    CausalRecommender,
    CausalSizes,
    RankingConfig,
    WindowBatch,
)
from utgrec.recommender.contents import Contents
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.prefixes import PrefixBatch, PrefixBatches
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.recommender.windows import WindowBatches
from utgrec.training.trainer import Share, SharedBatches

Sizes = CausalSizes | T5Sizes


def create_network(
    sizes: Sizes,
    vocabulary: Vocabulary,
    label_smoothing: float = 0.0,
    ranking: RankingConfig | None = None,
) -> GenerativeRecommender:
    """A network with random weights, from torch's current seed; it knows no items yet."""
    if isinstance(sizes, CausalSizes):
        return CausalRecommender(sizes, vocabulary, label_smoothing, ranking=ranking)
    return T5Recommender.create(sizes, vocabulary, label_smoothing)


def load_network(sizes: Sizes, vocabulary: Vocabulary, folder: Path) -> GenerativeRecommender:
    """Open what a network's `save` wrote, ready to recommend."""
    if isinstance(sizes, CausalSizes):
        return CausalRecommender.load(folder, sizes, vocabulary)
    return T5Recommender.load(folder)


def make_batches(
    sizes: Sizes,
    domains: Sequence[CodedDomain],
    vocabulary: Vocabulary,
    *,
    max_items: int,
    batch_size: int,
    temperature: float,
    seed: int,
) -> PrefixBatches | WindowBatches:
    """The training samples that a network learns from; `batch_size` counts items to be written."""
    kind = WindowBatches if isinstance(sizes, CausalSizes) else PrefixBatches
    return kind(
        domains,
        vocabulary,
        max_items=max_items,
        batch_size=batch_size,
        temperature=temperature,
        seed=seed,
    )


def shared_batches(batches: Callable[[int], PrefixBatch | WindowBatch]) -> SharedBatches:
    """Batches for the training loop, of which every process takes every n-th row.

    A share of no row, in a batch with fewer rows than processes, is a row that weighs nothing.
    """

    def share(batch: PrefixBatch | WindowBatch, number: int, count: int) -> Share:
        total, first = len(batch.targets), number % len(batch.targets)
        rows = slice(first, None, count) if number < total else slice(first, first + 1)
        part = type(batch)(*(tensor[rows] for tensor in batch))
        if isinstance(batch, WindowBatch):
            written, everything = int(part.targets.sum()), int(batch.targets.sum())
        else:
            written, everything = len(part.targets), total
        return Share(part, count * written / max(everything, 1) if number < total else 0.0)

    return SharedBatches(draw=batches, share=share, rows=lambda batch: len(batch.targets))


def know_items(
    model: GenerativeRecommender, domains: Sequence[CodedDomain], vocabulary: Vocabulary
) -> None:
    """Give the items of the domains' training histories vectors of their own, where a network can.

    Items of all other domains are forgotten.
    """
    if not isinstance(model, CausalRecommender) or model.items is None:
        return
    keys = [torch.zeros(0, dtype=torch.int64)]
    for domain in domains:
        taken = np.unique(domain.split.train)
        keys.append(catalog_keys(vocabulary, domain.name, domain.codes[taken]))
    model.know(torch.cat(keys))


def show_words(
    model: GenerativeRecommender,
    domains: Sequence[CodedDomain],
    vocabulary: Vocabulary,
    contents: Contents,
) -> None:
    """Let a network that can read the words of all items of the domains, and of no others."""
    if not isinstance(model, CausalRecommender) or model.words is None:
        return
    model.words.forget()
    for domain in domains:
        kept = model.sizes.item_words
        model.words.read(contents.telling_words(vocabulary, domain.name, kept))
