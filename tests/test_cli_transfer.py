"""The two verbs on the command line: pretrain on some shops, adapt to another."""

import json

import pytest
from typer.testing import CliRunner

from mini_run import mini_domains, mini_recipe
from utgrec import recipes
from utgrec.catalog import Domain
from utgrec.cli import app
from utgrec.recipes import reduced
from utgrec.regimes import PARTS, REGIMES
from utgrec.runs import RunFolder, read_plan, run_recipe


def call(*arguments: object, code: int = 0):
    """Run a command in this process; its result has stdout and stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module", autouse=True)
def mini():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.RECIPES, "mini", lambda seed: mini_recipe(seed=seed))
        yield


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Two shops to learn from, and a new one."""
    return mini_domains(tmp_path_factory.mktemp("shops"), ("kitchen", "toys", "clothing"))


@pytest.fixture(scope="module")
def base(shops, tmp_path_factory):
    """A run that was pre-trained, and what the command showed."""
    out = tmp_path_factory.mktemp("runs") / "base"
    return out, call(
        "pretrain", *shops[:2], "--recipe", "mini", "--out", out,
        "--without", "co-occurrence", "--without", "alignment", "--json",
    )  # fmt: skip


def test_pretraining_is_a_run_without_the_parts_left_out(base, shops):
    out, shown = base
    recipe = reduced(mini_recipe(seed=0), ["co-occurrence", "alignment"])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    run_recipe(recipe, shops[:2], out)  # finds everything done, or would refuse
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert (out / "report.html") in before
    document = json.loads(shown.stdout)
    assert document["recipe"] == "mini without co-occurrence and alignment"
    assert list(document["evaluation"]) == ["kitchen", "toys"]
    assert f"Next: utgrec adapt {out}" in shown.stderr


def test_adapting_says_what_it_takes_and_what_it_trains(base, shops, tmp_path):
    out = tmp_path / "new"
    shown = call("adapt", base[0], shops[2], "--out", out, "--seed", 4)
    told = " ".join(shown.stderr.split())
    assert "regime full, recipe mini without co-occurrence and alignment" in told
    assert "tokenizer: from the base, basis frozen; 4 steps of 16 items" in told
    assert "recommender: from the base; at most 4 steps of 32 histories" in told
    assert "UTGRec" in shown.stdout
    assert (out / "report.html").is_file()
    adapt = read_plan(RunFolder(out)).recipe.adapt
    assert (adapt.regime, adapt.seed) == ("full", 4)
    taken = Domain.open(shops[2]).catalog.item_ids[0]
    found = json.loads(call("recommend", out, "--item", taken, "--json").stdout)
    assert len(found["recommendations"]) == 10
    assert "UTGRec" in call("evaluate", out).stdout


def test_zero_shot_trains_nothing(base, shops, tmp_path):
    arguments = ("adapt", base[0], shops[2], "--out", tmp_path / "new", "--regime", "zero-shot")
    document = json.loads(call(*arguments, "--json").stdout)
    assert document["regime"] == "zero-shot"
    assert document["base"] == str(base[0])
    assert document["stages"]["tokenizer"]["facts"]["steps"] == 0
    assert document["stages"]["recommender"]["facts"]["steps_done"] == 0
    assert document["stages"]["ranker"]["facts"]["users"] == 0
    assert set(document["evaluation"]) == {"clothing"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--regime", "half"], 2, "no regime 'half'; there are full, frozen-tokenizer"),
        (["--without", "text"], 2, "no part 'text' to leave out"),
        (["--without", "tree"], 1, "tree: True there, False asked"),
        (["--regime", "zero-shot", "--without", "tree"], 2, "does not train the tokenizer"),
    ],
)
def test_what_cannot_be_is_refused_before_work(base, shops, tmp_path, arguments, code, message):
    out = tmp_path / "new"
    shown = call("adapt", base[0], shops[2], "--out", out, *arguments, "--json", code=code)
    assert message in json.loads(shown.stdout)["error"]["message"]
    assert not out.exists()


def test_a_base_is_needed(shops, tmp_path):
    call("adapt", tmp_path, shops[2], "--out", tmp_path / "new", code=1)


def test_help_names_all_there_is():
    # Lines break at hyphens, too.
    helped = {name: "".join(call(name, "--help").stdout.split()) for name in ("pretrain", "adapt")}
    assert all(regime in helped["adapt"] for regime in REGIMES)
    assert all(part in text for part in PARTS for text in helped.values())
