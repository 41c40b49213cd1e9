"""The codes of every domain: how evenly they are used, and what the first code means.

Shapes: N items · L codes per item · K root entries.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from utgrec.report.charts import Bars, bars
from utgrec.report.pictures import Gallery, Tile
from utgrec.report.source import DomainSource

MEANINGS = 6  # root codes shown
ITEMS = 5  # items shown of a root code and a domain
FEWEST = 3  # items that a root code needs in some domain to be shown


class Agreement(NamedTuple):
    """How often co-taken items share a prefix; the widths are in % of the largest share."""

    length: int
    share: float
    chance: float
    share_width: float
    chance_width: float


class DomainCodes(NamedTuple):
    """The codes of one domain."""

    domain: str
    items: int
    conflict_rate: float
    moved_rate: float
    lift: float
    levels: list[dict[str, Any]]  # size, used, dead, perplexity, gini
    usage: list[Bars]  # items per entry, one per position, after repair
    agreement: list[Agreement]


class Example(NamedTuple):
    """Some items of one domain that share a root code."""

    domain: str
    members: int  # items of this domain with the code
    tiles: list[Tile]


class Meaning(NamedTuple):
    """One root code, and what has it in each domain."""

    code: int
    examples: list[Example]


def domain_codes(source: DomainSource) -> DomainCodes:
    """The figures of the codes stage, and the usage of each position counted from the table."""
    facts = source.codes.facts
    codes = source.coded.codes
    counts = [
        np.bincount(codes[:, level].astype(np.int64), minlength=size)
        for level, size in enumerate(facts["sizes"])
    ]
    shares = list(zip(facts["neighbour_agreement"], facts["chance_agreement"], strict=True))
    widest = max((max(pair) for pair in shares), default=0.0) or 1.0
    return DomainCodes(
        domain=source.name,
        items=facts["items"],
        conflict_rate=facts["conflict_rate"],
        moved_rate=facts["moved_rate"],
        lift=facts["agreement_lift"],
        levels=facts["levels"],
        usage=[bars(count.tolist()) for count in counts],
        agreement=[
            Agreement(place, share, chance, 100 * share / widest, 100 * chance / widest)
            for place, (share, chance) in enumerate(shares, 1)
        ],
    )


def meanings(
    sources: Sequence[DomainSource], galleries: Sequence[Gallery], seed: int
) -> list[Meaning]:
    """The most used root codes and some drawn at random, each with items drawn at random.

    Half are the most used ones, where one sees best what is lumped together; the others are drawn
    from all that have at least FEWEST items in some domain.
    """
    roots = [source.coded.codes[:, 0].astype(np.int64) for source in sources]
    size = max(int(source.codes.facts["sizes"][0]) for source in sources)
    counts = np.stack([np.bincount(root, minlength=size) for root in roots])  # (domains, K)
    usable = np.flatnonzero(counts.max(axis=0) >= FEWEST)
    order = usable[np.argsort(-counts.sum(axis=0)[usable], kind="stable")]
    often, others = order[: MEANINGS // 2], order[MEANINGS // 2 :]
    rng = np.random.default_rng([seed, 11])
    drawn = rng.choice(others, min(MEANINGS - len(often), len(others)), replace=False)
    chosen = [*often.tolist(), *sorted(drawn.tolist(), key=lambda code: -counts[:, code].sum())]
    found = []
    for code in chosen:
        examples = []
        for source, gallery, root in zip(sources, galleries, roots, strict=True):
            members = np.flatnonzero(root == code)
            if len(members):
                picked = rng.choice(members, min(ITEMS, len(members)), replace=False)
                tiles = [gallery.tile(int(index)) for index in np.sort(picked)]
                examples.append(Example(source.name, len(members), tiles))
        found.append(Meaning(code, examples))
    return found
