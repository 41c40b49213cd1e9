"""The two recommender networks behind one door: sizes decide which one is meant."""

from collections.abc import Sequence
from pathlib import Path

from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.prefixes import PrefixBatches
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.recommender.windows import WindowBatches

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
