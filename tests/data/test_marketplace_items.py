"""What the shops sell: pictures and sentences tell what they should, and nothing else."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from utgrec.data.marketplace import BehaviourConfig, MarketplaceConfig
from utgrec.data.marketplace.icons import ICONS
from utgrec.data.marketplace.pictures import COLOURS, Pose, draw_picture, draw_pose
from utgrec.data.marketplace.products import SHOPS
from utgrec.data.marketplace.sentences import MATERIALS, PURPOSES, THEMES, describe
from utgrec.data.marketplace.silhouettes import SILHOUETTES
from utgrec.data.marketplace.world import STYLES, fill_shelf
from utgrec.errors import BadConfig

PICTURE_WORDS = {
    *STYLES["colour"],
    *("crimson", "scarlet", "rose", "rosy", "gold", "golden", "silver", "violet", "azure", "navy"),
    *("turquoise", "lilac", "beige", "black", "white", "gray", "color", "colour", "coloured"),
    *("plain", "stripe", "stripes", "striped", "dot", "dots", "dotted", "check", "checks"),
    *("checked", "chequered", "zigzag", "chevron", "triangle", "triangles", "pattern", "patterned"),
}
STYLE = {
    "colour": "blue",
    "pattern": "dots",
    "material": "wood",
    "theme": "star",
    "purpose": "gift",
}


def pixels(product: str = "plate", **style: str) -> np.ndarray:
    picture = draw_picture(product, {**STYLE, **style}, Pose(), 84)
    assert picture.size == (84, 84) and picture.mode == "RGB"
    return np.asarray(picture, dtype=np.float64)


def test_texts_never_tell_what_only_pictures_show() -> None:
    rng = np.random.default_rng(0)
    for products in SHOPS.values():
        for product in products:
            for draw in range(60):
                style = {kind: values[draw % len(values)] for kind, values in STYLES.items()}
                words = describe(product, style, "Tilda", rng)
                said = set(re.findall(r"[a-z]+", f"{words.title} {words.description}".lower()))
                assert not said & PICTURE_WORDS, words


def test_texts_tell_product_material_theme_and_purpose() -> None:
    rng = np.random.default_rng(1)
    told = {"material": MATERIALS, "theme": THEMES, "purpose": PURPOSES}
    for draw in range(300):
        product = SHOPS["garden"][draw % 8]
        style = {kind: str(rng.choice(values)) for kind, values in STYLES.items()}
        text = describe(product, style, "Tilda", rng).description.lower()
        assert any(noun in text for noun in product.nouns)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\{|\}", text), text
        for kind, phrases in told.items():
            found = [
                value for value, said in phrases.items() if any(p.lower() in text for p in said)
            ]
            assert found == [style[kind]], text


def test_the_same_fact_is_told_in_many_ways() -> None:
    rng = np.random.default_rng(2)
    texts = {describe(SHOPS["toys"][0], STYLE, "Tilda", rng).description for _ in range(200)}
    assert len(texts) > 100


def test_the_world_is_complete() -> None:
    names = [product.name for products in SHOPS.values() for product in products]
    assert len(set(names)) == len(names)
    assert set(names) == set(SILHOUETTES)
    assert set(ICONS) == set(THEMES) == set(STYLES["theme"])
    assert set(COLOURS) == set(STYLES["colour"])
    assert set(MATERIALS) == set(STYLES["material"]) and set(PURPOSES) == set(STYLES["purpose"])
    for products in SHOPS.values():
        own = {product.name for product in products}
        for product in products:
            assert set(product.goes_with) <= own - {product.name}
            assert set(product.materials) <= set(STYLES["material"])


@pytest.mark.parametrize("kind", ["colour", "pattern", "material", "theme"])
def test_each_value_looks_different(kind: str) -> None:
    drawn = [pixels(**{"pattern": "plain", kind: value}) for value in STYLES[kind]]
    for place, one in enumerate(drawn):
        for other in drawn[:place]:
            assert np.abs(one - other).max() > 15


def test_each_product_looks_different_and_purpose_does_not_show() -> None:
    drawn = [pixels(product) for product in SILHOUETTES]
    for place, one in enumerate(drawn):
        for other in drawn[:place]:
            assert np.abs(one - other).mean() > 1
    np.testing.assert_array_equal(pixels(purpose="gift"), pixels(purpose="work"))


def test_the_most_common_tone_is_the_colour() -> None:
    palette = np.array([*COLOURS.values(), (250, 248, 243), (20, 20, 20)], dtype=float)
    for number, product in enumerate(SILHOUETTES):
        name = list(COLOURS)[number % len(COLOURS)]
        drawn = pixels(product, colour=name, pattern="plain", material="paper").reshape(-1, 3)
        nearest = ((drawn[:, None] - palette) ** 2).sum(axis=2).argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(palette))[: len(COLOURS)]
        assert list(COLOURS)[counts.argmax()] == name, (product, name)


def test_a_pose_moves_the_product_a_little() -> None:
    rng = np.random.default_rng(4)
    poses = [draw_pose(rng) for _ in range(2)]
    drawn = [np.asarray(draw_picture("mug", STYLE, pose, 56), dtype=float) for pose in poses]
    again = np.asarray(draw_picture("mug", STYLE, poses[0], 56), dtype=float)
    np.testing.assert_array_equal(drawn[0], again)
    assert 0 < np.abs(drawn[0] - drawn[1]).mean() < 40


def test_shops_share_styles_and_nothing_else() -> None:
    config = MarketplaceConfig(items_per_shop=400, cold_share=0.1)
    kitchen, clothing = (fill_shelf(config, shop) for shop in config.shops)
    assert not set(kitchen.item_ids) & set(clothing.item_ids)
    for place, values in enumerate(STYLES.values()):
        both = set(kitchen.styles[:, place]) & set(clothing.styles[:, place])
        assert len(both) > (1 if "wood" in values else len(values) - 1)
    for shelf in (kitchen, clothing):
        assert (~shelf.pictured).sum() == 60 and shelf.cold.sum() == 40
        assert np.bincount(shelf.types).tolist() == [50] * 8
        for item in range(400):
            product = SHOPS[shelf.shop][shelf.types[item]]
            assert shelf.style(item)["material"] in product.materials


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shops": ("bakery",)}, "bakery"),
        ({"shops": ("toys", "toys")}, "toys, toys"),
        ({"shops": ()}, "none"),
        ({"min_history": 2}, "2, 9.0, 20"),
        ({"mean_history": 21.0}, "21.0"),
        ({"items_per_shop": 20}, "20"),
        ({"items_per_shop": 22, "cold_share": 0.1}, "cold"),
        ({"share_without_picture": 1.0}, "1.0"),
        ({"cold_share": -0.1}, "-0.1"),
        ({"picture_size": 8}, "8"),
        ({"users_per_shop": 0}, "users_per_shop"),
        ({"seed": -1}, "-1"),
    ],
)
def test_impossible_marketplaces_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=re.escape(message)):
        dataclasses.replace(MarketplaceConfig(), **change)


@pytest.mark.parametrize(
    "change", [{"preferences": 6}, {"taste_drift": 1.5}, {"memory": ()}, {"taste_noise": -1.0}]
)
def test_impossible_behaviour_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        BehaviourConfig(**change)
