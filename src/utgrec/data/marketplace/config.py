"""The settings of a simulated marketplace: how large it is, and how its people behave."""

import dataclasses

from utgrec.config import require
from utgrec.data.marketplace.products import SHOPS


@dataclasses.dataclass(frozen=True, kw_only=True)
class BehaviourConfig:
    """What moves people: strengths are added to log-probabilities (nats)."""

    popularity_exponent: float = 0.5
    """Zipf exponent of the items' popularity within a shop; 0 makes all items equally popular."""
    preferences: int = 3
    """Attribute values that a user likes sharply, each of a different kind."""
    preference_strength: float = 1.2
    """Mean bonus of an item for each liked value that it has."""
    taste_noise: float = 0.2
    """Standard deviation of the small, diffuse likes and dislikes of every value."""
    taste_drift: float = 0.0
    """Share of a user's taste that is replaced by another one over `max_history` events, 0 to 1."""
    complement_strength: float = 2.5
    """Bonus of the product types that go with the type of the last item."""
    same_type_penalty: float = 2.0
    """What another item of the last item's product type loses."""
    colour_continuation: float = 1.3
    """Bonus of the last item's colour."""
    theme_continuation: float = 1.3
    """Bonus of the last item's theme."""
    purpose_continuation: float = 0.6
    """Bonus of the last item's purpose."""
    set_continuation: float = 0.8
    """Bonus, on top of both, of an item with the colour and the theme of the last one."""
    memory: tuple[float, ...] = (1.0, 0.4)
    """How much of the continuation bonus the last item has, the one before, and so on."""

    def __post_init__(self) -> None:
        require(
            1 <= self.preferences <= 5,
            f"preferences must be 1 to 5 (one for each kind of attribute), got {self.preferences}",
        )
        require(
            0.0 <= self.taste_drift <= 1.0,
            f"taste_drift is a share and must be 0 to 1, got {self.taste_drift}",
        )
        require(
            self.popularity_exponent >= 0.0 and self.taste_noise >= 0.0,
            "popularity_exponent and taste_noise must not be negative, got "
            f"{self.popularity_exponent} and {self.taste_noise}",
        )
        require(
            len(self.memory) >= 1,
            "memory must name the weight of at least the last item; use (0.0,) for none",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarketplaceConfig:
    """A marketplace of several shops; everything in it follows from these values."""

    seed: int = 7
    """Start of all random streams. A shop depends on the seed, its name and the sizes, not on the
    other shops."""
    shops: tuple[str, ...] = ("kitchen", "clothing")
    """Names of the shops; each becomes one domain with its own product types."""
    items_per_shop: int = 600
    """Catalogue size of each shop."""
    users_per_shop: int = 1500
    """Users of each shop; no user visits two shops."""
    min_history: int = 5
    """Fewest items that a user takes."""
    mean_history: float = 9.0
    """Expected number of items that a user takes."""
    max_history: int = 20
    """Most items that a user takes."""
    picture_size: int = 84
    """Width and height of the pictures (pixels)."""
    share_without_picture: float = 0.15
    """Share of the items that have no picture; nothing tells their colour and pattern."""
    cold_share: float = 0.0
    """Share of the items that can only be a user's last one, so that no training data has them."""
    behaviour: BehaviourConfig = dataclasses.field(default_factory=BehaviourConfig)
    """What moves people."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed must not be negative, got {self.seed}")
        unknown = [shop for shop in self.shops if shop not in SHOPS]
        require(
            bool(self.shops) and not unknown and len(set(self.shops)) == len(self.shops),
            f"shops must be one or more different names out of {', '.join(SHOPS)}; "
            f"got {', '.join(self.shops) or 'none'}",
        )
        require(self.users_per_shop >= 1, f"users_per_shop must be 1 or more, got {self}")
        require(
            3 <= self.min_history <= self.mean_history <= self.max_history,
            "histories need 3 <= min_history <= mean_history <= max_history, got "
            f"{self.min_history}, {self.mean_history}, {self.max_history}",
        )
        for name in ("share_without_picture", "cold_share"):
            share = getattr(self, name)
            require(0.0 <= share < 1.0, f"{name} must be from 0 to less than 1, got {share}")
        warm = self.items_per_shop - round(self.items_per_shop * self.cold_share)
        require(
            warm > self.max_history,
            f"nobody takes an item twice, so a shop needs more than max_history = "
            f"{self.max_history} items that are not cold; it has {warm}: raise items_per_shop",
        )
        require(
            28 <= self.picture_size <= 1024,
            f"picture_size must be 28 to 1024 pixels, got {self.picture_size}",
        )
