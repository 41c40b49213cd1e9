"""Which mixture of a recommender's voices guesses the validation items best.

The network is trained by then, so this only weighs scores: a grid over the weights of `Mixing`, on
a sample of users, with the beams that the final evaluation has. Test items have no part in it.

Shapes: B users · N items.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from utgrec.decoding.mixed import MixedSearch
from utgrec.evaluation.generative import DecodingConfig, GenerativeSystem, ValidationConfig
from utgrec.evaluation.metrics import ndcg_at
from utgrec.evaluation.protocol import make_query, sample_users
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.mixing import CODES_ALONE, Mixing
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.train import Memory
from utgrec.recommender.vocabulary import Vocabulary

VECTORS = (0.3, 1.0, 3.0, 10.0)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)  # of companions and of contents
MOST_REMEMBERED = 0.9  # of both together
DECAYS = (1.0, 0.8, 0.6, 0.4)
# Users × items × mixtures that are scored, about a minute of one core.
_MOST_SCORES = 10**10
_FEWEST_USERS = 200


def make_calibrator(
    config: ValidationConfig, decoding: DecodingConfig, *, max_items: int, exclude_seen: bool
) -> Callable[
    [GenerativeRecommender, Vocabulary, Sequence[CodedDomain], Memory], dict[str, Mixing]
]:
    """What `train_recommender` calls once the network is trained."""

    def calibrate(
        model: GenerativeRecommender,
        vocabulary: Vocabulary,
        domains: Sequence[CodedDomain],
        memory: Memory,
    ) -> dict[str, Mixing]:
        return {
            domain.name: _calibrate(
                model, vocabulary, domain, memory, config, decoding, max_items, exclude_seen
            )
            for domain in domains
        }

    return calibrate


def _calibrate(
    model: GenerativeRecommender,
    vocabulary: Vocabulary,
    domain: CodedDomain,
    memory: Memory,
    config: ValidationConfig,
    decoding: DecodingConfig,
    max_items: int,
    exclude_seen: bool,
) -> Mixing:
    pairs = [pair for pair in itertools.product(SHARES, SHARES) if sum(pair) <= MOST_REMEMBERED]
    grid = len(VECTORS) * len(pairs) * len(DECAYS)
    most = max(_FEWEST_USERS, _MOST_SCORES // (grid * max(1, len(domain.codes))))
    users = sample_users(domain.split, min(config.users, most), (config.seed, 4))
    system = GenerativeSystem(
        model,
        vocabulary,
        domain.name,
        domain.codes,
        max_items=max_items,
        decoding=dataclasses.replace(decoding, mixing=Mixing()),
        memory=memory,
    )
    search = system.search
    if not isinstance(search, MixedSearch):
        return CODES_ALONE  # there is nothing to mix
    if len(users) == 0:
        return memory.mixing_of(domain.name)
    query = make_query(domain.split, users, "valid")
    targets = torch.from_numpy(domain.split.valid[users].astype(np.int64))
    tokens, mask = system.encoder.encode(query.histories)
    gains: dict[Mixing, float] = {}
    for voices in search.voices(
        tokens,
        mask,
        k=10,
        beam=decoding.beam,
        exclude=[history.tolist() for history in query.histories] if exclude_seen else None,
    ):
        part = voices.users
        reachable = voices.usable.gather(1, targets[part, None])[:, 0]  # (b,)
        networks = [(vectors, voices.network(vectors).exp()) for vectors in VECTORS]
        for decay in DECAYS:
            counted, alike = (
                torch.zeros(()) if sums is None else voices.shares(sums)
                for sums in search.remembered(tokens[part], mask[part], decay)
            )
            heard = [shares.any(dim=-1, keepdim=True) for shares in (counted, alike)]  # (b, 1)
            for (vectors, network), (one, two) in itertools.product(networks, pairs):
                trained = (1 - one * heard[0] - two * heard[1]) * network
                mixing = Mixing(vectors=vectors, companions=one, contents=two, decay=decay)
                found = gain(trained + one * counted + two * alike, targets[part], reachable)
                gains[mixing] = gains.get(mixing, 0.0) + found
    # Of equal ones the first: the grid goes from little to much.
    return max(gains, key=lambda mixing: gains[mixing])


def gain(scores: Tensor, targets: Tensor, reachable: Tensor) -> float:
    """Sum of NDCG@10 over users. Shapes: scores (b, N), targets (b,), reachable (b,), bool."""
    wanted = scores.gather(1, targets[:, None])  # (b, 1)
    ahead = (scores > wanted).sum(dim=1)
    ahead = torch.where(reachable, ahead, scores.shape[1])
    return float(ndcg_at(ahead.numpy(), 10).sum())
