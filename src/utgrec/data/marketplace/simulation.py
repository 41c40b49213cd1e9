"""Run one shop: fill its shelf, let its people choose, and say when they did."""

from typing import NamedTuple

from utgrec.data.marketplace.behaviour import Behaviour, draw_behaviour, draw_histories
from utgrec.data.marketplace.config import MarketplaceConfig
from utgrec.data.marketplace.sessions import draw_times
from utgrec.data.marketplace.world import Integers, Shelf, fill_shelf, random_stream


class Simulation(NamedTuple):
    """Everything that happened in one shop; U users, at most T events each."""

    shelf: Shelf
    behaviour: Behaviour
    user_ids: list[str]  # (U,)
    histories: Integers  # (U, T), item numbers in time order, filled up with -1
    times: Integers  # (U, T), milliseconds since 1970, of no meaning where histories is -1


def simulate(config: MarketplaceConfig, shop: str) -> Simulation:
    """What happens in one shop; the same for the same seed, name and sizes."""
    shelf = fill_shelf(config, shop)
    behaviour = draw_behaviour(config, shelf)
    return Simulation(
        shelf=shelf,
        behaviour=behaviour,
        user_ids=[f"{shop}-{number:06d}" for number in range(1, config.users_per_shop + 1)],
        histories=draw_histories(behaviour, random_stream(config.seed, shop, "choices")),
        times=draw_times(behaviour.lengths, random_stream(config.seed, shop, "times")),
    )
