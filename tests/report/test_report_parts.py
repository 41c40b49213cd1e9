"""The parts of a report: figures, codes, users, pictures, charts."""

import base64
import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utgrec.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    bars,
    line_chart,
    nice_ticks,
)
from utgrec.report.codes import domain_codes, meanings
from utgrec.report.examples import choose_users, examples
from utgrec.report.figures import groups, results
from utgrec.report.pictures import SIDE, Gallery, thumbnail
from utgrec.report.source import RunSource, open_run
from utgrec.report.training import recommender_training, tokenizer_training
from utgrec.report.write import duration, figure, signed


@pytest.fixture(scope="module")
def source(run: Path) -> RunSource:
    return open_run(run)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.001, 0.2, "ahead"), (-0.2, -0.001, "behind"), (-0.1, 0.1, "level"), (0.0, 0.1, "level")],
)
def test_the_verdict_follows_the_interval(
    source: RunSource, low: float, high: float, verdict: str
) -> None:
    domain = source.domains[0]
    rows = [dict(row) for row in domain.comparison["rows"]]
    own = next(row for row in rows if row["system"] == "UTGRec")
    for row in rows:
        if row["reference_minus_system"] is not None:
            difference = {"value": (low + high) / 2, "low": low, "high": high}
            row["reference_minus_system"] = {
                **row["reference_minus_system"],
                "difference": difference,
            }
    planted = domain._replace(comparison={**domain.comparison, "rows": rows})
    headline = results(planted).headline
    assert headline.verdict == verdict
    assert headline.value.value == own["metrics"]["ndcg@10"]["value"]
    baselines = [row for row in rows if row["system"] not in ("UTGRec", "Oracle")]
    best = max(baselines, key=lambda row: row["metrics"]["ndcg@10"]["value"])
    assert headline.baseline == best["system"] and len(baselines) == 3


def test_only_the_oracle_does_not_compete(source: RunSource) -> None:
    found = results(source.domains[0])
    assert [row.role for row in found.rows] == [*["baseline"] * 3, "reference", "oracle"]
    for column in range(len(found.metrics)):
        marked = [row.cells[column].interval.value for row in found.rows if row.cells[column].best]
        own = [row.cells[column].interval.value for row in found.rows if row.role != "oracle"]
        assert set(marked) == ({max(own)} if max(own) > 0 else set())
    for row in found.rows:
        assert 0 <= row.low <= row.middle <= row.high <= 100
    assert max(row.high for row in found.rows) == pytest.approx(100)


def test_groups_are_those_of_the_evaluation(run: Path, source: RunSource) -> None:
    lines = (run / "evaluation/kitchen/groups.md").read_text("utf-8").splitlines()
    table = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in lines if line.startswith("|"))
    }
    found = groups(source.domains[0])
    assert found.systems == table["group"][1:]
    grouping = ""
    for row in found.rows:
        grouping = row.grouping or grouping
        cells = table.pop(f"{grouping}: {row.label}")
        assert cells == [f"{row.users:,}", *(interval.text for interval, _ in row.cells)]
    left = {name: cells[0] for name, cells in table.items() if name not in ("group", "---")}
    assert set(left.values()) <= {"0"}, "a group with users is not shown"


def test_codes_are_counted_after_repair(source: RunSource) -> None:
    for domain in source.domains:
        found = domain_codes(domain)
        for level, usage in enumerate(found.usage):
            _, wanted = np.unique(domain.coded.codes[:, level], return_counts=True)
            assert [count for count in usage.counts if count] == sorted(wanted.tolist())[::-1]
            assert sum(usage.counts) == found.items
        assert [pair.length for pair in found.agreement] == [1, 2]
        widths = [w for pair in found.agreement for w in (pair.share_width, pair.chance_width)]
        assert max(widths) == pytest.approx(100)


def test_the_items_of_a_meaning_have_its_code(source: RunSource) -> None:
    galleries = [Gallery(domain.coded.catalog) for domain in source.domains]
    found = meanings(source.domains, galleries, seed=0)
    assert len(found) == 6 and len({meaning.code for meaning in found}) == 6
    by_name = {domain.name: domain for domain in source.domains}
    for meaning in found:
        for example in meaning.examples:
            coded = by_name[example.domain].coded
            assert example.members == (coded.codes[:, 0] == meaning.code).sum()
            for tile in example.tiles:
                assert coded.codes[coded.catalog.index_of(tile.item_id), 0] == meaning.code
    totals = sum(np.bincount(d.coded.codes[:, 0], minlength=8) for d in source.domains)
    assert sorted(totals[[m.code for m in found[:3]]]) == sorted(np.sort(totals)[-3:])


def test_users_are_half_hits_half_misses() -> None:
    ranks = np.array([0, 4, 5, 9, -1, 3, 19, -1, 2, 1])
    hits, misses = choose_users(ranks, 6, seed=0)
    assert len(hits) == 3 and set(hits) <= {0, 1, 5, 8, 9}
    assert len(misses) == 3 and set(misses) <= {2, 3, 4, 6, 7}
    assert choose_users(ranks, 6, seed=0) == (hits, misses)
    assert len({str(choose_users(ranks, 6, seed=seed)) for seed in range(20)}) > 5


@pytest.mark.parametrize(
    ("ranks", "count", "sizes"),
    [
        ([-1] * 9, 6, (0, 6)),
        ([0] * 9, 6, (6, 0)),
        ([0, -1, -1, -1, -1, -1], 5, (1, 4)),
        ([0, 0, 0, 0, -1], 5, (4, 1)),
        ([0, -1], 9, (1, 1)),
        ([0, -1], 0, (0, 0)),
    ],
)
def test_where_one_kind_is_short_the_other_fills_up(
    ranks: list[int], count: int, sizes: tuple[int, int]
) -> None:
    hits, misses = choose_users(np.array(ranks), count, seed=3)
    assert (len(hits), len(misses)) == sizes


def test_cards_agree_with_the_ranks(source: RunSource) -> None:
    """What is decoded for a card is what was decoded in the evaluation."""
    for domain in source.domains:
        evaluation = domain.evaluations["UTGRec"]
        found = examples(source, domain, Gallery(domain.coded.catalog), count=60, seed=0)
        assert len(found.users) == found.evaluated == len(evaluation.users)
        assert found.hits == sum(card.hit for card in found.users) > 0
        rank_of = dict(zip(evaluation.users.tolist(), evaluation.ranks.tolist(), strict=True))
        assert domain.domain is not None
        for card in found.users:
            rank = rank_of[card.number]
            assert card.place == (rank + 1 if rank >= 0 else None)
            places = [place for place, entry in enumerate(card.shown, 1) if entry.hit]
            assert places == ([card.place] if card.hit else [])
            taken = [domain.coded.catalog.item_ids[i] for i in domain.domain.history(card.number)]
            assert card.target.item_id == taken[-1]
            assert [tile.item_id for tile in card.history] == taken[:-1][-10:]
            assert card.hidden + len(card.history) == len(taken) - 1
            scores = [entry.score for entry in card.shown]
            assert scores == sorted(scores, reverse=True)


def test_curves_end_where_the_log_ends(source: RunSource) -> None:
    tokenizer = tokenizer_training(source)
    assert [chart.title for chart in tokenizer.charts][:2] == ["Weighted sum", "Text"]
    assert tokenizer.charts[0].lines[0].last_value == pytest.approx(9 / 100 + 4)
    assert [mark.label for mark in tokenizer.charts[0].marks] == ["codes on"]
    recommender = recommender_training(source)
    names = [line.name for line in recommender.charts[0].lines]
    assert names == ["loss", "code_1", "code_2", "code_3"]
    validation = recommender.charts[1]
    names = [line.name for line in validation.lines]
    assert names == ["ndcg@10", "ndcg@10 kitchen", "ndcg@10 words"]
    assert recommender.best_value is not None
    (mark,) = validation.marks
    share = recommender.best_step / recommender.steps
    assert mark.x == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) * share, abs=0.06)


@pytest.mark.parametrize(
    "values", [[3.0], [2.0, 2.0], [0.0, 0.0], [1e-7, 3e-7], [-5.0, 12345.0], [0.1, 0.4, 0.2]]
)
def test_curves_stay_in_their_box(values: list[float]) -> None:
    points = [(10.0 * (place + 1), value) for place, value in enumerate(values)]
    chart = line_chart("x", {"loss": points})
    places = [tuple(map(float, pair.split(","))) for pair in chart.lines[0].points.split()]
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in places)
    assert places[-1] == chart.lines[0].last
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff([places[index][1] for index in order]) <= 0), "higher is not up"
    labels = [tick.label for tick in chart.y_ticks]
    assert len(labels) >= 2 and len(set(labels)) == len(labels)
    assert all(TOP <= tick.place <= HEIGHT - BOTTOM for tick in chart.y_ticks)


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert nice_ticks(0.13, 0.42) == pytest.approx([0.2, 0.3, 0.4])
    for low, high in [(0, 1), (-3, 8), (0.001, 0.0017), (5, 70000)]:
        ticks = nice_ticks(low, high)
        assert 2 <= len(ticks) <= 6 and low <= ticks[0] and ticks[-1] <= high + 1e-12


def test_bars_by_hand() -> None:
    found = bars([0, 4, 1, 3])
    assert found.counts == [4, 3, 1, 0] and found.heights == [100, 75, 25, 0]
    assert found.even == 50 and found.tallest == 4
    assert bars([0, 0]).heights == [0, 0]


def test_a_thumbnail_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    address = thumbnail(tmp_path / "noise.png")
    kind, _, data = address.partition(";base64,")
    assert kind in ("data:image/webp", "data:image/jpeg") and len(address) < 12_000
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (SIDE, SIDE * 600 // 900)


def test_an_unreadable_picture_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    with caplog.at_level(logging.WARNING):
        assert thumbnail(tmp_path / "broken.png") == ""
        assert thumbnail(tmp_path / "absent.png") == ""
    assert "broken.png" in caplog.text and "absent.png" in caplog.text


def test_figures_for_people() -> None:
    assert figure(-0.12345) == "−0.1235" and signed(0.5) == "+0.5000" and signed(-0.5) == "−0.5000"
    assert [duration(s) for s in (None, 3.25, 59.96, 119.8, 3599.9, 7260)] == [
        "—",
        "3.2 s",
        "1 min 0 s",
        "2 min 0 s",
        "1 h 0 min",
        "2 h 1 min",
    ]
