"""The generative recommender as a system among others: histories in, items out.

Shapes: B users · k recommendations per user · N items · L codes per item.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from utgrec.config import require
from utgrec.decoding import CodeTrie, make_beam_model, make_search
from utgrec.evaluation.protocol import Query, Recommendations, evaluate, sample_users
from utgrec.precision import check_precision, uses_bf16
from utgrec.recommender.companions import CatalogCompanions
from utgrec.recommender.histories import CodedDomain, HistoryEncoder
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.mixing import NETWORK_ALONE, Mixing
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.ranker import Ranker
from utgrec.recommender.train import Memory
from utgrec.recommender.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How items are decoded."""

    beam: int = 50
    """Beams kept per user; stated with every figure, since wider beams find more."""
    precision: str = "auto"
    """bf16 or fp32 arithmetic, or auto: bf16 where the processor has instructions for it."""
    mixing: Mixing | None = None
    """How the voices are mixed, without a ranker; None takes what the recommender's own validation
    items found best, and the ranker that learned from them."""

    def __post_init__(self) -> None:
        require(self.beam >= 1, f"beam must be at least 1, got {self.beam}")
        check_precision(self.precision)

    @property
    def dtype(self) -> torch.dtype:
        """What matrices are multiplied in on this processor."""
        return torch.bfloat16 if uses_bf16(self.precision) else torch.float32


class GenerativeSystem:
    """A trained recommender over one domain's catalogue."""

    def __init__(
        self,
        model: GenerativeRecommender,
        vocabulary: Vocabulary,
        domain: str,
        codes: npt.NDArray[np.int16],
        *,
        max_items: int,
        decoding: DecodingConfig,
        memory: Memory | None = None,
        ranker: Ranker | None = None,
        name: str = "UTGRec",
    ) -> None:
        """`codes` (N, L) are those of the whole catalogue, never of the held-out items alone.

        Without `memory` nothing was counted, and the network speaks alone. A ranker learned from
        the validation items, so with one these cannot be asked for, unless it is lent.
        """
        self.name = name
        self.decoding = decoding
        self._model, self._memory, self._vocabulary = model, memory, vocabulary
        self._domain, self._codes, self._max_items = domain, codes, max_items
        self.encoder = HistoryEncoder(domain, codes, vocabulary, max_items)
        lean = make_beam_model(model, vocabulary.code_length, decoding.dtype)
        self.mixing = decoding.mixing or NETWORK_ALONE
        companions = contents = None
        if memory is not None:
            self.mixing = decoding.mixing or memory.mixing_of(domain)
            companions = CatalogCompanions(memory.companions, vocabulary, domain, codes)
            contents = CatalogCompanions(memory.contents.alike, vocabulary, domain, codes)
        self.search = make_search(
            model,
            lean,
            vocabulary,
            CodeTrie.build(codes),
            domain,
            codes,
            self.mixing,
            companions,
            contents,
            None if decoding.mixing else ranker,
        )
        used = getattr(self.search, "ranker", None)
        self.knows_validation = used is not None and not used.lent

    def taking_for_new(self, items: npt.NDArray[np.bool_]) -> "GenerativeSystem":
        """The same system as if nobody had taken these items (N,) yet, and without a ranker."""
        keys = catalog_keys(self._vocabulary, self._domain, self._codes[items])
        memory = self._memory
        if memory is not None:
            memory = memory._replace(companions=memory.companions.without(keys))
        return GenerativeSystem(
            self._model.taking_for_new(keys),
            self._vocabulary,
            self._domain,
            self._codes,
            max_items=self._max_items,
            decoding=self.decoding,
            memory=memory,
            name=self.name,
        )

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        """The best k items for each user; without those of the history if `exclude_seen`."""
        return self.recommend_histories(query.histories, k, exclude_seen=exclude_seen)

    def recommend_histories(
        self, histories: Sequence[npt.NDArray[np.integer]], k: int, *, exclude_seen: bool
    ) -> Recommendations:
        """The best k items after each history of item indices. Returns (B, k) twice."""
        tokens, mask = self.encoder.encode(histories)
        hits = self.search.search(
            tokens,
            mask,
            k=k,
            beam=max(self.decoding.beam, k),
            exclude=[history.tolist() for history in histories] if exclude_seen else None,
        )
        return Recommendations(hits.items.numpy(), hits.scores.numpy())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How the recommender is validated while it trains."""

    users: int = 2000
    """Users drawn per domain, once per seed; all of them if there are fewer."""
    beam: int = 20
    """Beams; narrower than in the final evaluation, since only the order of runs matters."""
    seed: int = 0
    """Seeds the choice of users."""


def make_validator(
    config: ValidationConfig, *, max_items: int, exclude_seen: bool
) -> Callable[
    [GenerativeRecommender, Vocabulary, Sequence[CodedDomain]], Callable[[], dict[str, float]]
]:
    """What `train_recommender` calls to measure NDCG@10 on validation items.

    With several domains the metric is their mean, and each is logged by name.
    """

    def prepare(
        model: GenerativeRecommender, vocabulary: Vocabulary, domains: Sequence[CodedDomain]
    ) -> Callable[[], dict[str, float]]:
        chosen = [sample_users(domain.split, config.users, (config.seed, 2)) for domain in domains]

        def measure() -> dict[str, float]:
            values = {}
            for domain, users in zip(domains, chosen, strict=True):
                system = GenerativeSystem(
                    model,
                    vocabulary,
                    domain.name,
                    domain.codes,
                    max_items=max_items,
                    decoding=DecodingConfig(beam=config.beam),
                )
                result = evaluate(
                    system,
                    domain.split,
                    part="valid",
                    item_count=len(domain.codes),
                    ks=(10,),
                    exclude_seen=exclude_seen,
                    users=users,
                )
                values[f"ndcg@10 {domain.name}"] = result.mean("ndcg@10")
            return {"ndcg@10": sum(values.values()) / len(values), **values}

        return measure

    return prepare
