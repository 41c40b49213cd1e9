"""The simulator draws from exactly the distribution that its oracle knows."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from utgrec.data.marketplace import BehaviourConfig, MarketplaceConfig, behaviour
from utgrec.data.marketplace.behaviour import NOTHING, Behaviour, draw_histories
from utgrec.data.marketplace.products import SHOPS
from utgrec.data.marketplace.simulation import Simulation, simulate
from utgrec.data.marketplace.world import STYLES

SMALL = MarketplaceConfig(
    shops=("toys",), items_per_shop=80, users_per_shop=600, cold_share=0.1, max_history=12
)


@pytest.fixture(scope="module")
def shop() -> Simulation:
    return simulate(SMALL, "toys")


def before(simulation: Simulation, event: int) -> tuple[np.ndarray, np.ndarray]:
    """The users that have an event of this number, and what they had taken before it."""
    users = np.flatnonzero(simulation.behaviour.lengths > event)
    return users, simulation.histories[users, :event]


def chances(simulation: Simulation, people: Behaviour) -> tuple[np.ndarray, np.ndarray]:
    """log p of every item that was taken, and Σ p² of the distribution it was drawn from."""
    taken, expected = [], []
    for event in range(int(simulation.behaviour.lengths.max())):
        users, known = before(simulation, event)
        logs = people.log_probabilities(users, known)
        taken.append(logs[np.arange(len(users)), simulation.histories[users, event]])
        expected.append((np.exp(logs) ** 2).sum(axis=1))
    return np.concatenate(taken), np.concatenate(expected)


def test_probabilities_sum_to_one_and_taken_items_have_none(shop: Simulation) -> None:
    users, known = before(shop, 4)
    chance = np.exp(shop.behaviour.log_probabilities(users, known))
    np.testing.assert_allclose(chance.sum(axis=1), 1.0, rtol=1e-12)
    assert (np.take_along_axis(chance, known, axis=1) == 0.0).all()
    open_items = (chance > 0).sum(axis=1)
    cold = shop.shelf.cold.sum()
    last = shop.behaviour.lengths[users] == 5
    assert last.any() and not last.all()
    assert (open_items == np.where(last, 80 - 4, 80 - 4 - cold)).all()


def test_the_table_look_ups_are_the_rule_written_out(shop: Simulation) -> None:
    wants, shelf, people = SMALL.behaviour, shop.shelf, shop.behaviour
    kinds = list(STYLES)
    starts = np.cumsum([0, *(len(values) for values in STYLES.values())])
    bonus = {
        "colour": wants.colour_continuation,
        "theme": wants.theme_continuation,
        "purpose": wants.purpose_continuation,
    }
    user, known = int(np.flatnonzero(people.lengths >= 7)[0]), shop.histories[:, :6]
    last, earlier = int(known[user, 5]), int(known[user, 4])
    goes_with = SHOPS["toys"][shelf.types[last]].goes_with
    scores = np.full(80, -np.inf)
    for item in range(80):
        if item in known[user] or (shelf.cold[item] and people.lengths[user] > 7):
            continue
        score = people.log_popularity[item]
        for place in range(len(kinds)):
            score += people.tastes[user, starts[place] + shelf.styles[item, place]]
        if SHOPS["toys"][shelf.types[item]].name in goes_with:
            score += wants.complement_strength
        if shelf.types[item] == shelf.types[last]:
            score -= wants.same_type_penalty
        for share, other in zip(wants.memory, (last, earlier), strict=True):
            style, mine = shelf.style(other), shelf.style(item)
            score += share * sum(bonus[kind] for kind in bonus if style[kind] == mine[kind])
            if style["colour"] == mine["colour"] and style["theme"] == mine["theme"]:
                score += share * wants.set_continuation
        scores[item] = score
    expected = scores - np.log(np.exp(scores).sum())
    fast = people.log_probabilities(np.array([user]), known[[user]])[0]
    np.testing.assert_allclose(fast, expected, rtol=1e-10)


def test_frequencies_agree_with_the_distribution(shop: Simulation) -> None:
    copies = 6000
    same = np.repeat(shop.behaviour.tastes[:1], copies, axis=0)
    people = dataclasses.replace(
        shop.behaviour, tastes=same, later_tastes=same, lengths=np.full(copies, 2)
    )
    drawn = draw_histories(people, np.random.default_rng(5))
    favourite = int(np.bincount(drawn[:, 0]).argmax())
    followed = drawn[drawn[:, 0] == favourite, 1]
    for items, known in ((drawn[:, 0], []), (followed, [favourite])):
        history = np.array([known], dtype=np.int64)
        chance = np.exp(people.log_probabilities(np.array([0]), history)[0])
        observed = np.bincount(items, minlength=80)
        assert observed[chance == 0].sum() == 0
        common = chance * len(items) >= 5  # the test needs five expected in each cell
        rare = ~common & (chance > 0)
        seen, expected = observed[common], chance[common] * len(items)
        if rare.any():
            seen = np.append(seen, observed[rare].sum())
            expected = np.append(expected, chance[rare].sum() * len(items))
        assert common.sum() > 5
        assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_no_other_parameters_explain_the_events_better(shop: Simulation) -> None:
    people = shop.behaviour
    truth, _ = chances(shop, people)
    shuffled = np.random.default_rng(3).permutation(len(people.tastes))
    others = {
        "weaker tastes": {"tastes": people.tastes * 0.6, "later_tastes": people.tastes * 0.6},
        "stronger tastes": {"tastes": people.tastes * 1.4, "later_tastes": people.tastes * 1.4},
        "someone else's tastes": {
            "tastes": people.tastes[shuffled],
            "later_tastes": people.later_tastes[shuffled],
        },
        "weaker complements": {"complements": people.complements * 0.8},
        "stronger complements": {"complements": people.complements * 1.2},
        "weaker continuation": {"continuation": people.continuation * 0.8},
        "stronger continuation": {"continuation": people.continuation * 1.2},
        "no second item": {"memory": people.memory[:1]},
        "flat popularity": {"log_popularity": people.log_popularity * 0.5},
        "steep popularity": {"log_popularity": people.log_popularity * 1.5},
    }
    for name, change in others.items():
        wrong, _ = chances(shop, dataclasses.replace(people, **change))
        gain = truth - wrong
        assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5, name


def test_the_oracle_is_as_sure_as_it_may_be(shop: Simulation) -> None:
    taken, expected = chances(shop, shop.behaviour)
    gap = np.exp(taken) - expected  # mean 0 when events come from this very distribution
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5
    sharper, too_sure = chances(
        shop, dataclasses.replace(shop.behaviour, log_popularity=shop.behaviour.log_popularity * 3)
    )
    gap = np.exp(sharper) - too_sure
    assert abs(gap.mean()) > 4 * gap.std() / len(gap) ** 0.5


def test_cold_items_are_only_ever_the_last(shop: Simulation) -> None:
    lengths = shop.behaviour.lengths
    last = shop.histories[np.arange(len(lengths)), lengths - 1]
    early = shop.histories.copy()
    early[np.arange(len(lengths)), lengths - 1] = NOTHING
    assert shop.shelf.cold.sum() == 8
    assert shop.shelf.cold[last].sum() > 10
    assert not shop.shelf.cold[early[early != NOTHING]].any()


def test_histories_have_the_lengths_asked_for_and_no_repeats() -> None:
    config = dataclasses.replace(SMALL, users_per_shop=3000, min_history=3, mean_history=6.0)
    drawn = simulate(config, "toys")
    lengths = (drawn.histories != NOTHING).sum(axis=1)
    assert (lengths == drawn.behaviour.lengths).all()
    assert lengths.min() == 3 and lengths.max() <= 12
    assert abs(lengths.mean() - 6.0) < 0.2
    for history, length in zip(drawn.histories, lengths, strict=True):
        assert len(set(history[:length].tolist())) == length


@pytest.mark.parametrize("mean", [5.0, 12.0])
def test_the_extreme_mean_lengths(mean: float) -> None:
    config = dataclasses.replace(SMALL, mean_history=mean)
    lengths = simulate(config, "toys").behaviour.lengths
    assert (lengths == mean).mean() > 0.99


def test_times_increase_and_follow_the_day(shop: Simulation) -> None:
    taken = shop.histories != NOTHING
    steps = np.diff(shop.times, axis=1)[taken[:, 1:]]
    assert (steps > 0).all()
    hours = (shop.times[taken] // 3_600_000) % 24
    assert (hours >= 18).mean() > 3 * (hours < 6).mean()
    assert (steps < 3_600_000).mean() > 0.4 and (steps > 86_400_000).mean() > 0.2


def test_blocks_of_users_change_nothing(shop: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviour, "_BLOCK", 7)
    assert (simulate(SMALL, "toys").histories == shop.histories).all()


def test_taste_drifts_from_one_to_another() -> None:
    wants = BehaviourConfig(taste_drift=1.0, memory=(0.0,), complement_strength=0.0)
    people = simulate(dataclasses.replace(SMALL, behaviour=wants), "toys").behaviour
    steady = dataclasses.replace(people, later_tastes=people.tastes)
    other = dataclasses.replace(people, tastes=people.later_tastes)
    start, end = np.zeros((1, 0), dtype=np.int64), np.arange(12)[None]

    def scores(who: Behaviour, history: np.ndarray) -> np.ndarray:
        return who.log_probabilities(np.array([0]), history)

    np.testing.assert_array_equal(scores(people, start), scores(steady, start))
    np.testing.assert_array_equal(scores(people, end), scores(other, end))
    assert np.abs(np.exp(scores(steady, end)) - np.exp(scores(other, end))).max() > 0.01
