"""Companions: items that the same people took soon after, remembered beside the network.

What little a shop's log says of a rare item is in its counts; a network needs many steps to learn
them by heart, and a small shop does not have the log for it. So a recommender keeps, for each item
of its training histories, the items most likely to follow: the cosine of tf-idf vectors over users,
as ItemKNN has it, where users who took the two near each other, and in this order, count for more.
An item is known by its domain and its codes (`item_vectors.py`), so the memory holds in every later
generation of a catalogue. Nothing is trained here, so a new shop has companions as soon as it has a
log. `contents.py` keeps items that say the same in the same way.

Shapes: n known items of all domains · K companions of each · B histories · T items · L codes ·
N items of a catalogue.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from utgrec.config import require
from utgrec.data.similarities import Order, Similarities, likely_to_follow
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.item_vectors import catalog_keys, item_keys, token_bits
from utgrec.recommender.vocabulary import Vocabulary

NONE = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompanionsConfig:
    """What is remembered of who took what."""

    neighbours: int = 100
    """Most similar items kept for each item, K; 0 remembers nothing."""
    shrink: float = 5.0
    """A similarity that rests on m common users is multiplied by m / (m + shrink) (users)."""
    distance: float = 0.1
    """Two items that a user took o places apart count 1 / (1 + distance · (o - 1))."""
    backward: float = 0.7
    """What an item says of those taken before it, beside those taken after it."""
    window: int = 50
    """Items of a user that are further apart say nothing of each other (places)."""

    def __post_init__(self) -> None:
        require(self.neighbours >= 0, f"neighbours must be at least 0, got {self.neighbours}")
        require(self.shrink >= 0, f"shrink must be at least 0, got {self.shrink}")
        require(self.distance >= 0, f"distance must be at least 0, got {self.distance}")
        require(0 <= self.backward <= 1, f"backward must be in [0, 1], got {self.backward}")
        require(self.window >= 1, f"window must be at least 1, got {self.window}")

    @property
    def order(self) -> Order:
        """How much the places of two items in a history count."""
        return Order(self.distance, self.backward, self.window)


class Companions(NamedTuple):
    """For each item the items that go with it: taken by the same users, or of the same words."""

    keys: Tensor  # (n,), int64, ascending: domain and codes of each known item
    rows: Tensor  # (n, K), int32, places in `keys`, NONE where there are fewer
    similar: Tensor  # (n, K), float32, best first, 0 where there are fewer

    @classmethod
    def nothing(cls) -> "Companions":
        """A memory without items."""
        none = torch.zeros(0, 0)
        return cls(torch.zeros(0, dtype=torch.int64), none.int(), none)

    def without(self, keys: Tensor) -> "Companions":
        """The memory of somebody who never heard of these items, (m,) keys."""
        kept = ~torch.isin(self.keys, keys)  # (n,)
        place = torch.full((len(self.keys) + 1,), NONE, dtype=torch.int32)
        place[:-1][kept] = torch.arange(int(kept.sum()), dtype=torch.int32)
        rows = place[self.rows[kept]]  # NONE is the last place, which holds NONE
        return Companions(self.keys[kept], rows, self.similar[kept].masked_fill(rows == NONE, 0.0))

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        save_file({name: value.contiguous() for name, value in self._asdict().items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Companions":
        """Open what `save` wrote."""
        return cls(**load_file(path))


def count_companions(
    domains: Sequence[CodedDomain], vocabulary: Vocabulary, config: CompanionsConfig
) -> Companions:
    """Count the training histories of some domains.

    Raises:
        BadConfig: codes too long to be remembered by (`item_vectors.py`).
    """
    if config.neighbours == 0:
        return Companions.nothing()
    keys, counted = [], []
    for domain in domains:
        split = domain.split
        known = np.unique(split.train)  # (n_d,)
        counted.append(
            likely_to_follow(
                split.offsets,
                np.searchsorted(known, split.train),
                len(known),
                neighbours=config.neighbours,
                shrink=config.shrink,
                order=config.order,
            )
        )
        keys.append(catalog_keys(vocabulary, domain.name, domain.codes[known]))
    return join_companions(keys, counted, config.neighbours)


def join_companions(
    keys: Sequence[Tensor], found: Sequence[Similarities], neighbours: int
) -> Companions:
    """One memory of several domains, whose neighbours are counted within each domain.

    Shapes: for each domain keys (n_d,), found (n_d, at most K).
    """
    rows, similar, start = [], [], 0
    for own, one in zip(keys, found, strict=True):
        width = neighbours - one.items.shape[1]
        items = np.pad(one.items, ((0, 0), (0, width)), constant_values=NONE)
        rows.append(np.where(items == NONE, NONE, items + start))
        similar.append(np.pad(one.values, ((0, 0), (0, width))))
        start += len(own)
    if not start:
        return Companions.nothing()
    return sort_companions(
        torch.cat(list(keys)),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(similar)),
    )


def sort_companions(keys: Tensor, rows: Tensor, similar: Tensor) -> Companions:
    """The memory in the order of its keys. Shapes: (n,), (n, K) places in `keys`, (n, K)."""
    ascending = keys.sort()
    place = torch.empty_like(ascending.indices)
    place[ascending.indices] = torch.arange(len(keys))
    joined = rows[ascending.indices].long()
    moved = torch.where(joined == NONE, NONE, place[joined.clamp(min=0)])
    return Companions(ascending.values, moved.int(), similar[ascending.indices].float())


class Named(NamedTuple):
    """Companions of the items of histories, the same item perhaps several times."""

    items: Tensor  # (B, E), int64, indices of the catalogue, N for one that it does not have
    similar: Tensor  # (B, E), float32, weighed similarities, 0 for none


class CatalogCompanions:
    """The memory in terms of one catalogue: from histories to shares of its items."""

    def __init__(
        self,
        memory: Companions,
        vocabulary: Vocabulary,
        domain: str,
        codes: npt.NDArray[np.int16],
    ) -> None:
        """For the items of a domain with these codes (N, L); what it lacks is not proposed."""
        self._memory, self._bits = memory, token_bits(vocabulary)
        self._length, self.item_count = vocabulary.code_length, len(codes)
        place = self._places(catalog_keys(vocabulary, domain, codes))  # (N,)
        self._item = torch.full((len(memory.keys) + 1,), self.item_count)
        held = place < len(memory.keys)
        self._item[place[held]] = torch.arange(self.item_count)[held]
        self.known = int(held.sum())

    def weigh(self, input_ids: Tensor, attention_mask: Tensor, decay: float) -> Tensor:
        """Sums of similarities to a history's items, the newest first, each older one × `decay`.

        Shapes: input_ids (B, S): domain, codes of the items, end; attention_mask (B, S) → (B, N).
        """
        out = torch.zeros(len(input_ids), self.item_count + 1)
        named = self.named(input_ids, attention_mask, decay)
        out.scatter_add_(1, named.items, named.similar)
        return out[:, :-1]

    def named(self, input_ids: Tensor, attention_mask: Tensor, decay: float) -> Named:
        """The companions of a history's items one by one; `weigh` adds those of the same item.

        A `decay` of 0 leaves the newest item alone.

        Shapes: as in `weigh` → (B, T × K) twice.
        """
        if self.known == 0:
            none = torch.zeros(len(input_ids), 0)
            return Named(none.long(), none)
        most = (input_ids.shape[1] - 2) // self._length  # T
        # The size of a code is named, since an empty history leaves nothing to infer it from.
        items = input_ids[:, 1 : 1 + most * self._length]
        items = items.reshape(len(input_ids), most, self._length)
        count = (attention_mask.sum(dim=1) - 2) // self._length  # (B,)
        if decay == 0 and most > 1:
            items = items[torch.arange(len(items)), count.clamp(min=1) - 1][:, None]
            most, count = 1, count.clamp(max=1)
        place = self._places(item_keys(input_ids[:, 0], items, self._bits))  # (B, T)
        age = count[:, None] - 1 - torch.arange(most)  # (B, T)
        weight = torch.where(age >= 0, decay ** age.clamp(min=0).float(), 0.0)
        weight = weight * (place < len(self._memory.keys))
        place = place.clamp(max=len(self._memory.keys) - 1)
        rows = self._memory.rows[place].long()  # (B, T, K)
        rows = rows.masked_fill(rows == NONE, len(self._memory.keys))
        added = self._memory.similar[place] * weight[:, :, None]  # (B, T, K)
        return Named(self._item[rows].flatten(1), added.flatten(1))

    def _places(self, keys: Tensor) -> Tensor:
        """Place of each key in the memory; n where it is not there."""
        known = self._memory.keys
        if not len(known):
            return torch.zeros_like(keys)
        place = torch.searchsorted(known, keys).clamp(max=len(known) - 1)
        return place.masked_fill(known[place] != keys, len(known))
