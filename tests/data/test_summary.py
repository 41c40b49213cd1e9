"""The summary of a domain, against numbers counted by hand."""

import dataclasses
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from shop_files import write_shop
from test_split import domain_of

from utgrec.catalog import Domain
from utgrec.config import to_dict
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.data.summary import gini, render_summary, summarise


def test_a_small_shop_by_hand(tmp_path: Path) -> None:
    options = TableOptions(name="tea [bold]", k_core=1, bad_rows="reject")
    source = write_shop(tmp_path / "s")
    with open(source / "interactions.csv", "a") as stream:
        stream.write("u3,zzz,1400000000\n")
    prepare_table(source, tmp_path / "out", options)
    summary = summarise(Domain.open(tmp_path / "out"))
    assert (summary.users, summary.items, summary.interactions) == (2, 3, 7)
    assert summary.evaluated_users == 2
    assert summary.training_interactions == 3
    assert summary.training_pairs == 7 - 3 * 2
    assert (summary.history_length.minimum, summary.history_length.maximum) == (3, 4)
    assert summary.history_length.mean == 3.5
    assert summary.top_tenth_share == pytest.approx(3 / 7)
    assert (summary.duplicate_events, summary.repeated_items) == (1, 1)
    assert summary.tied_share == pytest.approx(1 / 5)
    assert (summary.first_time, summary.last_time) == (
        "2014-05-13T16:54:10Z",
        "2014-05-13T17:01:40Z",
    )
    assert summary.rejected == {"unknown item": 1}
    assert [sample.item_id for sample in summary.samples] == ["007", "7", "a/b ✨"]
    assert summary.samples[0].interactions == 3
    assert json.loads(json.dumps(to_dict(summary)))["items"] == 3
    console = Console(width=100, record=True, file=StringIO())
    console.print(render_summary(summary))
    text = console.export_text()
    assert "tea [bold]" in text
    assert "unknown item: 1" in text
    assert all(warning.split(":")[0][:40] in text for warning in summary.warnings)


def warned(summary_of: Domain) -> str:
    return " ".join(summarise(summary_of).warnings)


def test_warnings(tmp_path: Path) -> None:
    options = TableOptions(k_core=1, licence="free")
    source = write_shop(tmp_path / "s", events=[("u", "7", 1), ("v", "007", 5)])
    prepare_table(source, tmp_path / "out", options)
    text = warned(Domain.open(tmp_path / "out"))
    for piece in (
        "No item has a picture",
        "2 users have fewer than 3 interactions",
        "Half of the histories are shorter than 5",
        "Times are positions",
        "1 items were never taken",
    ):
        assert piece in text
    assert "terms of use" not in text


def test_a_domain_in_memory_and_an_empty_one() -> None:
    summary = summarise(domain_of([[1, 2, 2], [3, 4, 5, 6]]))
    assert summary.training_pairs == 1
    assert summary.repeated_items == 1
    assert summary.tied_share == 1.0
    # The same time at the end of one history and the start of the next is no tie.
    domain = domain_of([[1, 2], [3, 4]])
    domain.timestamps[:] = [1, 2, 2, 3]
    assert summarise(domain).tied_share == 0
    empty = summarise(domain_of([], 0))
    assert (empty.users, empty.items, empty.samples) == (0, 0, [])
    assert dataclasses.is_dataclass(empty)


def test_gini_by_hand() -> None:
    assert gini(np.array([5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    # Mean absolute difference over twice the mean: (1 + 2 + 1) · 2 / 9 / (2 · 2).
    assert gini(np.array([3, 1, 2])) == pytest.approx(2 / 9)
    assert gini(np.array([0, 0])) == 0
