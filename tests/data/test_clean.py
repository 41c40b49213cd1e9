"""Cleaning a column is cleaning each of its texts."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from utgrec.data.clean import clean_lists, clean_texts, render_sentences
from utgrec.data.sentence import clean_list, clean_text, render_sentence

PIECES = [
    *("a", "B", " ", "  ", "\t", "\n", "&", "&amp;", "&amp;lt;", "<b>", "</p>", "<", ">", "<br/>"),
    *("&nbsp;", "\u00a0", "\u200b", "\u200c", "é", "😀", ".", " .", "&#39;", "&copy", "<!-- x -->"),
    *("<script>x</script>", "\x00", "\x85", "\u2028", "\u3000", "T&T", "& ", "&;", "<3", "< b"),
    *("<!", "\ufeff", "\x1c", "\x0b", "\x7f", "\uffff", "\u2066", "&\x0c", "&a"),
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(max_size=12)
ROWS = st.lists(st.none() | TEXT, max_size=12)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(ROWS)
def test_texts(rows):
    cleaned = clean_texts(pl.Series(rows, dtype=pl.String)).to_list()
    assert cleaned == [None if text is None else clean_text(text) for text in rows]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.none() | st.lists(st.none() | TEXT, max_size=4), max_size=8))
def test_lists(rows):
    cleaned = clean_lists(pl.Series(rows, dtype=pl.List(pl.String))).to_list()
    present = [[text for text in row or [] if text is not None] for row in rows]
    assert cleaned == [clean_list(row) or None for row in present]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.tuples(st.none() | TEXT, st.none() | st.lists(TEXT, max_size=3)), max_size=8))
def test_sentences(rows):
    texts = clean_texts(pl.Series([text for text, _ in rows], dtype=pl.String))
    lists = clean_lists(pl.Series([many for _, many in rows], dtype=pl.List(pl.String)))
    rendered = render_sentences([texts, lists, texts]).to_list()
    parts = zip(texts.to_list(), lists.to_list(), texts.to_list(), strict=True)
    assert rendered == [render_sentence(list(row)) for row in parts]
