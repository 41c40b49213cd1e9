"""Suspicious texts: placeholders, markup, broken encodings, sentences that many items share."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from utgrec.data.sentence import clean_text

# A whole text that says nothing.
PLACEHOLDERS = (
    r"(?i)^[\s\W_]*(n/?a|none|null|nil|nan|undefined|unknown|untitled|no (title|name|description)"
    r"|not available|tbd|tba|todo|test|xxx+|asdf+|lorem ipsum.*|product|item|default|sample)?"
    r"[\s\W_]*$"
)
MARKUP = r"</?[A-Za-z][^<>]*>|&[A-Za-z]{2,8};|&#x?[0-9A-Fa-f]{2,6};"
# UTF-8 read as a one-byte code page leaves pairs that no language has; ftfy decides.
SUSPECT = r"[ÂÃÅÄÐÑâÎÏã][\x{80}-\x{BF}\x{20AC}\x{201A}-\x{203A}\x{0152}\x{0153}\x{0160}\x{0161}\x{2122}\x{02C6}\x{02DC}\x{017D}\x{017E}\x{0178}\x{0192}]"  # noqa: E501
LOST = "\ufffd"
FEWEST_WORDS = 4  # of a sentence that can be boilerplate; shorter ones are categories and brands
LEAST_SHARE = 0.02  # of the items that have a text
LEAST_ITEMS = 20
TOGETHER = 50_000  # items whose sentences are held at a time
SLOTS = 2**22  # counters of hashes of sentences


def says_nothing(texts: pl.Series) -> pl.Series:
    """Which texts are empty or a placeholder. (N,)"""
    return texts.fill_null("").str.contains(PLACEHOLDERS)


def has_markup(texts: pl.Series) -> pl.Series:
    """Which texts hold HTML tags or entities. (N,)"""
    return texts.fill_null("").str.contains(MARKUP)


def has_lost_characters(texts: pl.Series) -> pl.Series:
    """Which texts hold the sign for a character that could not be read: it is gone. (N,)"""
    return texts.fill_null("").str.contains(LOST, literal=True)


def has_mojibake(texts: pl.Series) -> pl.Series:
    """Which texts were decoded wrongly, so that they can be put right. (N,)"""
    suspect = texts.str.contains(SUSPECT).fill_null(False)
    wrong = pl.Series([repair(text) != text for text in texts.filter(suspect)], dtype=pl.Boolean)
    return suspect.scatter(suspect.arg_true(), wrong)


def repair(text: str) -> str:
    """A text with its encoding put right where it was decoded wrongly; else unchanged."""
    import ftfy

    return str(ftfy.fix_encoding(text))


def without_markup(text: str) -> str:
    """A text without HTML."""
    return clean_text(text)


def boilerplate(texts: pl.Series, besides: Iterable[str] = ()) -> pl.DataFrame:
    """Sentences that very many items share, the most frequent first: `sentence`, `items`.

    `besides` are sentences that are shared on purpose, such as categories. The sentences of some
    items are held at a time: first they are counted by hash, then those alone that may be frequent.
    """
    told = texts.filter(texts != "")
    least = max(LEAST_ITEMS, int(LEAST_SHARE * len(told)))
    counts = np.zeros(SLOTS, dtype=np.int64)
    for sentences in _sentences(told):
        counts += np.bincount(_slots(sentences), minlength=SLOTS)
    found = pl.DataFrame(schema={"sentence": pl.String, "items": pl.UInt32})
    for sentences in _sentences(told):
        frequent = sentences.filter(pl.Series(counts[_slots(sentences)] >= least))
        found = pl.concat([found, frequent.value_counts(name="items")])
    return (
        found.group_by("sentence")
        .agg(pl.sum("items"))
        .filter((pl.col("items") >= least) & ~pl.col("sentence").is_in(sorted(set(besides))))
        .sort(["items", "sentence"], descending=[True, False])
    )


def _sentences(texts: pl.Series) -> Iterator[pl.Series]:
    """The sentences of some items at a time, each once for an item."""
    for part in texts.alias("sentence").to_frame().iter_slices(TOGETHER):
        yield (
            part.with_row_index("item")
            .lazy()
            .with_columns(pl.col("sentence").str.split(". "))
            .explode("sentence")
            .with_columns(pl.col("sentence").str.strip_chars(" ."))
            .filter(pl.col("sentence").str.count_matches(r"\S+") >= FEWEST_WORDS)
            .unique()
            .collect()["sentence"]
        )


def _slots(sentences: pl.Series) -> npt.NDArray[np.int64]:
    return (sentences.hash().to_numpy() % np.uint64(SLOTS)).astype(np.int64)


def changed(texts: pl.Series, wrong: pl.Series, right: Callable[[str], str]) -> pl.Series:
    """The texts, of which those that are `wrong` are put right. (N,)

    Some are held as Python's own at a time: they take several times the room of a column.
    """
    parts = []
    for first in range(0, len(texts), TOGETHER):
        part, flags = (column.slice(first, TOGETHER) for column in (texts, wrong))
        better = [right(text) for text in part.filter(flags)]
        parts.append(part.scatter(flags.arg_true(), pl.Series(better, dtype=pl.String)))
    return pl.concat(parts) if parts else texts


def without_sentences(text: str, sentences: frozenset[str]) -> str:
    """A text without these sentences."""
    kept = [part for part in text.split(". ") if part.strip(" .") not in sentences]
    if not kept:
        return ""
    joined = ". ".join(kept)
    return joined if joined.endswith(".") or not text.endswith(".") else f"{joined}."


def shared(values: pl.Series, least: int) -> dict[str, int]:
    """Texts (not null, not empty) that at least `least` items have, with their number of items."""
    told = values.filter(values != "").alias("value").to_frame()
    # By hash first, so that the texts of one item alone are not held once more.
    hashes = told["value"].hash()
    often = hashes.value_counts().filter(pl.col("count") >= least)
    told = told.filter(hashes.is_in(often["value"].implode()))
    counted = told["value"].value_counts(name="items")
    return dict(counted.filter(pl.col("items") >= least).iter_rows())
