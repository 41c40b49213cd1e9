"""Which items decoding may return: a mask that all users share, and items that single users skip.

A node of the trie may be entered only if at least one allowed item is below it. For the shared mask
that is one count per node. For a user's skipped items it is enough to look at the nodes above those
items: a node is dead when all its allowed items are skipped. No array has one entry per user and
item.

Shapes: B users · E skipped items (padded) · W beams · C children (padded) · N items · n nodes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from utgrec.decoding.trie import CodeTrie
from utgrec.errors import InputError

NO_ITEM = -1


class AllowedItems:
    """A mask over the items, pushed up the trie once and reusable for many searches."""

    def __init__(self, trie: CodeTrie, mask: Tensor) -> None:
        """`mask` says for every item whether it may be returned. Shapes: mask (N,), bool.

        Raises:
            InputError: not one boolean per item.
        """
        if mask.dtype != torch.bool or mask.shape != (trie.item_count,):
            raise InputError(
                f"the mask of allowed items must be boolean of shape ({trie.item_count},), got "
                f"{mask.dtype} of shape {tuple(mask.shape)}; make it for this catalogue"
            )
        mask = mask.to(trie.device)
        in_order = mask[trie.order]  # (N,)
        self.mask = mask
        self.total = int(mask.sum())
        self.counts = tuple(level.sum_items(in_order) for level in trie.levels)  # each (n,), int32


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
        padded = items if isinstance(items, Tensor) else _pad(items)
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
            skipped &= allowed.mask[padded]
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
            return self._allowed.counts[depth][nodes]
        return self._trie.levels[depth].items(nodes).length


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """One row per user, padded with -1. Shape: (B, E), int64."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    padded = np.full((len(rows), int(lengths.max(initial=0))), NO_ITEM, dtype=np.int64)
    if lengths.any():
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(
            [np.asarray(row, dtype=np.int64) for row in rows]
        )
    return torch.from_numpy(padded)
