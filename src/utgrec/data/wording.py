"""Texts as sparse vectors of their words, so that items which say the same are found alike.

A word is looked up by a hash, so there is no vocabulary to keep, and an item that comes later is
counted like all others. Scripts without spaces between words are counted by pairs of characters.

Shapes: N items · W = BUCKETS places that words are hashed to.
"""

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse

from utgrec.data.similarities import unit_rows

BUCKETS = 2**20
FEW = 10  # items that may share a word, however small their catalogue is
MOST_COUNTED = 255  # a word that occurs more often in one text counts as often as this
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"  # Thai, kana, Chinese characters
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")
_STARTS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_TOGETHER = 10_000  # texts whose words are held as they are at a time


def count_words(texts: Sequence[str]) -> Any:
    """How often each text holds each word: (N, W), sparse, uint8."""
    sizes, words, counts = [], [], []
    for first in range(0, len(texts), _TOGETHER):
        found, lengths = [], []
        for text in texts[first : first + _TOGETHER]:
            places = [_place(word) for word in _words(text)]
            found.extend(places)
            lengths.append(len(places))
        text_of = np.repeat(np.arange(len(lengths)), lengths)
        entries, often = np.unique(
            text_of * BUCKETS + np.array(found, np.int64), return_counts=True
        )
        sizes.append(np.bincount(entries // BUCKETS, minlength=len(lengths)))
        words.append((entries % BUCKETS).astype(np.int32))
        counts.append(np.minimum(often, MOST_COUNTED).astype(np.uint8))
    if not sizes:
        return sparse.csr_matrix((0, BUCKETS), dtype=np.uint8)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return sparse.csr_matrix(
        (np.concatenate(counts), np.concatenate(words), starts), shape=(len(texts), BUCKETS)
    )


def word_vectors(counts: Any, among: Any, *, most_common: float) -> Any:
    """Unit vectors of texts: (1 + log count) · log(N / items with the word). (n, W), sparse.

    Args:
        counts: of the texts, (n, W).
        among: of the catalogue that says how rare a word is, (N, W).
        most_common: words in a larger share of its items, and in more than a few, are left out, as
            are those in one item alone.
    """
    holders = np.bincount(among.indices, minlength=BUCKETS)  # (W,)
    size = max(among.shape[0], 1)
    kept = (holders >= 2) & (holders <= max(FEW, most_common * size))
    rarity = np.where(kept, np.log(size / np.maximum(holders, 1)), 0.0)
    telling = rarity[counts.indices] > 0
    before = np.concatenate([[0], np.cumsum(telling)])
    words = counts.indices[telling]
    weights = (1 + np.log(counts.data[telling].astype(np.float64))) * rarity[words]
    return unit_rows(sparse.csr_matrix((weights, words, before[counts.indptr]), shape=counts.shape))


@lru_cache(maxsize=2**17)
def _place(word: str) -> int:
    return zlib.crc32(word.encode()) % BUCKETS


def _words(text: str) -> list[str]:
    """The words of a text, without case; pairs of characters where words have no spaces."""
    words: list[str] = _WORD.findall(text.casefold())
    if text.isascii():
        return words
    found: list[str] = []
    for word in words:
        if len(word) > 1 and _STARTS_UNSPACED.match(word):
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
        else:
            found.append(word)
    return found
