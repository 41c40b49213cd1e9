"""Which candidates go on: the best children of a step, the best leaves, and what need not be tried.

Equal scores go to the lower codes everywhere, so that an answer does not hang on chance.

Shapes: B users · W beams · C children of a node (padded) · M candidates.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

# With fewer users × spared beams than this, a second pass costs more than it saves.
_WORTH_A_PASS = 256


class Beams(NamedTuple):
    """The nodes that a search has reached."""

    nodes: Tensor  # (B, W), int64, of one level, ascending, so that ties go to the lower codes
    parents: Tensor  # (B, W), int64, the beam that each one continues
    scores: Tensor  # (B, W), float32, -inf for a beam that leads nowhere


class Leaves(NamedTuple):
    """The best leaves of each user, best first."""

    nodes: Tensor  # (B, k), int64
    scores: Tensor  # (B, k), float32, -inf where there are fewer than k


def keep_best(child: Tensor, scores: Tensor, width: int, size: int) -> Beams:
    """The best children, of a level with `size` nodes, become the beams.

    Shapes: child (B, W, C), scores (B, W, C).
    """
    best, place = best_of(scores.flatten(1), width)  # (B, W')
    # The lower place is the lower node. Live beams first, in that order.
    order = place.masked_fill(best == -torch.inf, torch.iinfo(place.dtype).max).argsort(dim=1)
    live = max(int((best > -torch.inf).sum(dim=1).max()), 1)
    order = order[:, :live]
    place, kept = place.gather(1, order), best.gather(1, order)
    nodes = child.flatten(1).gather(1, place)
    return Beams(
        nodes=nodes.masked_fill(kept == -torch.inf, size - 1),  # keeps the row ascending
        parents=place // child.shape[2],
        scores=kept,
    )


def best_leaves(nodes: Tensor, scores: Tensor, k: int) -> Leaves:
    """The k best of some leaves. Shapes: nodes (B, M), ascending where scores are finite; scores
    (B, M)."""
    best, place = best_of(scores, k)
    order = place.argsort(dim=1)
    best, place = best.gather(1, order), place.gather(1, order)
    best, order = best.sort(dim=1, descending=True, stable=True)
    found = nodes.gather(1, place.gather(1, order))
    missing = k - found.shape[1]  # when there are fewer candidates
    if missing > 0:
        found = torch.nn.functional.pad(found, (0, missing))
        best = torch.nn.functional.pad(best, (0, missing), value=-torch.inf)
    return Leaves(found, best)


def merge_leaves(leaves: Leaves, more: Leaves, users: Tensor) -> Leaves:
    """The best of two choices; the second is of some users only.

    Shapes: leaves (B, k), more (b, k), users (b,), int64 → (B, k).
    """
    nodes = torch.cat([leaves.nodes[users], more.nodes], dim=1)  # (b, 2k)
    scores = torch.cat([leaves.scores[users], more.scores], dim=1)
    order = nodes.argsort(dim=1)
    both = best_leaves(nodes.gather(1, order), scores.gather(1, order), leaves.nodes.shape[1])
    return Leaves(
        leaves.nodes.index_copy(0, users, both.nodes),
        leaves.scores.index_copy(0, users, both.scores),
    )


def best_of(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores, in any order, and their places; of equal ones the lower places.

    Shapes: scores (B, M), float32 → two times (B, min(count, M)).
    """
    count = min(count, scores.shape[1])
    best, place = scores.topk(count, dim=1)
    last = best[:, -1:]
    # `topk` leaves open which of several equal scores it takes, if not all of them fit.
    crowded = ((scores >= last).sum(dim=1) > count) & (last[:, 0] > -torch.inf)
    if bool(crowded.any()):
        return _best_by_place(scores, count)
    return best, place


def _best_by_place(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`best_of`, slower: score and place form one integer, so that no two are equal."""
    size = scores.shape[1]
    bits = (scores + 0.0).view(torch.int32)  # adding zero turns -0.0, which sorts apart, into 0.0
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats sort backwards as integers
    places = torch.arange(size - 1, -1, -1, device=scores.device)
    keys = (ascending.long() << 32) | places  # (B, M)
    best = keys.topk(count, dim=1).values
    place = size - 1 - (best & 0xFFFFFFFF)
    return scores.gather(1, place), place


def count_of_first(beams: Beams, before: Beams, k: int) -> int:
    """How many of the best beams to try before the others in the last step; all of them: W.

    A beam's items never score above the beam itself. So once k items are found, beams below the
    k-th need not be tried. This guesses how many are then above it, as if the last code cost what
    the code before did. A wrong guess costs time and changes no result.
    """
    width = beams.scores.shape[1]
    best, place = beams.scores.topk(min(k, width), dim=1)  # (B, k)
    cost = best - before.scores.gather(1, beams.parents.gather(1, place))
    cost = cost[cost.isfinite()]
    if not len(cost) or len(best) * (width - k) < _WORTH_A_PASS:
        return width
    above = (beams.scores >= best[:, -1:] + cost.mean()).sum(dim=1)
    wanted = max(int(above.float().mean().ceil()), k)
    spared = len(best) * (width - wanted)
    return wanted if 4 * wanted <= 3 * width and spared >= _WORTH_A_PASS else width


def part(beams: Beams, count: int, size: int) -> tuple[Beams, Beams]:
    """The `count` best beams and the others, both in the order of nodes, of a level of `size`."""
    order = beams.scores.argsort(dim=1, descending=True, stable=True)
    return _take(beams, order[:, :count], size), _take(beams, order[:, count:], size)


def above(beams: Beams, bar: Tensor, users: Tensor, size: int) -> Beams:
    """Beams of some users, without those whose score is below the user's bar.

    Shapes: bar (B, 1), users (b,), int64.
    """
    nodes, parents, scores = (field[users] for field in beams)
    scores = scores.masked_fill(scores < bar[users], -torch.inf)
    width = max(int((scores > -torch.inf).sum(dim=1).max()), 1)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :width]
    return _take(Beams(nodes, parents, scores), order, size)


def _take(beams: Beams, places: Tensor, size: int) -> Beams:
    """Some beams of each user, in the order of their nodes; dead ones come last."""
    nodes, parents, scores = (field.gather(1, places) for field in beams)
    nodes = nodes.masked_fill(scores == -torch.inf, size - 1)
    order = nodes.argsort(dim=1, stable=True)
    return Beams(*(field.gather(1, order) for field in (nodes, parents, scores)))


def select_rows(value: Any, rows: Tensor) -> Any:
    """Some users of a state: of every tensor in nested (named) tuples, these rows."""
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, tuple):
        chosen = [select_rows(one, rows) for one in value]
        return type(value)(*chosen) if hasattr(value, "_fields") else tuple(chosen)
    return value
