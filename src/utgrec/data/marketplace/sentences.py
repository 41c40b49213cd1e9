"""What a seller writes about an item: its product, material, theme and purpose, never its colour.

The same fact is told in different words and places, so a model has to understand the sentence.
Colour and pattern stay out: only the picture shows them.
"""

from typing import NamedTuple

import numpy as np

from utgrec.data.marketplace.products import ProductType


class Words(NamedTuple):
    """What a seller says about one item."""

    title: str
    description: str


MATERIALS: dict[str, tuple[str, ...]] = {
    "wood": ("solid wood", "oiled oak", "turned beech", "old-growth timber"),
    "metal": ("brushed steel", "light metal", "tinplate", "sturdy aluminium"),
    "glass": ("clear glass", "hand-blown glass", "thick recycled glass"),
    "ceramic": ("glazed ceramic", "fired clay", "fine porcelain", "stoneware"),
    "cotton": ("organic cotton", "soft cotton", "washed cotton cloth"),
    "wool": ("warm wool", "felted wool", "merino", "lambswool"),
    "leather": ("real leather", "supple hide", "vegetable-tanned leather"),
    "bamboo": ("quick-growing bamboo", "pressed bamboo", "bamboo fibre"),
    "paper": ("heavy paper", "recycled paper", "laid paper", "stiff card"),
}
"""Material → how sellers call it."""

THEMES: dict[str, tuple[str, ...]] = {
    "star": ("a five-pointed star", "a starry emblem", "a bright star"),
    "leaf": ("a single leaf", "a leafy crest", "foliage"),
    "heart": ("a little heart", "a valentine heart", "a token of love"),
    "wave": ("rolling waves", "the surf of the sea", "an ocean swell"),
    "moon": ("a crescent moon", "the new moon", "a moonlit night"),
    "mountain": ("a mountain range", "alpine peaks", "two summits"),
    "flower": ("a flower in bloom", "a blossom", "six round petals"),
    "fish": ("a small fish", "a swimming trout", "a goby from the reef"),
}
"""Theme → how sellers call it."""

PURPOSES: dict[str, tuple[str, ...]] = {
    "travel": ("comes along on every trip", "is made for the road", "suits people who travel"),
    "gift": ("makes a lovely present", "is ready to be given away", "arrives gift-wrapped"),
    "party": ("shines at any celebration", "is at home at parties", "lifts a festive evening"),
    "work": ("stands up to a long working day", "is built for daily work", "helps on the job"),
    "rest": ("invites you to slow down", "is for quiet hours", "helps to unwind on Sundays"),
    "children": ("is safe for small hands", "delights children", "was tested by kids"),
}
"""Purpose → how sellers say it, after the product as subject."""

_TITLES = (
    "{brand} {noun}",
    "{noun} with {theme}",
    "{noun} of {material}",
    "{brand} {noun}: {theme}",
)
_DESCRIPTIONS = (
    "{one_noun} made of {material}. It shows {theme} and {purpose}.",
    "Made of {material} and decorated with {theme}, this {noun} {purpose}.",
    "This {noun} {purpose}. We make it of {material}; its emblem is {theme}.",
    "Look for {theme}: our {noun} {purpose}. Crafted from {material}.",
    "With {theme} on the front, it {purpose}. The {noun} consists of {material}.",
    "{material} gives this {noun} its character. The motif: {theme}. It {purpose}.",
)


def describe(
    product: ProductType, style: dict[str, str], brand: str, rng: np.random.Generator
) -> Words:
    """Title and description of one item; each states the facts in words drawn from `rng`."""
    noun = _one_of(product.nouns, rng)
    facts = {
        "brand": brand,
        "noun": noun,
        "one_noun": f"an {noun}" if noun[0] in "aeiou" else f"a {noun}",
        "material": _one_of(MATERIALS[style["material"]], rng),
        "theme": _one_of(THEMES[style["theme"]], rng),
        "purpose": _one_of(PURPOSES[style["purpose"]], rng),
    }
    title = _one_of(_TITLES, rng).format(**facts)
    text = _one_of(_DESCRIPTIONS, rng).format(**facts)
    return Words(title=_capital(title), description=_capital(text))


def _one_of(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
