"""The world that all shops share: styles, which products wear them, and a shop's shelf.

Shapes: N items of a shop · F factors that people care about · V values of all factors together.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.data.marketplace.config import MarketplaceConfig
from utgrec.data.marketplace.products import SHOPS

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

STYLES: dict[str, tuple[str, ...]] = {
    "colour": (
        *("red", "orange", "yellow", "green", "teal"),
        *("blue", "purple", "pink", "brown", "grey"),
    ),
    "pattern": ("plain", "stripes", "dots", "checks", "zigzag", "triangles"),
    "material": (
        *("wood", "metal", "glass", "ceramic", "cotton"),
        *("wool", "leather", "bamboo", "paper"),
    ),
    "theme": ("star", "leaf", "heart", "wave", "moon", "mountain", "flower", "fish"),
    "purpose": ("travel", "gift", "party", "work", "rest", "children"),
}
"""Kind of style → its values, the same in every shop. A product also has its type and a set (one
colour with one theme)."""

PICTURE_ONLY = ("colour", "pattern")
"""Kinds that only the picture shows; the purpose is only in the text, all else in both."""

FACTORS = (*STYLES, "set", "type")
"""What people care about, one column each."""

_BRANDS = (
    *("Alder & Finch", "Northgate", "Marlow", "Tilda", "Kestrel", "Old Harbour"),
    *("Juno", "Pemberton", "Ostara", "Willowby", "Hanami", "Quarry Lane"),
)


class Shelf(NamedTuple):
    """The items of one shop; row number = item number in the simulator."""

    shop: str
    item_ids: list[str]  # (N,)
    types: Integers  # (N,), place in SHOPS[shop]
    styles: Integers  # (N, 5), place in the values of each kind, in the order of STYLES
    pictured: Flags  # (N,), False where there is no picture
    cold: Flags  # (N,), True where an item can only be somebody's last one
    brands: list[str]  # (N,)
    prices: list[float]  # (N,)

    def style(self, item: int) -> dict[str, str]:
        """Kind of style → value of one item."""
        row = self.styles[item]
        return {kind: STYLES[kind][row[place]] for place, kind in enumerate(STYLES)}


def random_stream(seed: int, *names: str) -> np.random.Generator:
    """A stream of its own for each seed and purpose, whatever else is drawn."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], dtype="<u4").tolist()])


def fill_shelf(config: MarketplaceConfig, shop: str) -> Shelf:
    """Draw the items of one shop."""
    count = config.items_per_shop
    products = SHOPS[shop]
    rng = random_stream(config.seed, shop, "shelf")
    types = rng.permutation(np.arange(count) % len(products))
    styles = np.stack([rng.integers(len(values), size=count) for values in STYLES.values()], axis=1)
    allowed = np.array(
        [[STYLES["material"].index(name) for name in product.materials] for product in products]
    )
    styles[:, list(STYLES).index("material")] = allowed[
        types, rng.integers(allowed.shape[1], size=count)
    ]
    typical = np.array([product.price for product in products])[types]
    prices = np.ceil(typical * np.exp(0.25 * rng.standard_normal(count))) - 0.05
    brands = [_BRANDS[place] for place in rng.integers(len(_BRANDS), size=count)]
    return Shelf(
        shop=shop,
        item_ids=[f"{shop[:3].upper()}{number:05d}" for number in range(1, count + 1)],
        types=types,
        styles=styles,
        pictured=~_exact_share(rng, count, config.share_without_picture),
        cold=_exact_share(rng, count, config.cold_share),
        brands=brands,
        prices=[round(float(price), 2) for price in prices],
    )


def factor_sizes(shop: str) -> Integers:
    """How many values each factor has. Shapes: → (F,)."""
    sizes = {kind: len(values) for kind, values in STYLES.items()}
    sizes |= {"set": sizes["colour"] * sizes["theme"], "type": len(SHOPS[shop])}
    return np.array([sizes[factor] for factor in FACTORS])


def factor_values(shelf: Shelf) -> Integers:
    """The items' values of each factor, counted over all factors. Shapes: → (N, F), below V."""
    kinds = list(STYLES)
    colour = shelf.styles[:, kinds.index("colour")]
    theme = shelf.styles[:, kinds.index("theme")]
    values = np.column_stack([shelf.styles, colour * len(STYLES["theme"]) + theme, shelf.types])
    return values + factor_starts(factor_sizes(shelf.shop))  # (N, F)


def factor_starts(sizes: Integers) -> Integers:
    """Where the values of each factor begin. Shapes: (F,) → (F,)."""
    return np.cumsum(sizes) - sizes


def _exact_share(rng: np.random.Generator, count: int, share: float) -> Flags:
    """Flags with exactly `share` (rounded) of them set, at random places."""
    flags = np.zeros(count, dtype=bool)
    flags[rng.permutation(count)[: round(count * share)]] = True
    return flags
