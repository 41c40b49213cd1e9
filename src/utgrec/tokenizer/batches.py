"""Training batches: items and their partners, encoded once each.

An anchor brings a partner, drawn among its neighbours by how often people took the two in a row.
The graph is symmetric, so the anchor serves the partner as positive too: every item of a batch is
encoded once. Both can be switched off (`PartnersConfig`), to see what they are worth. Items drawn
twice leave room for others, which come without a partner.

A batch is drawn as a whole and divided among processes. All of them know its light parts (words,
latents, who is whose partner); the prompts, which are heavy, are made for a process's own items.

Shapes: N items of a batch · B of them that a process encodes · T text positions · G latents of a
picture · C latent channels.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from utgrec.config import require
from utgrec.data.neighbours import Neighbours
from utgrec.tokenizer.backbone import Backbone, Prompts
from utgrec.tokenizer.items import ItemInputs, build_prompts, like_lengths, prompt_lengths
from utgrec.tokenizer.shapes import round_up
from utgrec.training.trainer import Share, SharedBatches

# Batches of a shuffled epoch are sorted by length within pools of this many batches.
POOL = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartnersConfig:
    """How items that are taken together meet in a batch."""

    by_count: bool = True
    """Partners are drawn by how often people took the two in a row; without it, all alike."""
    mutual: bool = True
    """An anchor is its partner's positive, too; without it the partner has none."""


class Pairs(NamedTuple):
    """The items of a batch, drawn but not laid out."""

    rows: npt.NDArray[np.int64]  # (N,), items, all different, ascending
    partner: npt.NDArray[np.int64]  # (N,), row that is the item's positive; -1 for none
    seed: int  # of the noise that pictures are learned with


class TokenizerBatch(NamedTuple):
    """What one process sees in one training step of the tokenizer."""

    rows: npt.NDArray[np.int64]  # (N,), items, all different
    words: Tensor  # (N, T), token ids to rebuild, -100 beyond the text
    latents: Tensor  # (N, G, C), zeros without picture
    has_image: Tensor  # (N,), bool
    partner: Tensor  # (N,), row of the batch that is the item's positive; -1 for none
    false_negatives: Tensor  # (N, N), bool, true where the column is a known neighbour of the row
    prompts: list[Prompts]  # of the B own items, in groups of like length
    own: Tensor  # (B,), rows of the batch that the prompts are of
    sizes: tuple[int, ...]  # items that each process encodes, N in all
    order: Tensor  # (N,), where each row comes among the items of all processes
    recompute: bool  # whether groups give up their activations until the backward pass
    seed: int  # of the noise that pictures are learned with


class PairBatches:
    """Batch number → batch, a function of the seed and the number alone."""

    def __init__(
        self,
        items: ItemInputs,
        neighbours: Neighbours,
        trained: npt.NDArray[np.int64],
        backbone: Backbone,
        *,
        code_length: int,
        batch_size: int,
        seed: int,
        at_once: int = 0,
        partners: PartnersConfig | None = None,
    ) -> None:
        """What batches are made of.

        Args:
            trained: the items that occur in training histories; only they are ever drawn.
            at_once: items whose activations a process holds at once; 0 means all of its share.
        """
        self.items = items
        partners = partners or PartnersConfig()
        self.mutual = partners.mutual
        counts = neighbours.counts if partners.by_count else np.ones_like(neighbours.counts)
        self.neighbours = neighbours._replace(counts=counts)
        self.trained = trained
        self.backbone = backbone
        self.code_length = code_length
        self.anchors = anchors_of(batch_size)
        self.seed = seed
        self.at_once = at_once
        self.per_epoch = batches_per_epoch(batch_size, len(trained))
        self._lengths = prompt_lengths(items, backbone, code_length)
        self._graph = sparse.csr_matrix(
            (np.ones(len(neighbours.items), bool), neighbours.items, neighbours.offsets),
            shape=(len(items), len(items)),
        )
        self._epoch = -1
        self._order: list[npt.NDArray[np.int64]] = []

    def __call__(self, number: int) -> TokenizerBatch:
        """The batch of one optimiser step, as one process alone sees it."""
        return self.lay_out(self.draw(number), 0, 1)

    @property
    def shared(self) -> SharedBatches:
        """The same batches for the training loop, for any number of processes."""
        return SharedBatches(
            draw=self.draw,
            share=lambda pairs, number, count: Share(self.lay_out(pairs, number, count), 1.0),
            rows=lambda pairs: len(pairs.rows),
            whole=True,
        )

    def draw(self, number: int) -> Pairs:
        """Who is in the batch of one optimiser step, and with whom."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffle(epoch)
        anchors = self._order[place]
        rng = np.random.default_rng([self.seed, 1, number])
        partners = self.neighbours.draw(anchors, rng).astype(np.int64)
        # Items met twice leave room for others, which come without a partner.
        spare = 2 * self.anchors - len(np.union1d(anchors, partners))
        others = np.setdiff1d(self.trained, np.concatenate([anchors, partners]))
        filling = rng.choice(others, min(spare, len(others)), replace=False)
        seed = int(rng.integers(2**62))
        return pair(
            np.concatenate([anchors, filling]),
            np.concatenate([partners, filling]),
            seed,
            mutual=self.mutual,
        )

    def collate(
        self, anchors: npt.NDArray[np.int64], partners: npt.NDArray[np.int64]
    ) -> TokenizerBatch:
        """Lay out anchors and their partners; a partner equal to its anchor means none."""
        return self.lay_out(pair(anchors, partners, self.seed, mutual=self.mutual), 0, 1)

    def lay_out(self, pairs: Pairs, number: int, count: int) -> TokenizerBatch:
        """What process `number` of `count` sees of a batch.

        Raises:
            BadConfig: the batch has fewer items than there are processes.
        """
        rows = pairs.rows
        require(
            len(rows) >= count,
            f"a batch of {len(rows)} items cannot be shared by {count} processes; use fewer, or a "
            "larger batch_size",
        )
        groups = like_lengths(self._lengths[rows], count, self.at_once)
        own = [group[number::count] for group in groups]
        everyone = [np.concatenate([group[i::count] for group in groups]) for i in range(count)]
        picture = self.items.latent_rows[rows]
        latents = torch.zeros(len(rows), *self.items.latents.shape[1:])
        latents[torch.from_numpy(picture >= 0)] = self.items.latents[picture[picture >= 0]]
        return TokenizerBatch(
            rows=rows,
            words=_pad([self.items.words[row] for row in rows]),
            latents=latents,
            has_image=torch.from_numpy(picture >= 0),
            partner=torch.from_numpy(pairs.partner),
            false_negatives=torch.from_numpy(self._graph[rows][:, rows].toarray()),
            prompts=[
                build_prompts(self.items, rows[group], self.backbone, self.code_length)
                for group in own
            ],
            own=torch.from_numpy(np.concatenate(own)),
            sizes=tuple(len(part) for part in everyone),
            order=torch.from_numpy(np.argsort(np.concatenate(everyone))),
            recompute=self.at_once > 0 and len(groups) > 1,
            seed=pairs.seed,
        )

    def _shuffle(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 0, epoch])
        order = rng.permutation(self.trained)
        lengths = self._lengths
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(order), POOL * self.anchors):
            pool = order[start : start + POOL * self.anchors]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            batches += [pool[i : i + self.anchors] for i in range(0, len(pool), self.anchors)]
        return [batches[i] for i in rng.permutation(len(batches))]


def anchors_of(batch_size: int) -> int:
    """Items of a batch that bring a partner."""
    return max(1, batch_size // 2)


def batches_per_epoch(batch_size: int, trained: int) -> int:
    """Batches in which every one of so many trained items is an anchor once."""
    return -(-trained // anchors_of(batch_size))


def pair(
    anchors: npt.NDArray[np.int64], partners: npt.NDArray[np.int64], seed: int, *, mutual: bool
) -> Pairs:
    """Bring anchors and their partners together; a partner equal to its anchor means none."""
    rows, place = np.unique(np.concatenate([anchors, partners]), return_inverse=True)
    first, second = np.split(place, 2)
    partner = np.full(len(rows), -1, dtype=np.int64)
    real = first != second
    # Anchors come last, so that an item that is both keeps the partner drawn for it.
    if mutual:
        partner[second[real]] = first[real]
    partner[first[real]] = second[real]
    return Pairs(rows, partner, seed)


def _pad(words: list[npt.NDArray[np.int64]]) -> Tensor:
    longest = round_up(max(1, max(len(ids) for ids in words)))
    out = np.full((len(words), longest), -100, dtype=np.int64)
    for row, ids in enumerate(words):
        out[row, : len(ids)] = ids
    return torch.from_numpy(out)
