"""Texts as sparse vectors of their words, so that items which say the same are found alike.

A word is looked up by a hash, so there is no vocabulary to keep, and an item that comes later is
counted like all others. Scripts without spaces between words are counted by pairs of characters.

Shapes: N items · W = BUCKETS places that words are hashed to.
"""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from utgrec.data.similarities import unit_rows

BUCKETS = 2**20
FEW = 10  # items that may share a word, however small their catalogue is
MOST_COUNTED = 255  # a word that occurs more often in one text counts as often as this
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"  # Thai, kana, Chinese characters
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")


def count_words(texts: Sequence[str]) -> Any:
    """How often each text holds each word: (N, W), sparse, uint8."""
    starts: list[int] = [0]
    words: list[int] = []
    counts: list[int] = []
    for text in texts:
        counted = Counter(zlib.crc32(word.encode()) % BUCKETS for word in _words(text))
        places = sorted(counted)
        words.extend(places)
        counts.extend(min(counted[place], MOST_COUNTED) for place in places)
        starts.append(len(words))
    return sparse.csr_matrix(
        (np.array(counts, np.uint8), np.array(words, np.int32), np.array(starts, np.int64)),
        shape=(len(texts), BUCKETS),
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
    weights = (1 + np.log(counts.data.astype(np.float64))) * rarity[counts.indices]
    shape = counts.shape
    out = sparse.csr_matrix((weights, counts.indices, counts.indptr), shape=shape, copy=True)
    out.eliminate_zeros()
    return unit_rows(out)


def _words(text: str) -> list[str]:
    """The words of a text, without case; pairs of characters where words have no spaces."""
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if len(word) > 1 and re.match(f"[{_UNSPACED}]", word):
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
        else:
            found.append(word)
    return found
