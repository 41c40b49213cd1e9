"""Search: words and beginnings, ids, accents, pages; the same as looking at every item."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utgrec.catalog import Catalog
from utgrec.serving.explorer.search import SearchIndex, plain, plain_text


def shop(titles, ids=None, **columns):
    """A catalogue of titles."""
    ids = ids or [f"I{place}" for place in range(len(titles))]
    strings = {"item_id": ids, "title": titles, "text": titles, "image": [None] * len(titles)}
    table = {name: pa.array(values, pa.string()) for name, values in strings.items()}
    return Catalog(pa.table({**table, **columns}))


def index(catalog, live=None):
    return SearchIndex(catalog, np.ones(len(catalog), bool) if live is None else np.array(live))


def found(titles, query, **given):
    return index(shop(titles)).find(query, 10, **given).items


def test_every_word_must_begin_a_word_of_the_item():
    titles = ["Blue cup", "Blue plate", "Cup of tea", "Cupboard, blue"]
    assert found(titles, "blue") == [0, 1, 3]
    assert found(titles, "cup") == [0, 2, 3]  # whole words before beginnings
    assert found(titles, "BLUE  cu") == [0, 3]
    assert found(titles, "blue cup tea") == []
    assert found(titles, "  -- ") == []


def test_accents_and_signs_do_not_count():
    assert found(["Crème brûlée", "Creme"], "creme") == [1, 0]
    assert found(["Crème brûlée"], "brulée!") == [0]
    assert found(["Straße 12", "ΣΊΣΥΦΟΣ"], "straße") == [0]


def test_inside_of_words_and_languages_without_spaces():
    assert found(["青い茶碗", "赤い皿"], "茶碗") == [0]
    assert found(["Teapot"], "pot") == [0]
    assert found(["Teapot", "Pot"], "pot") == [1]  # where words begin so, the inside is not asked


def test_ids_come_first():
    catalog = shop(["B7", "a cup", "B7 B7"], ids=["x/1", "B7", "b-7.α"])
    assert index(catalog).find("B7", 10).items[0] == 1
    assert index(catalog).find("x/1", 10).items == [0]
    assert index(catalog).find("b-7.α", 1).items == [2]


def test_brands_and_categories_are_searched_too():
    categories = pa.array([["tea", "Cups"], None, []], pa.list_(pa.string()))
    catalog = shop(
        ["one", "two", None], brand=pa.array([None, "Ostara", None]), category=categories
    )
    assert index(catalog).find("cup", 10).items == [0]
    assert index(catalog).find("ostara", 10).items == [1]


def test_removed_items_come_last_and_columns_of_other_kinds_are_left_out():
    catalog = shop(["a cup", "cup"], category=pa.array([1, 2]), brand=pa.array([[1], [2]]))
    assert index(catalog, [True, False]).find("cup", 10).items == [0, 1]


def test_pages_lose_nothing():
    titles = [f"cup {'x' * (place % 7)}" for place in range(50)]
    searched = index(shop(titles))
    pages = [searched.find("cup", 7, offset).items for offset in range(0, 56, 7)]
    flat = [item for page in pages for item in page]
    assert sorted(flat) == list(range(50)) and flat == searched.find("cup", 50).items
    assert searched.find("cup", 7, 49).total == 50
    assert searched.find("cup", 7, 200).items == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab é-", max_size=9), min_size=1, max_size=20),
    st.text("ab é-", min_size=1, max_size=5),
)
def test_it_is_what_looking_at_every_item_finds(titles, query):
    ids = [f"#{place}" for place in range(len(titles))]
    texts = plain(pa.array([f"{title} {one}" for title, one in zip(titles, ids, strict=True)]))
    words = plain(pa.array([query]))[0].as_py().split()

    def having(fits):
        return {
            place
            for place, text in enumerate(texts.to_pylist())
            if words and all(any(fits(own, word) for own in text.split()) for word in words)
        }

    got = index(shop(titles, ids)).find(query, 100)
    assert set(got.items) == (having(str.startswith) or having(str.__contains__))
    assert got.total == len(got.items)


LETTERS = st.characters(max_codepoint=0x2FFF, categories=("L", "N", "Mn", "P", "S", "Zs"))


@settings(max_examples=150, deadline=None)
@given(st.text(LETTERS, max_size=12))
def test_one_text_is_made_plain_as_many_are(text):
    assert plain_text(text) == plain(pa.array([text]))[0].as_py()


@pytest.mark.parametrize("count", [0, 1])
def test_small_catalogues(count):
    assert index(shop(["cup"] * count)).find("cup", 5).items == list(range(count))
