"""How people choose: the exact distribution of the next item, and histories drawn from it.

log p(next | user, history) = log softmax over the items still allowed of
    popularity + taste + complement of the last type + continuation of the last items' styles.
Nobody takes an item twice. Every term is a sum over the item's factors, so a person's weights are
one row of V numbers, and scoring a catalogue is F look-ups per item.

Shapes: U users · N items · F factors · V values of all factors · B users of a call · T events.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from utgrec.data.marketplace.config import BehaviourConfig, MarketplaceConfig
from utgrec.data.marketplace.products import SHOPS
from utgrec.data.marketplace.world import (
    FACTORS,
    STYLES,
    Flags,
    Floats,
    Integers,
    Shelf,
    factor_sizes,
    factor_starts,
    factor_values,
    random_stream,
)

NOTHING = -1
_BLOCK = 256  # users scored at once; keeps the (block, N) tables in the cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The people of one shop and what they want; holds no text and no picture."""

    values: Integers
    """(N, F), the value of each factor, counted over all factors."""
    log_popularity: Floats
    """(N,), nats."""
    cold: Flags
    """(N,), True where an item can only be somebody's last one."""
    tastes: Floats
    """(U, V), bonus of each value at a user's first event, nats."""
    later_tastes: Floats
    """(U, V), what `tastes` has become when `drift_events` events have passed."""
    drift_events: int
    """Events until `later_tastes` is reached."""
    complements: Floats
    """(V, V), bonus of a value (column) after an item that has the value of the row, nats."""
    memory: Floats
    """(M,), how much of its continuation bonus the last item has, the one before, and so on."""
    continuation: Floats
    """(F,), bonus of having the same value as an earlier item, nats."""
    lengths: Integers
    """(U,), items that each user takes in all; only the last may be cold."""

    def log_probabilities(self, users: Integers, histories: Integers) -> Floats:
        """Log-probability of every item to be the next one; -inf where it cannot be.

        Shapes: users (B,), histories (B, T) in time order, filled up with -1 at the end → (B, N).
        """
        rows = np.arange(len(users))[:, None]
        taken = (histories != NOTHING).sum(axis=1)  # (B,)
        weights = self._weights(users, histories, taken)  # (B, V)
        scores = np.repeat(self.log_popularity[None], len(users), axis=0)  # (B, N)
        for factor in range(self.values.shape[1]):
            scores += np.take(weights, self.values[:, factor], axis=1)
        not_last = taken < self.lengths[users] - 1
        scores[np.ix_(not_last, self.cold)] = -np.inf
        known = histories != NOTHING
        scores[np.broadcast_to(rows, histories.shape)[known], histories[known]] = -np.inf
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores

    def _weights(self, users: Integers, histories: Integers, taken: Integers) -> Floats:
        """What each value of each factor is worth to each user now. Shapes: → (B, V)."""
        passed = np.minimum(taken / self.drift_events, 1.0)[:, None]  # (B, 1)
        weights = (1.0 - passed) * self.tastes[users] + passed * self.later_tastes[users]
        for back, share in enumerate(self.memory, start=1):
            who = np.flatnonzero(taken >= back)
            before = self.values[histories[who, taken[who] - back]]  # (b, F)
            weights[who[:, None], before] += share * self.continuation
            if back == 1:
                weights[who] += self.complements[before].sum(axis=1)  # (b, F, V) → (b, V)
        return weights


def draw_behaviour(config: MarketplaceConfig, shelf: Shelf) -> Behaviour:
    """Draw the people of one shop."""
    wants = config.behaviour
    rng = random_stream(config.seed, shelf.shop, "people")
    count = config.items_per_shop
    sizes = factor_sizes(shelf.shop)
    ranks = rng.permutation(count) + 1
    tastes = _draw_tastes(rng, wants, sizes, config.users_per_shop)
    others = _draw_tastes(rng, wants, sizes, config.users_per_shop)
    drift = wants.taste_drift
    return Behaviour(
        values=factor_values(shelf),
        log_popularity=-wants.popularity_exponent * np.log(ranks),
        cold=shelf.cold,
        tastes=tastes,
        later_tastes=(1.0 - drift) * tastes + drift * others,
        drift_events=config.max_history,
        complements=_complements(shelf.shop, wants, sizes),
        memory=np.array(wants.memory, dtype=np.float64),
        continuation=_continuation(wants),
        lengths=_draw_lengths(rng, config),
    )


def draw_histories(behaviour: Behaviour, rng: np.random.Generator) -> Integers:
    """Let every user take their items, one after the other, each drawn from the exact distribution.

    Shapes: → (U, T), item numbers in time order, filled up with -1 at the end.
    """
    longest = int(behaviour.lengths.max())
    histories = np.full((len(behaviour.lengths), longest), NOTHING, dtype=np.int64)
    tickets = rng.random(histories.shape)  # drawn at once, so blocks of users change nothing
    for event in range(longest):
        active = np.flatnonzero(behaviour.lengths > event)
        for users in np.array_split(active, -(-len(active) // _BLOCK)):
            scores = behaviour.log_probabilities(users, histories[users, :event])
            totals = np.cumsum(np.exp(scores), axis=1)  # (b, N)
            aim = tickets[users, event, None] * totals[:, -1:]
            histories[users, event] = (totals <= aim).sum(axis=1)
    return histories


def pad_histories(histories: Sequence[Integers]) -> Integers:
    """Histories of different lengths as one table, filled up with -1 at the end."""
    longest = max((len(history) for history in histories), default=0)
    table = np.full((len(histories), longest), NOTHING, dtype=np.int64)
    for row, history in enumerate(histories):
        table[row, : len(history)] = history
    return table


def blocks(count: int) -> list[slice]:
    """Cut `count` users into the blocks that are scored at once."""
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]


def _draw_tastes(
    rng: np.random.Generator, wants: BehaviourConfig, sizes: Integers, users: int
) -> Floats:
    """A few sharp likes, each of another kind of style, over small diffuse ones."""
    styles = len(STYLES)
    tastes = wants.taste_noise * rng.standard_normal((users, int(sizes.sum())))  # (U, V)
    tastes[:, int(sizes[:styles].sum()) :] = 0.0  # sets and types are nobody's taste
    kinds = np.argsort(rng.random((users, styles)), axis=1)[:, : wants.preferences]  # (U, P)
    liked = np.floor(rng.random(kinds.shape) * sizes[kinds]).astype(np.int64)
    strength = wants.preference_strength * rng.uniform(0.7, 1.3, size=kinds.shape)
    tastes[np.arange(users)[:, None], factor_starts(sizes)[kinds] + liked] += strength
    return tastes


def _draw_lengths(rng: np.random.Generator, config: MarketplaceConfig) -> Integers:
    """Beta-binomial lengths: between the bounds, with exactly the mean that is asked for."""
    room = config.max_history - config.min_history
    if room == 0:
        return np.full(config.users_per_shop, config.min_history)
    mean = min(max((config.mean_history - config.min_history) / room, 1e-6), 1.0 - 1e-6)
    shares = rng.beta(3.0 * mean, 3.0 * (1.0 - mean), size=config.users_per_shop)
    return config.min_history + rng.binomial(room, shares)


def _complements(shop: str, wants: BehaviourConfig, sizes: Integers) -> Floats:
    products = SHOPS[shop]
    names = [product.name for product in products]
    start = int(factor_starts(sizes)[FACTORS.index("type")])
    table = np.zeros((int(sizes.sum()), int(sizes.sum())))
    for place, product in enumerate(products):
        for other in product.goes_with:
            table[start + place, start + names.index(other)] = wants.complement_strength
        table[start + place, start + place] -= wants.same_type_penalty
    return table


def _continuation(wants: BehaviourConfig) -> Floats:
    by_factor = {
        "colour": wants.colour_continuation,
        "theme": wants.theme_continuation,
        "purpose": wants.purpose_continuation,
        "set": wants.set_continuation,
    }
    return np.array([by_factor.get(factor, 0.0) for factor in FACTORS])
