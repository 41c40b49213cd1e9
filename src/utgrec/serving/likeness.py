"""What codes say about items: those that are alike, and the tree that codes form.

Shapes: N items of a generation, live or not · L codes per item · D code dimension.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from utgrec.errors import FieldError, InputError
from utgrec.serving.engine import Shelf
from utgrec.tokenizer.quantizer import TreeQuantizer

MOST_COMPARED = 10_000  # items whose distance is computed, if a prefix holds more


class Similar(NamedTuple):
    """An item that is like another one."""

    item: int  # index
    shared: int  # codes that both begin with
    distance: float  # squared distance of the states that their codes rebuild


class Branch(NamedTuple):
    """One child of a place in the tree of codes."""

    code: int
    items: int  # live items below it


class Place(NamedTuple):
    """A place in the tree of codes."""

    items: int  # live items below it
    branches: list[Branch]  # in the order of their codes; none for the codes of an item
    examples: list[int]  # some of the live items below it


def similar_items(shelf: Shelf, item: int, count: int, quantizer: TreeQuantizer) -> list[Similar]:
    """The live items that share the longest beginning of codes with an item, nearest first."""
    own = shelf.codes[item]
    shared = np.cumprod(shelf.codes == own, axis=1).sum(axis=1)  # (N,)
    shared[item] = 0
    shared[~shelf.live] = 0
    candidates = np.argsort(-shared, kind="stable")[: max(MOST_COMPARED, count)]
    candidates = candidates[shared[candidates] > 0]
    if not len(candidates):
        return []
    codes = np.concatenate([own[None], shelf.codes[candidates]]).astype(np.int64)
    with torch.no_grad():
        states = quantizer.embed(torch.from_numpy(codes)).sum(dim=1)  # (1 + candidates, D)
        distance = (states[1:] - states[0]).square().sum(dim=1).numpy()
    order = np.lexsort((distance, -shared[candidates]))[:count]
    return [
        Similar(int(candidates[row]), int(shared[candidates[row]]), float(distance[row]))
        for row in order
    ]


def check_prefix(prefix: Sequence[int], sizes: Sequence[int]) -> None:
    """Raise InputError unless codes can begin so. `sizes` are those of the codebooks."""
    if len(prefix) > len(sizes) or any(
        not 0 <= code < size for code, size in zip(prefix, sizes, strict=False)
    ):
        rule = f"at most {len(sizes)} numbers, each from 0 to below {', '.join(map(str, sizes))}"
        raise InputError(f"codes {list(prefix)} must be {rule}").about(
            [FieldError("codes", "/".join(map(str, prefix)), f"is {rule}")]
        )


def look_up(shelf: Shelf, prefix: Sequence[int], examples: int) -> Place:
    """What is below the first codes of items; an empty prefix is the whole tree.

    Raises:
        InputError: a prefix that no item can have.
    """
    sizes = shelf.generation.sizes
    check_prefix(prefix, sizes)
    depth = len(prefix)
    below = shelf.live & (shelf.codes[:, :depth] == np.array(prefix, dtype=np.int64)).all(axis=1)
    items = np.flatnonzero(below)
    branches = []
    if depth < len(sizes):
        codes, counts = np.unique(shelf.codes[items, depth], return_counts=True)
        branches = [Branch(int(c), int(n)) for c, n in zip(codes, counts, strict=True)]
    return Place(len(items), branches, items[:examples].tolist())
