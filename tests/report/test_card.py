"""The data card: every figure is that of the domain, and nothing from outside becomes markup."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pages import Page
from PIL import Image
from typer.testing import CliRunner

from utgrec import Domain, storage
from utgrec.catalog import write_domain
from utgrec.cli import app
from utgrec.data.summary import summarise
from utgrec.errors import StorageError
from utgrec.report.card import _coverage, write_card
from utgrec.report.charts import HEIGHT, LEFT, TOP, columns, log_chart
from utgrec.report.write import markdown_text

EVIL = '<script>alert(1)</script> | `x` [a](javascript:b) "q" & *b*'
START = 1_700_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty items, the first with a hostile title; ten users."""
    folder = tmp_path_factory.mktemp("card") / "shop"
    rng = np.random.default_rng(0)
    rows = sorted(
        (user, START + 50 * 86_400_000 * step, int(rng.integers(20) * rng.random()))
        for user in range(10)
        for step in range(6)
    )
    with storage.new_folder(folder) as new:
        (new / "images").mkdir()
        images = [f"images/{n}.png" if n % 2 == 0 else None for n in range(20)]
        for name in filter(None, images):
            Image.new("RGB", (30, 20), "teal").save(new / name)
        write_domain(
            new,
            name="shop | <b>",
            items=pa.table(
                {
                    "item_id": [f"i{n}" for n in range(20)],
                    "title": [EVIL, *(f"Cup {n}" for n in range(1, 20))],
                    "text": [EVIL, *(f"The cup for the tea, number {n}." for n in range(1, 20))],
                    "image": images,
                    "price": [1.5, None] * 10,
                }
            ),
            user_ids=[f"u{n}" for n in range(10)],
            interactions=pa.table(
                {
                    "user": pa.array([row[0] for row in rows], pa.int32()),
                    "item": pa.array([row[2] for row in rows], pa.int32()),
                    "timestamp": pa.array([row[1] for row in rows], pa.int64()),
                }
            ),
            config={"k_core": 1},
            inputs={},
            facts={"rejected": {"bad <row>": 3}, "images": {"outcomes": {"not found": 4}}},
        )
    return folder


@pytest.fixture(scope="module")
def card(folder: Path) -> Path:
    return write_card(folder)[0]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("large", [False, True])
def test_coverage_is_that_of_a_slow_count(folder: Path, large: bool) -> None:
    tags = [["a"], [], None, ["", "b"]] * 5
    notes = ["x", "", None, " "] * 5
    text, many = (pa.large_string(), pa.large_list) if large else (pa.string(), pa.list_)
    domain = Domain.open(folder)
    table = domain.catalog.table.append_column("tags", pa.array(tags, many(text)))
    domain.catalog.table = table.append_column("note", pa.array(notes, text))
    slow = [
        (name, sum(value not in (None, "", []) for value in domain.catalog.table[name].to_pylist()))
        for name in domain.catalog.table.column_names[1:]
    ]
    found = _coverage(domain)
    assert [(one.name, one.items) for one in found] == slow
    assert dict(slow)["tags"] == 10 and dict(slow)["note"] == 10 and dict(slow)["price"] == 10
    assert all(one.share == one.items / 20 for one in found)


def test_the_page(folder: Path, card: Path) -> None:
    html = (card / "card.html").read_text()
    page, summary = Page(html), summarise(Domain.open(folder))
    assert card == folder.parent / "shop-card"
    assert page.texts("h1") == ["shop | <b>"]
    assert "script" not in {tag for tag, _, _ in page.elements}
    assert EVIL in " ".join(page.texts("h3"))
    sizes = [int(text) for text in page.texts("dd") if text.isdigit()][:4]
    assert sizes == [summary.users, summary.items, summary.interactions, summary.training_pairs]
    assert [text for text in page.texts("li") if text in summary.warnings] == summary.warnings
    plain = (re.sub("<[^>]+>", " ", row) for row in re.findall("(?s)<tr>(.*?)</tr>", html))
    rows = [unescape(row).split() for row in plain]
    assert ["price", "10", "50.0", "%"] in rows and ["image", "10", "50.0", "%"] in rows
    assert ["English", "19"] in rows and ["not", "found", "4"] in rows
    assert ["rejected:", "bad", "<row>", "3"] in rows
    # It loads nothing: pictures are inside, and the policy forbids the rest.
    assert all(source.startswith("data:image/") for source in page.attributes("img", "src"))
    assert "default-src 'none'" in html


def test_the_markdown(folder: Path, card: Path) -> None:
    text = (card / "card.md").read_text()
    assert text.startswith("# shop \\| &lt;b>".replace(">", "\\>"))
    assert "<script" not in text and not re.search(r"(?<!\\)\]\(javascript:", text)
    named = re.findall(r"\]\((pictures/\S+)\)", text)
    assert len(named) >= 4 and {size_of(card / name) for name in named} == {(30, 20)}
    assert sorted(path.name for path in (card / "pictures").iterdir()) == sorted(
        name.partition("/")[2] for name in named
    )
    for table in re.findall(r"(?:^\|.*\|$\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_histograms_count_everything(card: Path) -> None:
    page = Page((card / "card.html").read_text())
    labels = {label.partition(":")[0]: label for label in page.attributes("svg", "aria-label")}
    wanted = {"Length of histories": 10, "Length of texts": 20, "Time": 60}
    for title, total in wanted.items():
        counts = re.findall(r": (\d+)\.", labels[title].partition(": ")[2] + " ")
        assert sum(map(int, counts)) == total, title
    days = np.array(re.findall(r"(\d{4}-\d\d-\d\d): ", labels["Time"]), "datetime64[D]")
    steps = np.diff(days).astype(int)  # each period is named by its own first day, the last too
    assert len(days) == 40 and steps.max() - steps.min() <= 1


def test_again_and_elsewhere(folder: Path, card: Path, tmp_path: Path) -> None:
    before = (card / "card.html").read_bytes()
    write_card(folder)
    assert (card / "card.html").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="is no data card"):
        write_card(folder, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_the_command(folder: Path, tmp_path: Path) -> None:
    command = ["card", str(folder), "--out", str(tmp_path / "c"), "--samples", "0", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["summary"]["items"] == 20
    assert document["summary"]["findings"]["languages"] == {"English": 19, "unclear": 1}
    assert Path(document["html"]).is_file() and not (tmp_path / "c" / "pictures").exists()


def test_an_empty_domain_has_a_card(tmp_path: Path) -> None:
    with storage.new_folder(tmp_path / "empty") as new:
        kinds = {"user": pa.int32(), "item": pa.int32(), "timestamp": pa.int64()}
        write_domain(
            new,
            name="empty",
            items=pa.table({"item_id": ["a"], "title": ["A"], "text": [""], "image": [None]}),
            user_ids=[],
            interactions=pa.table({name: pa.array([], kind) for name, kind in kinds.items()}),
            config={},
            inputs={},
            facts={},
        )
    Page((write_card(tmp_path / "empty")[0] / "card.html").read_text())


def test_log_chart_by_hand():
    chart = log_chart("Popularity", [(1, 1000), (10, 100), (100, 1)], over="place")
    (line,) = chart.lines
    points = [tuple(map(float, point.split(","))) for point in line.points.split()]
    assert points[0] == (LEFT, TOP) and points[2][1] > points[1][1] > points[0][1]
    assert [tick.label for tick in chart.x_ticks] == ["1", "10", "100"]
    assert [tick.label for tick in chart.y_ticks] == ["1", "10", "100", "1000"]
    assert all(0 < tick.place < HEIGHT for tick in chart.y_ticks)
    assert columns([0, 2, 1]).heights == [0, 100, 50]


@pytest.mark.parametrize("text", ["a|b", "<b>", "`x`", "[a](b)", "a\nb", "&amp;", "# x", "1. x"])
def test_markdown_text(text: str) -> None:
    found = markdown_text(text)
    assert "\n" not in found and "<" not in found
    assert not re.search(r"(?<!\\)[|`\[\]#]", found)
