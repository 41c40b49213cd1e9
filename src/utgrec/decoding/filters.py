"""Which items decoding may return: a set that all users share, and items that single users skip.

A node of the trie may be entered only if at least one allowed item is below it. For the shared set
that is one count per inner node. For a user's skipped items it is enough to look at the nodes above
those items: a node is dead when all its allowed items are skipped. No array has one entry per user
and item.

Shapes: B users · E skipped items (padded) · W beams · C children (padded) · N items · n nodes.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from utgrec.decoding.itemsets import ItemSet
from utgrec.decoding.trie import CodeTrie, look_up
from utgrec.errors import InputError

NO_ITEM = -1


class AllowedItems:
    """A set of items, pushed up the trie once and reusable for many searches.

    It takes one bit per item and four bytes per inner node: 0.6 MB for a million items.
    """

    def __init__(self, trie: CodeTrie, items: Tensor | ItemSet) -> None:
        """`items` are those that may be returned: a mask of shape (N,), bool, or a set.

        Raises:
            InputError: not one boolean per item, or a set of another catalogue.
        """
        chosen = items if isinstance(items, ItemSet) else ItemSet.of(trie, items)
        if chosen.size != trie.item_count:
            raise InputError(
                f"the set is of a catalogue of {chosen.size} items, this one has "
                f"{trie.item_count}; make it for this catalogue"
            )
        self.total = len(chosen)
        self._trie, self._set = trie, chosen
        self._bits = torch.from_numpy(chosen.bits).to(trie.device)  # (ceil(N / 8),)
        self._counts = tuple(
            None if starts is None else torch.from_numpy(chosen.counts(starts)).to(trie.device)
            for starts in trie.starts
        )  # each (n,), int32; None where a node is an item

    @property
    def mask(self) -> Tensor:
        """Whether each item may be returned. (N,), bool"""
        in_order = torch.from_numpy(self._set.in_order).to(self._trie.device)
        return in_order[self._trie.rank]

    @functools.cached_property
    def words(self) -> Tensor:
        """One bit per item in the order of the catalogue, 64 to a word. (ceil(N / 64),), int64"""
        bits = np.packbits(self.mask.cpu().numpy(), bitorder="little")
        return torch.from_numpy(np.pad(bits, (0, -len(bits) % 8)).view(np.int64))

    def has(self, items: Tensor) -> Tensor:
        """Whether items of the catalogue may be returned. Any shape, int64 → the same, bool"""
        return self.holds(self._trie.rank[items].long())

    def holds(self, positions: Tensor) -> Tensor:
        """Whether items at sorted positions may be returned. Any shape, int64 → the same, bool"""
        byte = look_up(self._bits, positions >> 3)
        return ((byte >> (positions & 7).to(torch.uint8)) & 1).bool()

    def below(self, depth: int, nodes: Tensor) -> Tensor:
        """Number of allowed items below nodes of a level. Any shape, int64 → the same"""
        counts = self._counts[depth]
        return self.holds(nodes).int() if counts is None else look_up(counts, nodes)

    def none_below(self, depth: int, nodes: Tensor) -> Tensor:
        """Whether nodes of a level lead to no allowed item. Any shape, int64 → the same, bool"""
        counts = self._counts[depth]
        return ~self.holds(nodes) if counts is None else look_up(counts, nodes) == 0


class Exclusions:
    """For each user, items never to return."""

    def __init__(self, trie: CodeTrie, positions: Tensor, allowed: AllowedItems | None) -> None:
        """Use `Exclusions.build`."""
        self._trie = trie
        self._allowed = allowed
        self._positions = positions  # (B, E), int64, ascending sorted positions, N is padding
        self.counts = (positions < trie.item_count).sum(dim=1)  # (B,)

    @classmethod
    def build(
        cls,
        trie: CodeTrie,
        items: Tensor | Sequence[Sequence[int]],
        allowed: AllowedItems | None = None,
    ) -> "Exclusions":
        """Skip `items[b]` for user b. Repeats and items outside `allowed` do no harm.

        Shapes: items (B, E), integers padded with -1, or one sequence per user.

        Raises:
            InputError: an item that the catalogue does not have.
        """
        padded = items if isinstance(items, Tensor) else padded_rows(items)
        padded = padded.to(trie.device).long()  # (B, E)
        count = trie.item_count
        if padded.ndim != 2 or bool(((padded < NO_ITEM) | (padded >= count)).any()):
            raise InputError(
                f"excluded items must be one row per user of indices 0 … {count - 1}, padded with "
                f"{NO_ITEM}; got shape {tuple(padded.shape)} with values "
                f"{padded.flatten()[:5].tolist()} …; use the indices of this catalogue"
            )
        skipped = padded != NO_ITEM
        if allowed is not None:
            skipped &= allowed.holds(trie.rank[padded].long())
        positions = torch.where(skipped, trie.rank[padded].long(), count).sort(dim=1).values
        positions[:, 1:][positions[:, 1:] == positions[:, :-1]] = count  # an item counts once
        return cls(trie, positions.sort(dim=1).values, allowed)

    def select(self, users: Tensor) -> "Exclusions":
        """Those of some users. Shapes: users (b,), int64."""
        return Exclusions(self._trie, self._positions[users], self._allowed)

    def block(self, scores: Tensor, depth: int, beams: Tensor, first: Tensor) -> None:
        """Set the scores of dead children to -inf, in place.

        Shapes: scores (B, W, C), of the children of `beams`, which are nodes of level `depth` - 1
            in ascending order; beams (B, W), int64; first (B, W), int64, each beam's first child.
        """
        nodes, parents = self._nodes(depth), self._nodes(depth - 1)  # (B, E)
        size = len(self._trie.levels[depth].codes)
        # Skipped items are sorted, so those below one node are neighbours in the row.
        skipped = torch.searchsorted(nodes, nodes, right=True) - torch.searchsorted(nodes, nodes)
        total = self._items_below(depth, nodes.clamp(max=size - 1))
        dead = (nodes < size) & (skipped == total)
        beam = torch.searchsorted(beams, parents).clamp(max=beams.shape[1] - 1)  # (B, E)
        dead &= beams.gather(1, beam) == parents
        row = torch.arange(len(nodes), device=nodes.device)[:, None].expand_as(nodes)[dead]
        child = nodes[dead] - first[row, beam[dead]]
        scores[row, beam[dead], child] = -torch.inf

    def _nodes(self, depth: int) -> Tensor:
        """The node above each skipped item; padding gives one past the last node. (B, E)"""
        if depth < 0:
            return torch.where(self._positions < self._trie.item_count, 0, 1)  # the root
        return self._trie.levels[depth].node_of(self._positions)

    def _items_below(self, depth: int, nodes: Tensor) -> Tensor:
        """Number of allowed items below nodes. (B, E) → (B, E)"""
        if self._allowed is not None:
            return self._allowed.below(depth, nodes)
        return self._trie.levels[depth].items(nodes).length


def padded_rows(rows: Sequence[Sequence[int]]) -> Tensor:
    """One row per user, padded with -1. Shape: (B, E), int64."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    padded = np.full((len(rows), int(lengths.max(initial=0))), NO_ITEM, dtype=np.int64)
    if lengths.any():
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(
            [np.asarray(row, dtype=np.int64) for row in rows]
        )
    return torch.from_numpy(padded)
