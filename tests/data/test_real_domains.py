"""Four real shops import without hand work, with exactly the counts that are known for them."""

import os
from pathlib import Path

import numpy as np
import pytest
from random_shops import assert_same_domain, options_of

from utgrec.catalog import Domain
from utgrec.data.cleaning.findings import find
from utgrec.data.export import export_domain
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.data.recbole import prepare_recbole
from utgrec.data.resplit import resplit_domain
from utgrec.data.split import split_domain
from utgrec.data.splitting import SplitOptions
from utgrec.data.summary import summarise

SHARED = Path(os.environ.get("UTGREC_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))

COUNTS = [
    ("beauty", 5, None, (22_363, 12_101, 198_502)),
    ("movies", 5, None, (1_940, 6_292, 290_434)),
    ("office", 1, None, (3_231, 3_459, 22_447)),
    ("office", 1, False, (3_231, 3_317, 22_447)),
    ("industrial", 1, None, (3_285, 3_686, 22_743)),
    ("industrial", 1, False, (3_285, 3_541, 22_743)),
]


@pytest.mark.parametrize(("name", "k", "keep", "counts"), COUNTS)
def test_exact_counts(
    tmp_path: Path, name: str, k: int, keep: bool | None, counts: tuple[int, int, int]
) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there (set UTGREC_SHARED_DATA)")
    options = TableOptions(k_core=k, keep_untaken_items=keep)
    manifest = prepare_table(SHARED / name, tmp_path / "out", options)
    domain = Domain.open(tmp_path / "out")
    assert (domain.user_count, len(domain.catalog), domain.interaction_count) == counts
    assert manifest.facts["rejected"] == {}
    assert all(domain.catalog.texts)
    users = np.repeat(np.arange(domain.user_count), np.diff(domain.offsets))
    assert (np.diff(domain.timestamps)[np.diff(users) == 0] >= 0).all()
    found = find(domain)
    assert found.duplicate_events == found.markup_texts == found.boilerplate_items == 0
    # People of MovieLens rate many films at one sitting; the other logs have no points in time.
    assert (found.burst_events, found.fast_users) == ((23_640, 500) if name == "movies" else (0, 0))
    if name == "movies":
        assert manifest.facts["counts"]["items_with_image"] == 4_874
        assert manifest.facts["time"]["unit"] == "s"
    if name == "beauty":
        # Every user has at least 5 interactions: two are held out, the first has no prefix.
        assert summarise(domain).training_pairs == counts[2] - 3 * counts[0]
        assert len(split_domain(domain).evaluated) == counts[0]


@pytest.mark.parametrize(
    "name",
    [
        "office",
        pytest.param("industrial", marks=pytest.mark.slow),
        pytest.param("beauty", marks=pytest.mark.slow),
        pytest.param("movies", marks=pytest.mark.slow),
    ],
)
def test_round_trips(tmp_path: Path, name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there (set UTGREC_SHARED_DATA)")
    prepare_table(SHARED / name, tmp_path / "domain", TableOptions(k_core=3))
    domain = tmp_path / "domain"
    if name == "movies":  # the only one with real times
        resplit_domain(domain, SplitOptions(kind="global-time"), tmp_path / "cut")
        domain = tmp_path / "cut"
        # Few people come back after their first evening, so few have something on both sides.
        assert len(split_domain(Domain.open(domain)).evaluated) == 56
    for form, prepare in (("csv", prepare_table), ("recbole", prepare_recbole)):
        export_domain(domain, tmp_path / form, form)  # type: ignore[arg-type]
        prepare(tmp_path / form, tmp_path / f"again-{form}", options_of(tmp_path / form))
        assert_same_domain(domain, tmp_path / f"again-{form}")
