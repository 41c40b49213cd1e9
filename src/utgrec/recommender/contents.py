"""Contents: items that say the same, remembered beside the network.

Codes keep the gist of an item and let details go: the printer that a cartridge fits, the thread of
a screw. What was counted knows nothing of an item that nobody took yet. So a recommender also
keeps, for every item of a catalogue, the items whose texts are most alike, and how often each word
occurs in each text, so that items which join later get their neighbours without training.

An item is known by its domain and its codes, as in `companions.py`.

Shapes: n items of all domains · N items of a catalogue · K neighbours of each.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor

from utgrec.config import require
from utgrec.data.similarities import nearest
from utgrec.data.wording import BUCKETS, count_words, word_vectors
from utgrec.recommender.companions import (
    NONE,
    Companions,
    join_companions,
    sort_companions,
)
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.item_vectors import catalog_keys, token_bits
from utgrec.recommender.item_words import pack
from utgrec.recommender.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentsConfig:
    """What is remembered of what items say."""

    neighbours: int = 100
    """Items kept for each item, K; 0 remembers nothing."""
    most_common: float = 0.1
    """Words in more than this share of a catalogue's items are left out: they say little, and cost
    most."""

    def __post_init__(self) -> None:
        require(self.neighbours >= 0, f"neighbours must be at least 0, got {self.neighbours}")
        require(0 < self.most_common <= 1, f"most_common must be in (0, 1], got {self.most_common}")


class Contents(NamedTuple):
    """The memory of what the items of some catalogues say."""

    alike: Companions  # by text; the keys are those of all items
    starts: Tensor  # (n + 1,), int64, where the words of each item begin
    words: Tensor  # (words,), int32, places of `data.wording`
    counts: Tensor  # (words,), uint8
    most_common: Tensor  # (), float64, see ContentsConfig

    @classmethod
    def nothing(cls) -> "Contents":
        """A memory without items."""
        no_words = torch.zeros(0, dtype=torch.int32)
        starts = torch.zeros(1, dtype=torch.int64)
        share = torch.tensor(1.0, dtype=torch.float64)
        return cls(Companions.nothing(), starts, no_words, no_words.to(torch.uint8), share)

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors = {**self.alike._asdict(), **self._asdict()}
        del tensors["alike"]
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Contents":
        """Open what `save` wrote."""
        tensors = load_file(path)
        alike = Companions(*(tensors.pop(name) for name in Companions._fields))
        return cls(alike, **tensors)

    def with_items(
        self,
        vocabulary: Vocabulary,
        domain: str,
        codes: npt.NDArray[np.int16],
        texts: Callable[[int], str],
    ) -> "Contents":
        """The memory with the items of a later catalogue of the domain that it does not know yet.

        Args:
            codes: of all its items, (N, L).
            texts: text of the item at a place; called for new items alone.
        """
        alike = self.alike
        keys = catalog_keys(vocabulary, domain, codes)  # (N,)
        new = (~torch.isin(keys, alike.keys)).nonzero()[:, 0]
        own = self._places(vocabulary, domain)
        if not len(new) or not len(own):
            return self
        neighbours = alike.rows.shape[1]
        known = self._counts()[own]  # (n_d, W)
        counted = count_words([texts(int(item)) for item in new])
        vectors = word_vectors(
            sparse.vstack([known, counted]).tocsr(), known, most_common=float(self.most_common)
        )
        # Neighbours are places among own items, then new ones.
        found = nearest(vectors[len(own) :], vectors, neighbours=neighbours, first=len(own))
        place = np.concatenate([own, np.arange(len(new)) + len(alike.keys)])
        width = neighbours - found.items.shape[1]
        rows = np.pad(found.items, ((0, 0), (0, width)), constant_values=NONE)
        rows = np.where(rows == NONE, NONE, place[rows]).astype(np.int32)
        similar = np.pad(found.values, ((0, 0), (0, width)))
        rows = np.concatenate([alike.rows.numpy(), rows])
        similar = np.concatenate([alike.similar.numpy(), similar])
        _answer(rows, similar, len(alike.keys))
        every = torch.cat([alike.keys, keys[new]])
        joined = sort_companions(every, torch.from_numpy(rows), torch.from_numpy(similar))
        return _made(joined, every, sparse.vstack([self._counts(), counted]), self.most_common)

    def telling_words(
        self, vocabulary: Vocabulary, domain: str, kept: int, known: Tensor | None = None
    ) -> Tensor:
        """The rarest words of each item of a domain, as a table for `ItemWords`: (n_d, 1 + kept).

        Items that say little have fewer, and weights of 0. Those of an item are a unit vector.
        Items whose keys are among those `known` (n,) are left out.
        """
        own = self._places(vocabulary, domain)
        among = self._counts()[own]
        if known is not None:
            own = own[~torch.isin(self.alike.keys[own], known).numpy()]
        counts = self._counts()[own]
        vectors = word_vectors(counts, among, most_common=float(self.most_common))
        row = np.repeat(np.arange(len(own)), np.diff(vectors.indptr))
        order = np.lexsort((-vectors.data, row))  # stable: of equal ones the first
        place = np.arange(len(order)) - vectors.indptr[:-1][row]  # among the words of its item
        told = place < kept
        words = np.zeros((len(own), kept), dtype=np.int64)
        weights = np.zeros((len(own), kept), dtype=np.float32)
        words[row[told], place[told]] = vectors.indices[order][told]
        weights[row[told], place[told]] = vectors.data[order][told]
        weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-9)
        return pack(self.alike.keys[own], torch.from_numpy(words), torch.from_numpy(weights))

    def _places(self, vocabulary: Vocabulary, domain: str) -> npt.NDArray[np.int64]:
        """Places of a domain's items in the memory, (n_d,)."""
        bits = token_bits(vocabulary) * vocabulary.code_length
        own = self.alike.keys >> bits == vocabulary.domain_token(domain)
        return np.flatnonzero(own.numpy())

    def _counts(self) -> Any:
        """How often each item holds each word: (n, W), sparse."""
        return sparse.csr_matrix(
            (self.counts.numpy(), self.words.numpy(), self.starts.numpy()),
            shape=(len(self.starts) - 1, BUCKETS),
        )


def compare_contents(
    domains: Sequence[CodedDomain],
    texts: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    config: ContentsConfig,
) -> Contents:
    """Compare the items of each domain by their texts, (N,) for each domain.

    Raises:
        BadConfig: codes too long to be remembered by (`item_vectors.py`).
    """
    if config.neighbours == 0 or not domains:
        return Contents.nothing()
    keys, found, counts = [], [], []
    for domain, words in zip(domains, texts, strict=True):
        counted = count_words(words)
        vectors = word_vectors(counted, counted, most_common=config.most_common)
        keys.append(catalog_keys(vocabulary, domain.name, domain.codes))
        found.append(nearest(vectors, vectors, neighbours=config.neighbours, first=0))
        counts.append(counted)
    alike = join_companions(keys, found, config.neighbours)
    share = torch.tensor(config.most_common, dtype=torch.float64)
    return _made(alike, torch.cat(keys), sparse.vstack(counts), share)


def _made(alike: Companions, keys: Tensor, counts: Any, most_common: Tensor) -> Contents:
    """A memory, whose words come in the order of `keys` (n,) and are kept in that of `alike`."""
    ordered = counts.tocsr()[keys.argsort().numpy()]
    return Contents(
        alike,
        torch.from_numpy(ordered.indptr.astype(np.int64)),
        torch.from_numpy(ordered.indices.astype(np.int32)),
        torch.from_numpy(ordered.data),
        most_common,
    )


def _answer(rows: npt.NDArray[np.int32], similar: npt.NDArray[np.float32], first_new: int) -> None:
    """Let the neighbours of new items have these as neighbours, too, where they are near enough.

    Works in place; new items are those from `first_new` on. Shapes: (n, K) twice.
    """
    for new in range(first_new, len(rows)):
        for old, value in zip(rows[new].tolist(), similar[new].tolist(), strict=True):
            if old == NONE or old >= first_new or value <= similar[old, -1]:
                continue
            place = int(np.searchsorted(-similar[old], -value, side="right"))
            for table, entry in ((rows, new), (similar, value)):
                table[old, place + 1 :] = table[old, place:-1]
                table[old, place] = entry
