"""The file as a whole: whole, safe, self-contained, and true to the run's own figures."""

import itertools
import re
import shutil
from pathlib import Path

import pytest
from fabricated_runs import HOSTILE, write_hostile_domain
from pages import Page, part

import utgrec.report
from utgrec import storage
from utgrec.errors import BadConfig, CorruptFile, MissingStage
from utgrec.report import write_report

TEMPLATES = Path(utgrec.report.__file__).parent / "templates"
SECTIONS = ["results", "groups", "codes", "training", "users", "making"]


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    """The report of the run with every user, so that every hostile title is shown."""
    return write_report(run, run.parent / "all.html", example_users=60).read_text("utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_section_is_there_and_named(page: Page) -> None:
    sections = [a for tag, a, _ in page.elements if tag == "section"]
    assert [attributes["id"] for attributes in sections] == SECTIONS
    ids = {a["id"] for _, a, _ in page.elements if "id" in a}
    assert all(attributes["aria-labelledby"] in ids for attributes in sections)
    assert page.attributes("a", "href") == [f"#{name}" for name in SECTIONS]
    assert len(page.texts("h1")) == 1 and page.texts("h1") == ["both"]
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    jumps = [after - before for before, after in itertools.pairwise(levels)]
    assert max(jumps) <= 1, "a heading level is left out"


def test_nothing_is_loaded_from_elsewhere(html: str, page: Page) -> None:
    tags = {tag for tag, _, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "use"}
    sources = page.attributes("img", "src")
    assert sources and all(source.startswith("data:image/") for source in sources)
    for tag, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not {"srcset", "data", "background", "xlink:href", "action"} & set(attributes)
    style = part(html, "<style>", "</style>")
    assert "@import" not in style and "url(" not in style and "//" not in style
    policy = page.attributes("meta", "content")[0]
    assert policy.startswith("default-src 'none'")


def test_hostile_titles_are_shown_as_they_are(html: str, page: Page) -> None:
    shown = set(page.texts("span", class_="title"))
    for title in HOSTILE[:5]:
        assert " ".join(title.split()) in shown
    # An item without a title is shown by its id, quotes and all.
    assert f"""id-{HOSTILE.index("")}"'<b>&""" in shown
    assert max(map(len, shown)) <= 240
    assert len(page.attributes("i", "style")) == len(page.texts("i")), "an <i> that is no bar"
    assert all(style.startswith("width:") for style in page.attributes("i", "style"))
    assert "<i>made up</i>" in page.texts("td")
    assert "unheard_of <loss>" in page.texts("strong")
    assert not [title for title in shown if str(7 * 191) in title], "a title was evaluated"


def test_every_table_has_a_caption_and_every_picture_a_text(html: str, page: Page) -> None:
    assert html.count("<table") == html.count("<caption") > 0
    assert all(page.attributes("img", "alt"))
    assert len(page.attributes("img", "alt")) == len(page.attributes("img", "src"))
    charts = [a for tag, a, _ in page.elements if tag == "svg" and a.get("role") == "img"]
    assert charts and all(attributes["aria-label"] for attributes in charts)


@pytest.mark.parametrize("domain", ["kitchen", "words"])
def test_figures_are_those_of_the_comparison(run: Path, html: str, domain: str) -> None:
    found = storage.read_json(run / "evaluation" / domain / "comparison.json")
    article = part(part(html, 'id="results"', "</section>"), f"<h3>{domain}</h3>", "</article>")
    metrics = part(article, '<table class="comparison">', "</table>")
    for row in found["rows"]:
        line = Page(_row(metrics, row["system"]))
        values = [float(value) for value in line.attributes("data", "value")]
        wanted = [cell["value"] for cell in row["metrics"].values()]
        assert values == [*wanted, row["coverage"]["20"]]
        assert line.texts("data")[:-1] == [f"{value:.4f}" for value in wanted]
        bounds = [f"{cell['low']:.4f}–{cell['high']:.4f}" for cell in row["metrics"].values()]
        assert line.texts("small") == bounds
        tests = Page(_row(part(article, '<table class="tests">', "</table>"), row["system"]))
        wanted = [row["metrics"]["ndcg@10"]["value"]]
        wanted += [row["oracle_share"]["value"]] if row["oracle_share"] else []
        if test := row["reference_minus_system"]:
            wanted += [test["difference"]["value"], test["p_corrected"]]
            counts = f"{test['reference_better']} : {test['reference_worse']}"
            assert counts in tests.texts("td")
        assert [float(value) for value in tests.attributes("data", "value")] == wanted
    note = Page(part(article, '<p class="note">', "</p>")).texts("p")[0]
    assert f"{found['users']} users" in note and "beam of 20" in note
    assert "own history are removed" in note


def test_a_domain_without_pictures_and_oracle_speaks_of_neither(html: str) -> None:
    results = part(html, 'id="results"', "</section>")
    kitchen = part(results, "<h3>kitchen</h3>", "</article>").lower()
    words = part(results, "<h3>words</h3>", "</article>").lower()
    assert "oracle" in kitchen and "oracle" not in words
    groups = part(html, 'id="groups"', "</section>")
    assert "image of the target" in part(groups, "<h3>kitchen</h3>", "</article>")
    assert "image of the target" not in part(groups, "<h3>words</h3>", "</article>")
    users = part(html, 'id="users"', "</section>")
    kitchen, words = users.split('<h3 class="apart">words</h3>')
    assert "<img" in kitchen and "<img" not in words
    # Its log has an order but no real times, so no dates are shown.
    assert 'class="day"' in kitchen and 'class="day"' not in words


def test_the_best_step_is_marked(run: Path, html: str) -> None:
    best = storage.read_manifest(run / "recommender", "recommender").facts["best_step"]
    assert f">best: {best}</text>" in part(html, 'id="training"', "</section>")


def test_equal_seeds_give_equal_files(run: Path, tmp_path: Path) -> None:
    first = write_report(run, tmp_path / "new" / "a.html").read_bytes()
    again = write_report(run, tmp_path / "b.html").read_bytes()
    other = write_report(run, tmp_path / "c.html", seed=1).read_bytes()
    assert first == again != other
    assert len(first) < 1_000_000


def test_the_default_place_is_inside_the_run(bare_run: Path) -> None:
    path = write_report(bare_run)
    assert path == bare_run / "report.html"
    page = Page(path.read_text("utf-8"))
    assert page.texts("h1") == ["bare <b>run"]
    assert "No losses were logged." in page.texts("p", class_="note")
    assert "Validation NDCG@10" not in page.texts("strong")
    # A run is still itself with a report inside.
    assert write_report(bare_run) == path


def test_no_users_asked_for(bare_run: Path, tmp_path: Path) -> None:
    page = Page(write_report(bare_run, tmp_path / "r.html", example_users=0).read_text("utf-8"))
    assert "No users were asked for." in page.texts("p", class_="note")
    with pytest.raises(BadConfig, match="at least 0, got -1"):
        write_report(bare_run, tmp_path / "r.html", example_users=-1)


@pytest.mark.parametrize("stage", ["tokenizer", "codes/words", "recommender", "evaluation/words"])
def test_an_unfinished_run_is_refused(bare_run: Path, tmp_path: Path, stage: str) -> None:
    copy = shutil.copytree(bare_run, tmp_path / "run")
    (copy / stage / "manifest.json").unlink()
    with pytest.raises(MissingStage, match=f"{stage} holds no finished {stage.split('/')[0]}"):
        write_report(copy, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingStage, match="is no run"):
        write_report(tmp_path)


def test_changed_figures_are_refused(bare_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bare_run, tmp_path / "run")
    file = copy / "evaluation/words/comparison.json"
    file.write_text(file.read_text().replace('"users": 60', '"users": 61'))
    with pytest.raises(CorruptFile, match=r"comparison\.json"):
        write_report(copy)


@pytest.mark.parametrize("fate", ["gone", "changed"])
def test_without_its_domain_a_run_still_has_a_report(
    bare_run: Path, tmp_path: Path, fate: str, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(bare_run, tmp_path / "run")
    elsewhere = tmp_path / "words"
    if fate == "changed":
        write_hostile_domain(elsewhere, users=61)
    plan = storage.read_json(copy / "run.json")
    plan["domains"]["words"] = str(elsewhere)
    storage.write_json(copy / "run.json", plan)
    shown = write_report(copy).read_text("utf-8")
    notes = Page(shown).texts("p", class_="note")
    reason = "is not there any more" if fate == "gone" else "another version of the domain"
    for start in ("The groups cannot be shown", "Users cannot be shown"):
        (note,) = [note for note in notes if note.startswith(start)]
        assert reason in note
    # Whoever writes the report hears where; whoever reads it does not.
    assert str(tmp_path) in caplog.text and str(tmp_path) not in shown


def test_words_stand_out_from_their_ground() -> None:
    """Contrast of at least 4.5 : 1 in both themes and in print (WCAG 2.2, 1.4.3)."""
    style = (TEMPLATES / "style.css").read_text("utf-8")
    light, dark, printed = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    )
    for theme in (light, dark, {**light, **printed}):
        for ink in ("ink", "soft", "accent", "good", "bad", "mark"):
            for ground in ("page", "card"):
                assert _contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
        for ink, ground in [("soft", "sunken"), ("ink", "sunken"), ("accent", "accent-soft")]:
            assert _contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
        for name in ("good", "bad"):
            assert _contrast(theme[name], theme[f"{name}-soft"]) >= 4.5, name
        assert _contrast(theme["soft"], theme["accent-soft"]) >= 4.5


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    linear = []
    for place in (0, 2, 4):
        share = int(digits[place : place + 2], 16) / 255
        linear.append(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _row(table: str, system: str) -> str:
    """The table row of a system, by its heading."""
    rows = re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)
    heading = re.compile(rf'<th scope="row">{re.escape(system)}(?=<| <)')
    (row,) = [row for row in rows if heading.search(row)]
    return str(row)
