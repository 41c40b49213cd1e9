"""Find items by the words people type: titles, ids, brands and categories.

Every text column becomes words in lower case without accents. Words are sorted, so all that begin
with what was typed are neighbours, and each keeps the list of its items. Items are numbered by how
they rank among equals, so what is found is in order already. An item is found if every typed word
begins one of its own; where no item is, typed words are looked for inside of words, which also
serves languages that put no spaces between them.

Shapes: N items · W distinct words · E words of all items, one item after another.
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

Flags = npt.NDArray[np.bool_]


class Matches(NamedTuple):
    """One page of what a query finds."""

    items: list[int]  # indices, best first
    total: int  # items found on all pages


class SearchIndex:
    """The words of one catalogue. benchmarks/explorer.py measures what it takes."""

    def __init__(self, catalog: Catalog, live: Flags) -> None:
        """`live` says which items can be recommended, (N,); others are found last."""
        self._catalog = catalog
        words, items = split_words(_searched(catalog.table))  # (E,), (E,)
        coded = words.dictionary_encode()
        order = pc.sort_indices(coded.dictionary)
        self._words = coded.dictionary.take(order)  # (W,), sorted
        number = np.empty(len(order), dtype=np.int32)
        number[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        # Among equals: live items first, then short titles, then the catalogue's own order.
        titles = pc.utf8_length(pc.fill_null(catalog.table.column("title"), ""))
        self._ranked = np.lexsort((titles.to_numpy(), ~live))  # (N,), rank → item
        rank = np.empty(len(live), dtype=np.int32)
        rank[self._ranked] = np.arange(len(live), dtype=np.int32)
        entries = sparse.coo_matrix(
            (np.ones(len(items), dtype=np.int8), (rank[items], number[coded.indices.to_numpy()])),
            shape=(len(live), len(order)),
        ).tocsc()
        self._ranks = entries.indices  # (E,), ranks of the items of each word, word after word
        self._starts = entries.indptr  # (W + 1,)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, in bytes."""
        arrays = (self._ranks, self._starts, self._ranked, self._words)
        return sum(int(array.nbytes) for array in arrays)

    def find(self, query: str, count: int, offset: int = 0) -> Matches:
        """The items that fit a query, best first; whole words count more than beginnings."""
        words = plain_text(query).split()[:MOST_WORDS]
        if not words:
            return Matches([], 0)
        fits, whole = self._beginning(words)
        if not fits.any():
            fits = self._inside(words)
        found = np.flatnonzero(fits)  # ranks, best first among those with as many whole words
        total, last = len(found), offset + count
        exact = self._catalog.index_of(query) if query in self._catalog else None
        if exact is not None:  # an id as it is, before everything that looks like it
            found = found[self._ranked[found] != exact]
        if whole is not None:
            found = _most_first(found, whole[found], last)
        items = self._ranked[found[:last]].tolist()
        if exact is not None:
            items = [exact, *items]
            total = max(total, len(items))
        return Matches(items[offset:last], total)

    def _beginning(self, words: list[str]) -> tuple[Flags, npt.NDArray[np.int8] | None]:
        """Which items have words that begin so, and how many are whole; (N,) twice, by rank."""
        count = len(self._ranked)
        fits, whole = np.ones(count, dtype=np.bool_), None
        for word in words:
            first, behind = self._place(word), self._place(word + LAST)
            begins = np.zeros(count, dtype=np.bool_)
            begins[self._between(first, behind)] = True
            fits &= begins
            if first < behind and self._words[first].as_py() == word:
                whole = np.zeros(count, dtype=np.int8) if whole is None else whole
                whole[self._between(first, first + 1)] += 1
        return fits, whole

    def _inside(self, words: list[str]) -> Flags:
        """Which items have words that hold all of these, (N,), by rank."""
        fits = np.ones(len(self._ranked), dtype=np.bool_)
        for word in words:
            holds = pc.match_substring(self._words, word).to_numpy(zero_copy_only=False)  # (W,)
            has = np.zeros(len(fits), dtype=np.bool_)
            has[self._ranks[np.repeat(holds, np.diff(self._starts))]] = True
            fits &= has
        return fits

    def _place(self, word: str) -> int:
        """Where a word is, or would be, among the sorted ones."""
        places = range(len(self._words))
        place: int = bisect.bisect_left(places, word, key=lambda at: str(self._words[at].as_py()))
        return place

    def _between(self, first: int, last: int) -> npt.NDArray[np.int32]:
        """Ranks of the items of the words first … last - 1."""
        ranks: npt.NDArray[np.int32] = self._ranks[self._starts[first] : self._starts[last]]
        return ranks


def _most_first(
    found: npt.NDArray[np.int64], whole: npt.NDArray[np.int8], wanted: int
) -> npt.NDArray[np.int64]:
    """The first of what was found, those with more whole words before those with fewer."""
    tiers, have = [], 0
    for tier in range(int(whole.max(initial=0)), -1, -1):
        tiers.append(found[whole == tier])
        have += len(tiers[-1])
        if have >= wanted:
            break
    return np.concatenate(tiers)


def plain(texts: pa.Array) -> pa.Array:
    """Texts in lower case, without accents and signs, one space between words."""
    simple = pc.string_is_ascii(texts)
    if pc.all(simple).as_py() is not False:  # most catalogues, several times as fast
        texts = pc.replace_substring_regex(pc.ascii_lower(texts), "[^a-z0-9]+", " ")
        return pc.ascii_trim_whitespace(texts)
    if pc.any(simple).as_py():  # each kind in its own way, then back in order
        parts = [plain(texts.filter(chosen)) for chosen in (simple, pc.invert(simple))]
        mask = simple.to_numpy(zero_copy_only=False)
        place = np.empty(len(texts), dtype=np.int64)
        place[mask] = np.arange(mask.sum())
        place[~mask] = mask.sum() + np.arange((~mask).sum())
        return pa.concat_arrays(parts).take(pa.array(place))
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
