"""Find items by the words people type: titles, ids, brands and categories.

Every text column becomes words in lower case without accents. Each word keeps the list of its
items, and words are sorted, so all words that begin with what was typed are neighbours. An item is
found if every typed word begins one of its own; where no item is, what was typed is looked for
inside the texts, which also serves languages that put no spaces between words.

Shapes: N items · W distinct words.
"""

import bisect
import re
import unicodedata
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from utgrec.catalog import Catalog

SEARCHED = ("title", "item_id", "brand", "category")
MOST_WORDS = 8  # words of a query that are looked at
NO_WORD = re.compile(r"[\W_]+")
LAST = "\U0010ffff"  # sorts behind every word


class Matches(NamedTuple):
    """One page of what a query finds."""

    items: list[int]  # indices, best first
    total: int  # items found on all pages


class SearchIndex:
    """The words of one catalogue. benchmarks/explorer.py measures what it takes."""

    def __init__(self, catalog: Catalog, live: npt.NDArray[np.bool_]) -> None:
        """`live` says which items can be recommended, (N,); others are found last."""
        self._catalog = catalog
        self._plain = _searched(catalog.table)  # (N,)
        words, items = split_words(self._plain)
        coded = words.dictionary_encode()
        order = pc.sort_indices(coded.dictionary)
        self._words = coded.dictionary.take(order)  # (W,), sorted
        rank = np.empty(len(order), dtype=np.int32)
        rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        number = rank[coded.indices.to_numpy()]  # (entries,)
        count = len(self._plain)
        lengths = np.bincount(items, minlength=count)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        table = sparse.csr_matrix(
            (np.ones(len(number), dtype=np.int8), number, offsets), shape=(count, len(order))
        ).tocsc()
        self._items = table.indices  # (entries,), the items of each word, one word after another
        self._starts = table.indptr  # (W + 1,)
        titles = pc.utf8_length(pc.fill_null(catalog.table.column("title"), ""))
        # The order among equals: live first, then short titles, then the catalogue's own order.
        short = 255 - np.minimum(titles.to_numpy().astype(np.int64), 255)
        self._order = ((live.astype(np.int64) << 9) + short << 32) - np.arange(count)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, in bytes."""
        arrays = (self._items, self._starts, self._order, self._words, self._plain)
        return sum(int(array.nbytes) for array in arrays)

    def find(self, query: str, count: int, offset: int = 0) -> Matches:
        """The items that fit a query, best first; whole words count more than beginnings."""
        typed = plain_text(query)
        words = typed.split()[:MOST_WORDS]
        if not words:
            return Matches([], 0)
        size = len(self._plain)
        fits, whole = np.ones(size, dtype=np.bool_), np.zeros(size, dtype=np.int64)
        for word in words:
            begins = np.zeros(size, dtype=np.bool_)
            first = self._place(word)
            begins[self._between(first, self._place(word + LAST))] = True
            fits &= begins
            if first < len(self._words) and self._words[first].as_py() == word:
                whole[self._between(first, first + 1)] += 1
        found = np.flatnonzero(fits)
        if not len(found) and len(typed) > 1:
            found = np.flatnonzero(pc.match_substring(self._plain, typed).to_numpy(False))
        keys = self._order[found] + (whole[found] << 42)
        if query in self._catalog:  # an id as it is, before everything that looks like it
            exact = self._catalog.index_of(query)
            keys = np.append(keys[found != exact], np.iinfo(np.int64).max)
            found = np.append(found[found != exact], exact)
        best = offset + count
        if best < len(found):
            part = np.argpartition(-keys, best)[:best]
            found_best, keys = found[part], keys[part]
        else:
            found_best = found
        ranked = found_best[np.argsort(-keys, kind="stable")]
        return Matches(ranked[offset:best].tolist(), len(found))

    def _place(self, word: str) -> int:
        """Where a word is, or would be, among the sorted ones."""
        places = range(len(self._words))
        place: int = bisect.bisect_left(places, word, key=lambda at: str(self._words[at].as_py()))
        return place

    def _between(self, first: int, last: int) -> npt.NDArray[np.int32]:
        """The items of the words first … last - 1."""
        items: npt.NDArray[np.int32] = self._items[self._starts[first] : self._starts[last]]
        return items


def plain(texts: pa.Array) -> pa.Array:
    """Texts in lower case, without accents and signs, one space between words."""
    texts = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKD"))
    texts = pc.replace_substring_regex(texts, r"\p{Mn}+", "")
    texts = pc.replace_substring_regex(texts, r"[^\p{L}\p{N}]+", " ")
    return pc.utf8_trim_whitespace(texts)


def plain_text(text: str) -> str:
    """The same of one text; starting Arrow for it would take longer than the search itself."""
    apart = unicodedata.normalize("NFKD", text)
    # One character after another, since Arrow does not look around either (the last Σ of a word).
    low = "".join(char.lower() for char in apart)
    bare = "".join(char for char in low if unicodedata.category(char) != "Mn")
    return " ".join(NO_WORD.sub(" ", bare).split())


def split_words(texts: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """All words of plain texts, one after another, and the text that each is from."""
    lists = pc.split_pattern(texts, " ")
    words = pc.list_flatten(lists)
    rows = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    some = pc.not_equal(words, "")
    return words.filter(some), rows[some.to_numpy(zero_copy_only=False)]


def _searched(table: pa.Table) -> pa.Array:
    """What is searched of each item, as one plain text, (N,)."""
    parts = []
    for name in SEARCHED:
        if name not in table.column_names:
            continue
        column = whole_column(table.column(name))
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            if not pa.types.is_string(column.type.value_type):
                continue
            column = pc.binary_join(pc.fill_null(column, []), " ")
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            parts.append(pc.fill_null(column.cast(pa.string()), ""))
    return plain(pc.binary_join_element_wise(*parts, " "))


def whole_column(column: pa.ChunkedArray) -> Any:
    """A column as one array, also of a table without rows."""
    values = column.combine_chunks()
    return pa.array([], column.type) if isinstance(values, pa.ChunkedArray) else values
