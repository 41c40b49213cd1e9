"""The two recommender networks behind one door: sizes decide which one is meant."""

from collections.abc import Callable, Sequence
from pathlib import Path

from utgrec.recommender.causal import CausalRecommender, CausalSizes, WindowBatch
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.prefixes import PrefixBatch, PrefixBatches
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.recommender.windows import WindowBatches
from utgrec.training.trainer import Share, SharedBatches

Sizes = CausalSizes | T5Sizes


def create_network(
    sizes: Sizes, vocabulary: Vocabulary, label_smoothing: float = 0.0
) -> GenerativeRecommender:
    """A network with random weights, from torch's current seed."""
    if isinstance(sizes, CausalSizes):
        return CausalRecommender(sizes, vocabulary, label_smoothing)
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
