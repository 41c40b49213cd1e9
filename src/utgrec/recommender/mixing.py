"""How the voices of a recommender are mixed into one score.

A recommender says four things of an item: how likely its codes are, how near its vector is to what
a history asks for, how often it was taken by the people who took the history's items, and how much
its text is like theirs. With c the log-probability of the codes and v the log-share by vectors, the
network's share of an item is softmax((c + `vectors` · v) / (1 + `vectors`)) over the items that may
be recommended, and the score is log((1 - `companions` - `contents`) · network + `companions` ·
counted + `contents` · alike). What a memory that knows nothing of a history would get goes to the
network.
"""

import dataclasses
from collections.abc import Sequence

from utgrec.config import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
    """Weights of the voices; which are best is found on validation items (docs/recommender.md)."""

    vectors: float = 3.0
    """Weight of the item vectors beside the codes, which weigh 1; 0 leaves them out."""
    companions: float = 0.3
    """Share of what was counted; 0 leaves it out."""
    contents: float = 0.3
    """Share of what is alike by text; 0 leaves it out."""
    decay: float = 0.8
    """Weight of a history's item in both memories, relative to the one taken after it."""

    def __post_init__(self) -> None:
        require(self.vectors >= 0, f"vectors must be at least 0, got {self.vectors}")
        require(
            min(self.companions, self.contents) >= 0 and self.companions + self.contents < 1,
            "companions and contents must be at least 0 and together less than 1, got "
            f"{self.companions} and {self.contents}",
        )
        require(0 < self.decay <= 1, f"decay is in (0, 1], got {self.decay}")


CODES_ALONE = Mixing(vectors=0.0, companions=0.0, contents=0.0)
"""What a recommender writes, and nothing else."""
NETWORK_ALONE = Mixing(companions=0.0, contents=0.0)
"""What was trained, without what is remembered beside it."""


def between(mixtures: Sequence[Mixing]) -> Mixing:
    """The mean of what was found in several shops, for one of which nothing was found yet.

    Item vectors by their share of the network, `vectors` / (1 + `vectors`); no mixtures give the
    default.
    """
    if not mixtures:
        return Mixing()
    count = len(mixtures)
    codes = sum(1 / (1 + one.vectors) for one in mixtures) / count
    return Mixing(
        vectors=round(1 / codes - 1, 6),
        companions=round(sum(one.companions for one in mixtures) / count, 6),
        contents=round(sum(one.contents for one in mixtures) / count, 6),
        decay=round(sum(one.decay for one in mixtures) / count, 6),
    )
