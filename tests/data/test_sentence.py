"""The item sentence: what is cleaned away, and how the parts are joined."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utgrec.data.sentence import clean_list, clean_text, render_sentence


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Plain words", "Plain words"),
        ("<p>One</p><p>Two</p>", "One Two"),
        ("H<sub>2</sub>O", "H2O"),
        ('<a href="x">link</a>s', "links"),
        ("Tom &amp; Jerry&nbsp;&#39;40", "Tom & Jerry '40"),
        ("&lt;br&gt;twice &amp;amp; escaped", "twice & escaped"),
        ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        ("<3 tea", "<3 tea"),
        ("<script>var x = 1;</script>Lamp<style>a{}</style><!-- no -->", "Lamp"),
        ("tab\tnew\nline\x00nul\x85", "tab new line nul"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffmark", "softhyphen zerowidth mark"),
        ("family 👨\u200d👩\u200d👧", "family 👨\u200d👩\u200d👧"),
        ("half \ud83d emoji", "half emoji"),
        ("lost \ufffd, not \ufffe", "lost \ufffd, not"),
        ("   ", ""),
    ],
)
def test_clean_text(raw: str, cleaned: str) -> None:
    assert clean_text(raw) == cleaned


PIECES = st.sampled_from(["<", ">", "&", "amp;", "lt;", "b", "/", "!", "--", " ", "x", "\n", "é"])


@given(st.lists(PIECES, max_size=12).map("".join))
def test_cleaning_twice_is_cleaning_once(raw: str) -> None:
    once = clean_text(raw)
    assert clean_text(once) == once
    once.encode("utf-8")


def test_sentence_by_hand() -> None:
    parts = ["Tea pot.", "Leaf & Co.", ["Steel", "Two litres"], ["Kitchen", "Tea"], None, "Nice"]
    expected = "Tea pot. Leaf & Co. Steel, Two litres. Kitchen, Tea. Nice."
    assert render_sentence(parts) == expected


def test_every_part_ends_in_exactly_one_full_stop() -> None:
    assert render_sentence(["One...", "Two. ", "Three!", "", [], "."]) == "One. Two. Three!."


def test_nothing_gives_the_empty_sentence() -> None:
    assert render_sentence([None, "", []]) == ""


def test_lists_lose_what_is_empty_or_repeated() -> None:
    assert clean_list(["Tea", "<br>", "Tea ", "Pot"]) == ["Tea", "Pot"]
