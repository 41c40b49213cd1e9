"""The page of a comparison: whole, safe, and true to the figures."""

import re

import pytest
from pages import Page

from utgrec import storage
from utgrec.comparison import ComparisonPlan, DomainPlan, SystemPlan, compare
from utgrec.errors import MissingStage
from utgrec.report import write_comparison


@pytest.fixture(scope="module")
def out(domains, tmp_path_factory):
    """A comparison of three systems on two domains with two seeds, under a hostile title."""
    out = tmp_path_factory.mktemp("page") / "out"
    plan = ComparisonPlan(
        title="<script>alert(1)</script> {{ 7 * 191 }}",
        domains=(
            DomainPlan(folder=str(domains[0]), cold_share=0.2),
            DomainPlan(folder=str(domains[1])),
        ),
        systems=(
            SystemPlan(name="knn", family="itemknn"),
            SystemPlan(name="popular", family="popularity", tuned=False),
            SystemPlan(name="plain", family="itemknn", tuned=False),
        ),
        reference="knn",
        seeds=(0, 1),
        budget=3,
        group_users=5,
        resamples=200,
    )
    compare(plan, out, isolated=False)
    return out


def test_the_page_holds_every_figure_and_loads_nothing(out):
    html = write_comparison(out).read_text("utf-8")
    found = storage.read_json(out / "comparison.json")
    for domain in found["domains"]:
        for system in domain["systems"]:
            for values in system["metrics"].values():
                assert f'value="{values["value"]}"' in html
            test = system["reference_minus_system"]
            assert test is None or f'value="{test["p_corrected"]}"' in html
    assert "<script" not in html and "&lt;script&gt;" in html and str(7 * 191) not in html
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", html)
    assert "@import" not in html and "url(" not in html
    assert html.count("<svg") >= 2 and "Chance by popularity" in html


def test_tags_are_closed_and_dots_are_inside(out):
    page = Page(write_comparison(out).read_text("utf-8"))
    circles = [a for tag, a, _ in page.elements if tag == "circle" and a["class"].startswith("dot")]
    assert len(circles) == 2 * 3 + 2 * 3  # both plots of both domains
    for circle in circles:
        if "%" in circle["cx"]:
            assert 0 <= float(circle["cx"].rstrip("%")) <= 100
        else:
            assert 46 <= float(circle["cx"]) <= 328 and 24 <= float(circle["cy"]) <= 172
    assert len([a for tag, a, _ in page.elements if a.get("class") == "seed"]) == 2 * 3 * 2


def test_without_a_comparison_there_is_no_page(tmp_path):
    with pytest.raises(MissingStage, match="no finished comparison"):
        write_comparison(tmp_path)
