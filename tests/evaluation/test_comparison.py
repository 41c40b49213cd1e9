"""Comparisons put only comparable things side by side, and say what the parts say."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

from utgrec.errors import InputError
from utgrec.evaluation.intervals import mean_intervals, paired_test
from utgrec.evaluation.itemknn import ItemKNN
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import evaluate
from utgrec.evaluation.sheet import Sheet
from utgrec.evaluation.table import comparison

ITEMS = 40


def printed(sheet: Sheet) -> str:
    console = Console(width=400, force_terminal=False)
    with console.capture() as capture:
        console.print(sheet.to_rich())
    return capture.get()


@pytest.fixture
def evaluations(make_split, random_histories):
    split = make_split(random_histories)
    return [
        evaluate(system, split, part="test", item_count=ITEMS, exclude_seen=False)
        for system in (Popularity.fit(split, ITEMS), ItemKNN.fit(split, ITEMS))
    ]


@pytest.fixture
def oracle(evaluations):
    """Every target in the first place."""
    ranks = np.zeros_like(evaluations[0].ranks)
    return dataclasses.replace(evaluations[0], system="Oracle", ranks=ranks)


def test_rows_hold_what_the_parts_say(evaluations, oracle):
    popularity, knn = evaluations
    result = comparison(evaluations, oracle, reference="ItemKNN")
    assert [row.system for row in result.rows] == ["Popularity", "ItemKNN", "Oracle"]
    first, second, best = result.rows
    assert first.metrics["ndcg@10"].value == pytest.approx(popularity.mean("ndcg@10"))
    assert list(first.metrics.values()) == mean_intervals(popularity.metrics.values)
    assert first.test == paired_test(
        knn.metrics.column("ndcg@10"), popularity.metrics.column("ndcg@10")
    )
    assert first.p_corrected == first.test.p_value  # a single test needs no correction
    assert second.test is None and best.test is None
    assert first.oracle_share.value == pytest.approx(popularity.mean("ndcg@10"))
    assert best.oracle_share == (1.0, 1.0, 1.0)


def test_p_values_are_corrected_for_the_number_of_systems(evaluations):
    others = [dataclasses.replace(evaluations[0], system=name) for name in "abc"]
    result = comparison([evaluations[1], *others], reference="ItemKNN")
    single = comparison(evaluations, reference="ItemKNN").rows[0].p_corrected
    assert single < 0.3
    for row in result.rows[1:]:
        assert row.p_corrected == pytest.approx(3 * single)


def test_an_oracle_that_never_hits_has_no_share(evaluations, oracle):
    blind = dataclasses.replace(oracle, ranks=np.full_like(oracle.ranks, -1))
    result = comparison(evaluations, blind, reference=None)
    assert [row.oracle_share for row in result.rows] == [None, None, None]
    assert all(row.test is None for row in result.rows)


def test_every_rendering_says_the_same(evaluations, oracle):
    result = comparison(evaluations, oracle, reference="Popularity")
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    ndcg = values["rows"][1]["metrics"]["ndcg@10"]
    text = f"{ndcg['value']:.4f} ({ndcg['low']:.4f}-{ndcg['high']:.4f})"
    assert text in result.sheet().to_markdown()
    assert text in printed(result.sheet())
    assert values["reference"] == "Popularity"
    assert values["rows"][1]["reference_minus_system"]["p_value"] > 0
    assert "share of oracle's ndcg@10" in result.sheet().header
    assert len({len(line) for line in result.sheet().lines} | {len(result.sheet().header)}) == 1


def test_markdown_and_rich_show_cells_as_they_are():
    sheet = Sheet("t", ["system", "x"], [["a|b [red]", "1"]])
    assert sheet.to_markdown() == "**t**\n\n| system | x |\n|---|---:|\n| a\\|b [red] | 1 |\n"
    assert "a|b [red]" in printed(sheet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": "valid"}, "has part test, other has valid"),
        ({"exclude_seen": True}, "exclude_seen"),
        ({"ks": (5, 10)}, "ks"),
        ({"item_count": 41}, "item_count 40, other has 41"),
        ({"system": "Popularity"}, "different names"),
    ],
)
def test_only_comparable_evaluations_are_compared(evaluations, change, message):
    other = dataclasses.replace(evaluations[1], **({"system": "other"} | change))
    with pytest.raises(InputError, match=message):
        comparison([evaluations[0], other], reference=None)


@pytest.mark.parametrize("what", ["users", "targets"])
def test_other_users_or_targets_are_refused(evaluations, what):
    changed = getattr(evaluations[1], what).copy()
    changed[0] += 1
    other = dataclasses.replace(evaluations[1], **{what: changed})
    with pytest.raises(InputError, match=f"different {what}"):
        comparison([evaluations[0], other], reference=None)


def test_a_missing_reference_or_nothing_at_all_is_an_error(evaluations):
    with pytest.raises(InputError, match="'UTGRec' is not among the systems Popularity, ItemKNN"):
        comparison(evaluations)
    with pytest.raises(InputError, match="at least 1 evaluation"):
        comparison([])
