"""Training samples of the encoder-decoder: every prefix of every training history.

Shapes: B samples · S tokens of a history · L codes per item.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.recommender.histories import CodedDomain, HistoryEncoder, epoch_shares
from utgrec.recommender.vocabulary import PAD, Vocabulary

# Batches of a shuffled epoch are sorted by length within pools of this many batches.
POOL = 32


class PrefixBatch(NamedTuple):
    """What the recommender reads and is to write."""

    tokens: Tensor  # (B, S), int64: domain, codes of the history's items, end; padded on the right
    mask: Tensor  # (B, S), int64, 1 where a token is
    targets: Tensor  # (B, L), int64, token ids of the next item's codes


class PrefixBatches:
    """Batch number → batch, a function of the seed and the number alone.

    In an epoch a domain gives as many samples as its share, n_d ** temperature normalised: 1 draws
    domains by their size, 0 draws them equally. Within a domain all prefixes come before any comes
    again.
    """

    def __init__(
        self,
        domains: Sequence[CodedDomain],
        vocabulary: Vocabulary,
        *,
        max_items: int,
        batch_size: int,
        temperature: float,
        seed: int,
    ) -> None:
        """The samples of some domains.

        Raises:
            EmptyDomain: there is not a single sample in all of them.
        """
        self.encoders = [
            HistoryEncoder(domain.name, domain.codes, vocabulary, max_items) for domain in domains
        ]
        self.max_items = max_items
        self.batch_size = batch_size
        self.seed = seed
        self.items = [domain.split.train for domain in domains]
        self.ends = [_prefix_ends(domain.split.offsets) for domain in domains]
        self.starts = [
            np.repeat(domain.split.offsets[:-1], np.diff(domain.split.offsets))
            for domain in domains
        ]
        sizes = [len(ends) for ends in self.ends]
        self.samples = sum(sizes)
        share = epoch_shares(domains, sizes, temperature)
        self.quota = np.round(self.samples * share).astype(np.int64)
        self.per_epoch = -(-int(self.quota.sum()) // batch_size)
        self._epoch = -1
        self._order: list[npt.NDArray[np.int64]] = []

    def __call__(self, number: int) -> PrefixBatch:
        """The batch of one optimiser step."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffle(epoch)
        return self.collate(self._order[place])

    def collate(self, samples: npt.NDArray[np.int64]) -> PrefixBatch:
        """Lay out samples, given as (B, 2) pairs of domain and position of the target item."""
        parts = []
        for domain, encoder in enumerate(self.encoders):
            ends = samples[samples[:, 0] == domain, 1]
            if len(ends) == 0:
                continue
            items = self.items[domain]
            starts = np.maximum(self.starts[domain][ends], ends - self.max_items)
            kept = [items[start:end] for start, end in zip(starts, ends, strict=True)]
            tokens, mask = encoder.encode(kept)
            parts.append((tokens, mask, torch.from_numpy(encoder.item_tokens[items[ends]])))
        longest = max(tokens.shape[1] for tokens, _, _ in parts)
        return PrefixBatch(
            tokens=torch.cat([_widen(tokens, longest) for tokens, _, _ in parts]),
            mask=torch.cat([_widen(mask, longest) for _, mask, _ in parts]),
            targets=torch.cat([targets for _, _, targets in parts]),
        )

    def _shuffle(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        drawn = []
        for domain, ends in enumerate(self.ends):
            first = epoch * int(self.quota[domain])
            places = [
                self._shuffled_place(domain, number)
                for number in range(
                    first // max(len(ends), 1),
                    -(-(first + int(self.quota[domain])) // max(len(ends), 1)),
                )
            ]
            if places:
                offset = first % len(ends)
                chosen = np.concatenate(places)[offset : offset + int(self.quota[domain])]
                drawn.append(np.stack([np.full(len(chosen), domain), ends[chosen]], axis=1))
        rng = np.random.default_rng([self.seed, 1, epoch])
        samples = rng.permutation(np.concatenate(drawn))  # (samples, 2)
        starts = np.zeros(len(samples), dtype=np.int64)
        for domain in range(len(self.ends)):
            mine = samples[:, 0] == domain
            starts[mine] = self.starts[domain][samples[mine, 1]]
        lengths = np.minimum(samples[:, 1] - starts, self.max_items)
        batches: list[npt.NDArray[np.int64]] = []
        pool = POOL * self.batch_size
        for begin in range(0, len(samples), pool):
            part = samples[begin : begin + pool]
            part = part[np.argsort(lengths[begin : begin + pool], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _shuffled_place(self, domain: int, number: int) -> npt.NDArray[np.int64]:
        """The `number`-th shuffling of all samples of a domain."""
        rng = np.random.default_rng([self.seed, 0, domain, number])
        return rng.permutation(len(self.ends[domain]))


def _prefix_ends(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions of all items that have at least one item before them in their history."""
    everything = np.ones(int(offsets[-1]), dtype=bool)
    starts = offsets[:-1][np.diff(offsets) > 0]
    everything[starts] = False
    return np.flatnonzero(everything)


def _widen(tokens: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(tokens, (0, width - tokens.shape[1]), value=PAD)
