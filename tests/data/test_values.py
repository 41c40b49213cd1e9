"""Column values get the same type whatever the file format wrote."""

import json
from typing import Any

import pytest

from utgrec.data.values import id_text, is_reading_matter, read_column, read_list, read_price


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1999, None, 2004], "int", [1999, None, 2004]),
        (["1999", "", "2004"], "int", [1999, None, 2004]),
        ([1, 2.5, float("nan")], "float", [1.0, 2.5, None]),
        (["1", "2.5", " "], "float", [1.0, 2.5, None]),
        ([True, None], "bool", [True, None]),
        (["True", "false"], "bool", [True, False]),
        (["007", "12"], "text", ["007", "12"]),
        ([2**70, 1], "text", [str(2**70), "1"]),
        (["red <b>wine</b>", None], "text", ["red wine", None]),
        ([["a", "b"], None, []], "list", [["a", "b"], None, None]),
        (['["a", "b"]', ""], "list", [["a", "b"], None]),
        (["['a', \"b's\"]", "[]"], "list", [["a", "b's"], None]),
        ([[["a"], ["b", "a"]], "c"], "list", [["a", "b"], ["c"]]),
        (["[sic]", "plain"], "text", ["[sic]", "plain"]),
        ([{"k": "é"}, {}], "text", ['{"k": "é"}', None]),
        ([None, "", [], {}, float("nan")], "empty", [None] * 5),
        ([], "empty", []),
    ],
)
def test_kinds(values: list[Any], kind: str, expected: list[Any]) -> None:
    column = read_column(values)
    assert (column.kind, column.values) == (kind, expected)
    if kind != "empty":
        assert column.arrow().to_pylist() == expected


def test_text_is_never_run_as_code() -> None:
    attack = "[__import__('os').getcwd()]"
    assert read_column([attack]).values == [attack]
    deep = "[" * 100_000 + "]" * 100_000
    assert read_column([deep]).kind == "text"


@pytest.mark.parametrize(
    ("value", "price"),
    [
        ("$1,299.00", 1299.0),
        ("1.299,00 €", 1299.0),
        ("12,50", 12.5),
        ("1,299", 1299.0),
        ("1.299.000", 1_299_000.0),
        ("from 14.99", 14.99),
        ("$.99", 0.99),
        ("1.5e3", 1500.0),
        ("1E+2", 100.0),
        ("1e400", None),
        ("3 eggs", 3.0),
        (3, 3.0),
        ("-5", None),
        (-5, None),
        ("—", None),
        (float("nan"), None),
        (True, None),
        (None, None),
    ],
)
def test_prices(value: Any, price: float | None) -> None:
    assert read_price(value) == price


def test_category_texts_are_split_at_bars_and_arrows() -> None:
    values = ["Action|Drama", "Home > Kitchen", "Arts, Crafts", ["A|B"], '["x", "y"]', None]
    assert read_list(values) == [
        ["Action", "Drama"],
        ["Home", "Kitchen"],
        ["Arts, Crafts"],
        ["A|B"],
        ["x", "y"],
        None,
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("007", "007"),
        (" 7 ", " 7 "),
        (7, "7"),
        (7.0, "7"),
        (2**70, str(2**70)),
        ("", None),
        ("  ", None),
        (None, None),
        (7.5, None),
        (True, None),
        (["7"], None),
        ("\ud800", None),
        (float("nan"), None),
    ],
)
def test_ids(value: Any, text: str | None) -> None:
    assert id_text(value) == text


@pytest.mark.parametrize(
    ("name", "values", "reads"),
    [
        ("directors", [["Ann"], ["Bo"]], True),
        ("material", ["oak", None], True),
        ("imdb_id", ["tt0114709"], False),
        ("productURL", ["somewhere"], False),
        ("homepage", ["https://x.example/tea"], False),
        ("details", [{"a": 1}], False),
        ("barcode", ["007", "008"], False),
        ("year", [1999], False),
    ],
)
def test_what_belongs_into_the_sentence(name: str, values: list[Any], reads: bool) -> None:
    assert is_reading_matter(name, read_column(values)) is reads


def test_json_and_csv_give_the_same_column() -> None:
    typed: list[list[Any]] = [[1, 2], [1.5, 2.0], [["a"], ["b", "c"]], [True, False], ["x", "y"]]
    for values in typed:
        written = [v if isinstance(v, str) else json.dumps(v) for v in values]
        assert read_column(values) == read_column(written)
