"""What the README and the docs say can be done: commands parse, links lead somewhere, code runs."""

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main
from PIL import Image
from typer.testing import CliRunner

import utgrec
from mini_run import mini_recipe
from utgrec import errors, recipes
from utgrec.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples" / "README.md",
]
# Programs that every reader has; what they are told to do is read by people.
OTHER_PROGRAMS = {"git", "cd", "source", "pip", ".venv/bin/pip", "bash", "ls", "rm", "mkdir"}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


class Line(NamedTuple):
    """One command that a document tells its reader to type."""

    document: str
    words: list[str]

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    text = document.read_text(encoding="utf-8")
    return [code for found, code in FENCE.findall(text) if found == language]


def command_lines(document: Path) -> list[Line]:
    """Every command in the bash blocks of a document, without comments."""
    joined = "\n".join(blocks(document, "bash")).replace("\\\n", " ")
    words = (unwrapped(shlex.split(line, comments=True)) for line in joined.splitlines())
    return [Line(document.name, each) for each in words if each]


def unwrapped(words: list[str]) -> list[str]:
    """A command without the shell's `time` and the `env NAME=VALUE` in front of it."""
    while words and (words[0] in ("time", "env") or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    return words


LINES = [line for document in DOCUMENTS for line in command_lines(document)]
README = [line for line in LINES if line.document == "README.md"]


def parse(words: list[str]) -> list[str]:
    """Read `utgrec …` as the program would, without running it; the names of the command."""
    command, path, rest = typer.main.get_command(app), [], words[1:]
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"no command {' '.join(words)}"
        path, command, rest = [*path, rest[0]], command.commands[rest[0]], rest[1:]
    if rest != ["--help"]:
        command.make_context(" ".join(path), list(rest))  # wrong usage raises
    return path


# ------------------------------------------------------------------------------- what can be typed


@pytest.mark.parametrize("line", LINES, ids=str)
def test_commands_are_right(line):
    program, *rest = line.words
    if program == "utgrec":
        parse(line.words)
    elif program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        wanted = {word for word in rest if "=" not in word}
        assert wanted and wanted <= targets
    elif program in ("python", ".venv/bin/python"):
        assert rest[0] == "-m" or (ROOT / rest[0]).is_file()
    else:
        assert program in OTHER_PROGRAMS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("utgrec prepare tables shop/ --out d", "no command"),
        ("utgrec prepare table shop/", "missing parameter: out"),
        ("utgrec run tiny domains/shop --out r --no-such-option", "no such option"),
        ("utgrec recommend runs/shop --k ten", "integer"),
    ],
)
def test_wrong_commands_are_found(wrong, message):
    with pytest.raises(Exception, match=f"(?i){message}"):
        parse(shlex.split(wrong))


def test_every_command_is_shown_somewhere():
    def names(group, path):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from names(command, (*path, name))
            else:
                yield (*path, name)

    shown = {tuple(parse(line.words)) for line in LINES if line.words[0] == "utgrec"}
    assert shown == set(names(typer.main.get_command(app), ()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in LINK.findall(text) if "://" not in link]
    assert [link for link in local if link and not (document.parent / link).exists()] == []


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(LINK.findall(index))


def test_the_errors_are_drawn_as_they_are():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = [line for line in str(errors.__doc__).splitlines() if line.startswith(("│", "├", "└"))]
    assert len(drawn) > 10 and "\n".join(drawn) in page


# ------------------------------------------------------------------- the README, done from the top


def write_shop(folder: Path) -> None:
    """Items A1 … A12 and B1 … B12 on a circle; people walk along it."""
    items = [f"{row}{number}" for row in "AB" for number in range(1, 13)]
    (folder / "images").mkdir(parents=True)
    lines = ["item_id,title,category"]
    for place, item_id in enumerate(items):
        lines.append(f"{item_id},Cup number {place},{'tea' if place % 2 else 'coffee'}")
        if place % 3:
            Image.new("RGB", (40, 40), (place * 10, 255 - place * 10, 128)).save(
                folder / "images" / f"{item_id}.png"
            )
    (folder / "items.csv").write_text("\n".join(lines) + "\n")
    lines = ["user_id,item_id,timestamp"]
    for user in range(48):
        for step in range(8):
            taken = items[(user + step * (1 + user % 2)) % len(items)]
            lines.append(f"u{user},{taken},{1_700_000_000 + 1000 * user + step}")
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A folder in which the README's five commands were typed, and what each of them showed."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_shop(folder / "shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(recipes.RECIPES, "tiny", lambda seed: mini_recipe())
        typed = [line.words for line in README if line.words[0] == "utgrec"]
        results = [CliRunner().invoke(app, words[1:]) for words in typed]
    return folder, dict(zip((words[1] for words in typed), results, strict=True))


@pytest.fixture
def there(followed, monkeypatch):
    """In that folder, with the miniature recipe under the name of the real one."""
    folder, _ = followed
    monkeypatch.chdir(folder)
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda seed: mini_recipe())
    return folder


def test_the_five_commands(followed):
    folder, shown = followed
    assert list(shown) == ["prepare", "inspect", "run", "evaluate", "recommend"]
    for name, result in shown.items():
        assert result.exit_code == 0, f"{name}: {result.output}"
    assert "24 items, 48 users, 384 interactions" in shown["prepare"].stdout
    assert "16 items" in shown["inspect"].stdout  # with a picture
    assert "UTGRec" in shown["run"].stdout and "ItemKNN, tuned" in shown["evaluate"].stdout
    assert (folder / "runs" / "shop" / "report.html").is_file()
    found = re.findall(r"[│┃] +(\d+) +[│┃] +([AB]\d+) ", shown["recommend"].stdout)
    assert [int(place) for place, _ in found] == list(range(1, 11))
    assert {"A12", "B7"}.isdisjoint(item for _, item in found)


def test_the_python_of_the_readme(there, capsys):
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    *lines, codes = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and all(re.match(r"Cup number \d+ -\d+\.\d+$", line) for line in lines)
    assert re.fullmatch(r"\(\d+, \d+, \d+\)", codes)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_python_of_the_docs(page, there):
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), {})


@pytest.mark.parametrize("line", command_lines(ROOT / "examples" / "README.md"), ids=str)
def test_examples_run(line, there, monkeypatch, capsys):
    _, script, *arguments = line.words
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(ROOT / script), run_name="__main__")
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) >= 2
    if script.endswith("own_recipe.py"):
        doubled = utgrec.load("runs/longer")
        assert len(doubled.recommend(["A1"], k=3)) == 3


def test_every_example_is_run():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    run = {Path(line.words[1]).name for line in command_lines(ROOT / "examples" / "README.md")}
    assert scripts == run
