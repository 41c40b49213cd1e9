"""Training batches: items and their partners, encoded once each.

An anchor brings a partner, drawn among its neighbours by how often people took the two in a row.
The graph is symmetric, so the anchor serves the partner as positive too: every item of a batch is
encoded once. Items drawn twice leave room for others, which come without a partner.

Shapes: B items of a batch · T text positions · G latents of a picture · C latent channels.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from utgrec.data.neighbours import Neighbours
from utgrec.tokenizer.backbone import Backbone, Prompts
from utgrec.tokenizer.items import ItemInputs, build_prompts
from utgrec.tokenizer.shapes import round_up

# Batches of a shuffled epoch are sorted by length within pools of this many batches.
POOL = 16


class TokenizerBatch(NamedTuple):
    """What one training step of the tokenizer sees."""

    rows: npt.NDArray[np.int64]  # (B,), items, all different
    prompts: Prompts
    words: Tensor  # (B, T), token ids to rebuild, -100 beyond the text
    latents: Tensor  # (B, G, C), zeros without picture
    has_image: Tensor  # (B,), bool
    partner: Tensor  # (B,), row of the batch that is the item's positive; -1 for none
    false_negatives: Tensor  # (B, B), bool, true where the column is a known neighbour of the row


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
    ) -> None:
        """`trained` are the items that occur in training histories; only they are ever drawn."""
        self.items = items
        self.neighbours = neighbours
        self.trained = trained
        self.backbone = backbone
        self.code_length = code_length
        self.anchors = max(1, batch_size // 2)
        self.seed = seed
        self.per_epoch = -(-len(trained) // self.anchors)
        self._graph = sparse.csr_matrix(
            (np.ones(len(neighbours.items), bool), neighbours.items, neighbours.offsets),
            shape=(len(items), len(items)),
        )
        self._epoch = -1
        self._order: list[npt.NDArray[np.int64]] = []

    def __call__(self, number: int) -> TokenizerBatch:
        """The batch of one optimiser step."""
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
        return self.collate(np.concatenate([anchors, filling]), np.concatenate([partners, filling]))

    def collate(
        self, anchors: npt.NDArray[np.int64], partners: npt.NDArray[np.int64]
    ) -> TokenizerBatch:
        """Lay out anchors and their partners; a partner equal to its anchor means none."""
        rows, place = np.unique(np.concatenate([anchors, partners]), return_inverse=True)
        first, second = np.split(place, 2)
        partner = np.full(len(rows), -1, dtype=np.int64)
        real = first != second
        # Anchors come last, so that an item that is both keeps the partner drawn for it.
        partner[second[real]] = first[real]
        partner[first[real]] = second[real]
        near = self._graph[rows][:, rows].toarray()
        picture = self.items.latent_rows[rows]
        latents = torch.zeros(len(rows), *self.items.latents.shape[1:])
        latents[torch.from_numpy(picture >= 0)] = self.items.latents[picture[picture >= 0]]
        return TokenizerBatch(
            rows=rows,
            prompts=build_prompts(self.items, rows, self.backbone, self.code_length),
            words=_pad([self.items.words[row] for row in rows]),
            latents=latents,
            has_image=torch.from_numpy(picture >= 0),
            partner=torch.from_numpy(partner),
            false_negatives=torch.from_numpy(near),
        )

    def _shuffle(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 0, epoch])
        order = rng.permutation(self.trained)
        lengths = self.items.lengths
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(order), POOL * self.anchors):
            pool = order[start : start + POOL * self.anchors]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            batches += [pool[i : i + self.anchors] for i in range(0, len(pool), self.anchors)]
        return [batches[i] for i in rng.permutation(len(batches))]


def _pad(words: list[npt.NDArray[np.int64]]) -> Tensor:
    longest = round_up(max(1, max(len(ids) for ids in words)))
    out = np.full((len(words), longest), -100, dtype=np.int64)
    for row, ids in enumerate(words):
        out[row, : len(ids)] = ids
    return torch.from_numpy(out)
