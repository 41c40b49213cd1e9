"""Training samples of the decoder-only recommender: windows of training histories.

A window holds up to max_items + 1 items; each of them but the first is a target, and the first too
where the history begins. The newest window of a history is always whole; older ones shift at
random, so that a target is met with contexts of all lengths.

Shapes: B windows · T items · L codes per item.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from utgrec.recommender.causal import WindowBatch
from utgrec.recommender.histories import CodedDomain, epoch_shares
from utgrec.recommender.vocabulary import PAD, Vocabulary

# Windows of a shuffled epoch are sorted by length within pools of this many batches.
POOL = 32

# (windows, 4): domain, first position, one past the last, whether the history begins there
Windows = npt.NDArray[np.int64]


class WindowBatches:
    """Batch number → batch, a function of the seed and the number alone.

    In an epoch a domain gives as many windows as its share, n_d ** temperature normalised by the
    number n_d of its targets: 1 draws domains by their size, 0 draws them equally. Within a domain
    all windows come before any comes again.
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
        """`batch_size` is the number of targets that a batch holds, up to one window more or less.

        Raises:
            EmptyDomain: no history has two items to learn from.
        """
        self.max_items = max_items
        self.batch_size = batch_size
        self.seed = seed
        self.items = [domain.split.train for domain in domains]
        self.domain_tokens = np.array([vocabulary.domain_token(domain.name) for domain in domains])
        self.item_tokens = [
            vocabulary.to_tokens(torch.from_numpy(domain.codes.astype(np.int64))).numpy()
            for domain in domains
        ]
        # A history of n items, n > max_items + 1, is cut into windows of max_items targets.
        self.slots = [_slots(domain.split.offsets, max_items) for domain in domains]
        sizes = [_targets(domain.split.offsets) for domain in domains]
        self.samples = sum(sizes)
        share = epoch_shares(domains, sizes, temperature)
        counts = np.array([len(slots) for slots in self.slots])
        self.quota = np.round(counts * share * self.samples / np.maximum(sizes, 1)).astype(np.int64)
        # Every epoch has this many batches: as many as its targets fill on average.
        self.per_epoch = max(1, min(round(self.samples / batch_size), int(self.quota.sum())))
        self._epoch = -1
        self._order: list[Windows] = []

    def __call__(self, number: int) -> WindowBatch:
        """The batch of one optimiser step."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffle(epoch)
        return self.collate(self._order[place])

    def collate(self, windows: Windows) -> WindowBatch:
        """Lay out some windows."""
        domain, first, end, begins = windows.T
        longest = int((end - first).max())
        length = self.item_tokens[0].shape[1]
        tokens = np.full((len(windows), longest, length), PAD, dtype=np.int64)
        for row, (place, start, stop, _) in enumerate(windows):
            tokens[row, : stop - start] = self.item_tokens[place][self.items[place][start:stop]]
        targets = np.arange(longest) < (end - first)[:, None]  # (B, T)
        targets[:, 0] = begins
        shops = torch.from_numpy(self.domain_tokens[domain])
        return WindowBatch(
            domains=shops,
            shops=shops,
            items=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
        )

    def _shuffle(self, epoch: int) -> list[Windows]:
        """The batches of an epoch, equally many in each."""
        drawn = []
        for domain, quota in enumerate(self.quota):
            count = len(self.slots[domain])
            if not quota:
                continue
            begin, end = epoch * int(quota), (epoch + 1) * int(quota)
            rounds = range(begin // count, -(-end // count))
            windows = np.concatenate([self._round(domain, number) for number in rounds])
            windows = windows[begin - rounds[0] * count :][: int(quota)]
            drawn.append(np.column_stack([np.full(len(windows), domain), windows]))
        rng = np.random.default_rng([self.seed, 1, epoch])
        windows = rng.permutation(np.concatenate(drawn))
        batches: list[Windows] = []
        # Cut the epoch into pools of equally many targets, sort each by length and cut it again.
        pools = -(-self.per_epoch // POOL)
        for number, pool in enumerate(_cut(windows, pools)):
            pool = pool[np.argsort(pool[:, 2] - pool[:, 1], kind="stable")]
            parts = self.per_epoch * (number + 1) // pools - self.per_epoch * number // pools
            batches += _cut(pool, parts)
        # Where single windows are larger than a batch there are fewer; some then come twice.
        return [batches[i % len(batches)] for i in rng.permutation(self.per_epoch)]

    def _round(self, domain: int, number: int) -> Windows:
        """The `number`-th shuffling of a domain's windows, without the column of the domain."""
        rng = np.random.default_rng([self.seed, 0, domain, number])
        slots = rng.permutation(self.slots[domain])
        start, stop, place = slots.T
        # The newest window, place 0, stays; the others move towards it by less than a window.
        shift = np.where(place > 0, rng.integers(0, self.max_items, len(slots)), 0)
        end = stop - place * self.max_items + shift
        first = np.maximum(start, end - self.max_items - 1)
        return np.stack([first, end, first == start], axis=1)


def _slots(offsets: npt.NDArray[np.int64], max_items: int) -> npt.NDArray[np.int64]:
    """One row per window: start and end of its history, and its place counted from the newest.

    Shapes: (users + 1,) → (windows, 3).
    """
    lengths = np.diff(offsets)
    users = np.flatnonzero(lengths >= 2)
    count = -(-(lengths[users] - 1) // max_items)
    owner = np.repeat(users, count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([offsets[owner], offsets[owner + 1], place], axis=1)


def _targets(offsets: npt.NDArray[np.int64]) -> int:
    return int(np.maximum(np.diff(offsets) - 1, 0).sum())


def _cut(windows: Windows, parts: int) -> list[Windows]:
    """Cut a list of windows into up to `parts` pieces with about equally many targets."""
    total = np.cumsum(windows[:, 2] - windows[:, 1] - 1)
    marks = total[-1] * np.arange(1, parts) / parts
    pieces = np.split(windows, np.searchsorted(total, marks))
    return [piece for piece in pieces if len(piece)]
