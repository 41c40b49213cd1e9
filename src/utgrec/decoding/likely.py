"""Items that are likely by what was trained: by their codes and, where there are any, item vectors.

Of all items but a few nothing is needed except the sum of their shares.

Shapes: B users · W hits · E excluded items · S tokens of a history · M width · N items ·
n pairs of a user and an item, as keys user × N + item.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from utgrec.decoding.beam import Hits
from utgrec.decoding.filters import AllowedItems, Exclusions
from utgrec.decoding.item_table import NOTHING, PANEL, ItemTable, Panels
from utgrec.decoding.sparse import Sparse
from utgrec.decoding.trie import CodeTrie


class Heard(NamedTuple):
    """What beam search found, and what else is given, of some users."""

    hits: Hits  # (B, W)
    states: Tensor | None  # (B, M), what the network made of each history
    input_ids: Tensor  # (B, S)
    attention_mask: Tensor  # (B, S)
    allowed: AllowedItems | None
    excluded: Tensor  # (B, E), int64, padded with -1

    def part(self, users: slice) -> "Heard":
        """The same of some users."""
        return Heard(
            Hits(*(field[users] for field in self.hits)),
            None if self.states is None else self.states[users],
            self.input_ids[users],
            self.attention_mask[users],
            self.allowed,
            self.excluded[users],
        )


def by_vectors(
    table: ItemTable, asked: Tensor, heard: Heard, changes: Sparse, k: int
) -> tuple[Tensor, Tensor]:
    """Keys of items among which are the k best of each user by codes and vectors, and the
    logarithm of the sum over all usable items, (B,)."""
    count, allowed = len(table.vectors), heard.allowed
    panels = table.panels(asked, None if allowed is None else allowed.words)
    size = panels.largest.shape[1]  # P
    # Panels with excluded items are computed again, without them.
    lost = changes.keys[changes.values == -torch.inf]
    again, row = torch.unique(lost // count * size + lost % count // PANEL, return_inverse=True)
    if len(again):
        of, panel = again // size, again % size
        members = panel[:, None] * PANEL + torch.arange(PANEL)  # (panels, 64)
        missing = members >= count
        missing[row, lost % count % PANEL] = True
        members = members.clamp(max=count - 1)
        if allowed is not None:
            missing |= ~allowed.has(members)
        scores = table.of_pairs(asked, of, members).masked_fill_(missing, -torch.inf)
        for into, values in zip(panels, Panels.of(scores), strict=True):
            into[of, panel] = values
    total = (panels.largest + panels.sums.log()).logsumexp(dim=1)  # (B,), without codes
    hits = changes.keys[changes.values > -torch.inf]
    of, plain = hits // count, table.of_pairs(asked, hits // count, hits % count)
    raised = plain + changes.at(hits)
    largest = total.clamp(min=NOTHING).scatter_reduce(0, of, raised, "amax")
    more = (raised - largest[of]).exp() - (plain - largest[of]).exp()
    total = largest + (total - largest).exp().index_add(0, of, more).log()
    best = panels.largest.topk(min(k, size), dim=1).indices  # (B, k)
    items = (best[:, :, None] * PANEL + torch.arange(PANEL)).flatten(1)  # (B, k × 64)
    within = items < count
    items = items.clamp(max=count - 1)
    if allowed is not None:
        within &= allowed.has(items)
    row = torch.arange(len(items))
    plain = table.of_pairs(asked, row, items).masked_fill_(~within, -torch.inf)
    # Among so many are the k best that are not excluded.
    enough = min(k + heard.excluded.shape[1], items.shape[1])
    best = plain.topk(enough, dim=1, sorted=False).indices
    keys = row[:, None] * count + items.gather(1, best)
    return torch.cat([keys[within.gather(1, best)], hits]), total


def by_codes(trie: CodeTrie, heard: Heard, changes: Sparse, k: int) -> tuple[Tensor, Tensor]:
    """The same where codes speak alone: hits, and of all others, which are equal, the first."""
    count, users = trie.item_count, len(heard.excluded)
    allowed = heard.allowed
    left = torch.full((users,), count if allowed is None else allowed.total)
    left = left - Exclusions.build(trie, heard.excluded, allowed).counts
    hits = changes.values > -torch.inf
    of = changes.keys[hits] // count
    among = torch.zeros(users).index_add_(0, of, changes.values[hits].exp())
    total = (among + left - torch.bincount(of, minlength=users)).log()
    enough = k + heard.hits.items.shape[1] + heard.excluded.shape[1]
    first = torch.arange(min(count, enough))
    if allowed is not None:
        first = allowed.mask.nonzero().squeeze(1)[:enough]
    keys = torch.arange(users)[:, None] * count + first
    return torch.cat([keys.flatten(), changes.keys]), total
