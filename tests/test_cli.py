"""The command line: help, JSON, exit codes, errors, and a whole run on a miniature marketplace."""

import dataclasses
import functools
import json
import logging
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import get_args

import pytest
import typer.main
from typer.testing import CliRunner

import utgrec
from utgrec import recipes, storage
from utgrec.cli import app
from utgrec.commands import frame, prepare, prepare_options
from utgrec.commands.prepare_options import parse_columns
from utgrec.commands.views import codes_warning
from utgrec.errors import BadConfig, UTGRecError

SHOPS = ["kitchen", "clothing"]
SIZES = ["--items", "60", "--users", "80"]


def mini(seed: int = 0) -> recipes.Recipe:
    """A recipe that does everything in seconds and learns nothing."""
    base, change = recipes.demo(seed), dataclasses.replace
    tokenizer, recommender = base.tokenizer, base.recommender
    return change(
        base,
        name="mini",
        tokenizer=change(
            tokenizer,
            batch_size=16,
            backbone=change(
                tokenizer.backbone,
                vocabulary=320,
                hidden_size=32,
                layers=1,
                heads=2,
                feed_forward=32,
                picture_tokens=4,
                vision_width=32,
            ),
            quantizer=change(tokenizer.quantizer, root_size=8, leaf_size=16, dim=8, warmup_steps=1),
            heads=change(
                tokenizer.heads,
                projection_width=16,
                decoder_width=16,
                diffusion_width=16,
                diffusion_depth=1,
                max_text_tokens=16,
            ),
            trainer=change(tokenizer.trainer, steps=3),
        ),
        recommender=change(
            recommender,
            batch_size=32,
            sizes=change(
                recommender.sizes,
                width=16,
                feed_forward=16,
                heads=2,
                trunk_layers=1,
                writer_layers=1,
            ),
            trainer=change(recommender.trainer, steps=4, validate_every=2),
        ),
        validation=change(base.validation, users=20, beam=5),
        decoding=change(base.decoding, beam=20),
    )


def call(*arguments: object, code: int = 0):
    """Run a command in this process; its result has stdout and stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def call_json(*arguments: object, code: int = 0):
    """The document that a command prints with --json."""
    return json.loads(call(*arguments, "--json", code=code).stdout)


def all_commands(group=None, path: tuple[str, ...] = ()):
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(all_commands())


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shops") / "market"
    call("prepare", "marketplace", "--out", out, *SIZES)
    return out


@pytest.fixture(scope="module")
def domains(market) -> list[Path]:
    return [market / "domains" / shop for shop in SHOPS]


@pytest.fixture(scope="module", autouse=True)
def mini_recipe():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.RECIPES, "mini", mini)
        yield


@pytest.fixture(scope="module")
def finished(domains, tmp_path_factory):
    """A finished run and what the command showed."""
    out = tmp_path_factory.mktemp("runs") / "both"
    return out, call("run", "mini", *domains, "--out", out, "--seed", "3")


# ------------------------------------------------------------------------------------------ help


def test_the_commands():
    assert {" ".join(path) for path in COMMANDS} == {
        "compare",
        "demo",
        "run",
        "pretrain",
        "adapt",
        "evaluate",
        "report",
        "recommend",
        "inspect",
        "card",
        "clean",
        "images",
        "export",
        "prepare table",
        "prepare marketplace",
        "prepare amazon2023",
        "prepare authors",
        "prepare datasets",
        "prepare recbole",
        "prepare split",
        "tokenizer train",
        "tokenizer assign",
        "tokenizer encode",
        "tokenizer convert-vae",
        "tokenizer publish",
        "recommender train",
        "recommender rank",
        "catalog add",
        "catalog replace",
        "catalog remove",
        "catalog list",
        "catalog activate",
        "catalog rollback",
        "catalog prune",
        "serve",
        "key add",
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example_that_can_be_parsed(path):
    text = " ".join(call(*path, "--help").stdout.split())
    example = text[text.index("Example: utgrec ") :].split()[2:]
    assert tuple(example[: len(path)]) == path
    COMMANDS[path].make_context(" ".join(path), example[len(path) :])  # wrong usage would raise


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_the_shared_options(path):
    text = call(*path, "--help").stdout
    assert all(option in text for option in ("--json", "--quiet", "--verbose", "--debug"))


def test_version():
    assert call("--version").stdout == f"utgrec {utgrec.__version__}\n"


def test_help_is_quick_and_loads_nothing_heavy():
    script = """
        import sys
        from utgrec.cli import main
        for arguments in (["--help"], ["recommender", "train", "--help"], ["prepare", "table"]):
            sys.argv = ["utgrec", *arguments]
            try:
                main()
            except SystemExit:
                pass
        heavy = {"torch", "transformers", "polars", "numpy", "pyarrow"} & set(sys.modules)
        sys.exit(f"loaded {heavy}" if heavy else 0)
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = _python(script)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    # Time of the processor, since the wall clock also measures what else the machine does.
    assert after.ru_utime - before.ru_utime < 1.5


def test_preparing_and_inspecting_need_no_torch(market, tmp_path):
    script = f"""
        import sys
        from utgrec.cli import main
        for arguments in (
            ["prepare", "marketplace", "--out", {str(market)!r}, *{SIZES!r}],
            ["prepare", "table", {str(market / "sources" / "kitchen")!r}, "--out", "d"],
            ["inspect", "d"],
        ):
            sys.argv = ["utgrec", *arguments]
            try:
                main()
            except SystemExit as end:
                assert end.code == 0, arguments
        heavy = {{"torch", "transformers"}} & set(sys.modules)
        sys.exit(f"loaded {{heavy}}" if heavy else 0)
    """
    done = _python(script, tmp_path)
    assert done.returncode == 0, done.stderr


def _python(script: str, folder: Path | None = None):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=folder, capture_output=True, text=True
    )


# --------------------------------------------------------------------------------------- prepare


def test_options_left_out_are_the_librarys_defaults(monkeypatch, tmp_path):
    from utgrec.data import marketplace
    from utgrec.data import prepare as library

    seen = []

    def note(source, out, options, progress):
        seen.append(options)
        raise UTGRecError("seen")

    monkeypatch.setattr(library, "prepare_table", note)
    call("prepare", "table", tmp_path, "--out", tmp_path / "d", code=1)
    assert seen == [library.TableOptions()]

    def note_shops(out, config, overwrite=False):
        seen.append((config, overwrite))
        raise UTGRecError("seen")

    monkeypatch.setattr(marketplace, "write_marketplace", note_shops)
    call("prepare", "marketplace", "--out", tmp_path / "m", code=1)
    defaults = marketplace.MarketplaceConfig()
    assert seen[1:] == [(dataclasses.replace(defaults, shops=defaults.shops[:1]), False)]
    assert tuple(prepare.SHOPS) == defaults.shops


def test_every_table_option_has_a_flag(monkeypatch, tmp_path):
    from utgrec.data import prepare as library
    from utgrec.data.events import EventOptions
    from utgrec.data.splitting import SplitOptions

    wanted = library.TableOptions(
        name="shop",
        items_file="i.csv",
        interactions_file="l.csv",
        columns={"item_id": "sku", "image": ""},
        text_columns=("maker", "year"),
        skip_columns=("stock", "cost"),
        time_zone="Europe/Paris",
        time_format="%d.%m.%Y",
        events=EventOptions(types={"buy": 2.0}, min_weight=0.5),
        split=SplitOptions(kind="global-time", valid_share=0.2, test_share=0.3),
        k_core=2,
        keep_untaken_items=True,
        max_image_pixels=1000,
        bad_rows="reject",
        source="the shop",
        licence="ask first",
        overwrite=True,
    )
    # A table that keeps its types is written by `utgrec export`, whose mapping file says so.
    exports = {"exact", "exact_types"}
    same = [
        field.name
        for field in dataclasses.fields(wanted)
        if field.name not in {"time_unit", *exports}
        and getattr(wanted, field.name) == getattr(library.TableOptions(), field.name)
    ]
    assert same == []  # all of them differ from their defaults
    seen = []

    def note(source, out, options, progress):
        seen.append(options)
        raise UTGRecError("seen")

    monkeypatch.setattr(library, "prepare_table", note)
    flags = "--name shop --items i.csv --interactions l.csv --column item_id=sku --column image= "
    flags += "--text-column maker --text-column year --skip-column stock --skip-column cost "
    flags += "--time-zone Europe/Paris --time-format %d.%m.%Y --event buy=2 --min-weight 0.5 "
    flags += "--split global-time --valid-share 0.2 --test-share 0.3 "
    flags += "--k-core 2 --keep-untaken --max-image-pixels 1000 --overwrite "
    arguments = [*flags.split(), "--bad-rows", "reject"]
    arguments += ["--source", "the shop", "--licence", "ask first"]
    call("prepare", "table", tmp_path, "--out", tmp_path / "d", *arguments, code=1)
    more = ["--drop-untaken", "--no-text-columns", "--time-unit", "row"]
    call("prepare", "table", tmp_path, "--out", "d", *more, code=1)
    other = library.TableOptions(keep_untaken_items=False, text_columns=(), time_unit="row")
    assert seen == [wanted, other]


def test_the_choices_are_the_librarys():
    from utgrec.data.rejects import BadRows
    from utgrec.data.times import TimeUnit

    assert get_args(prepare_options.BadRows) == get_args(BadRows)
    assert get_args(prepare_options.TimeUnit) == get_args(TimeUnit)


def test_prepare_a_table_and_inspect_it(market, tmp_path):
    source, out = market / "sources" / "kitchen", tmp_path / "shop"
    text = call("prepare", "table", source, "--out", out, "--k-core", 6, "--licence", "free")
    assert "60 items, " in text.stdout and "removed by 6-core" in text.stdout
    assert f"Next: utgrec inspect {out}" in text.stderr
    assert "check images: " in text.stderr  # progress without a terminal
    facts = call_json("prepare", "table", source, "--out", out, "--k-core", 6, "--licence", "free")
    summary = call_json("inspect", out)
    for name in ("users", "items", "interactions", "items_with_image"):
        assert summary[name] == facts["counts"][name]
    assert summary["licence"] == "free"
    assert 0 < summary["items"] < 60
    assert f"interactions removed: {facts['filter']['interactions_removed']}" in text.stdout
    assert "Gini" in call("inspect", out).stdout


def test_rejected_rows_are_counted_by_reason(market, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("items.jsonl", "interactions.csv"):
        text = (market / "sources" / "kitchen" / name).read_text()
        (source / name).write_text(text.replace("images/", "gone/"))
    with open(source / "interactions.csv", "a") as stream:
        stream.write("U1,NOSUCH,1700000000000\n")
    arguments = ("prepare", "table", source, "--out", tmp_path / "d", "--k-core", 1)
    assert "--bad-rows reject" in call(*arguments, code=1).stderr
    assert not (tmp_path / "d").exists()
    counted = call_json(*arguments, "--bad-rows", "reject")["rejected"]
    assert len(counted) == 2 and sorted(counted.values())[0] == 1
    result = call(*arguments, "--bad-rows", "reject")
    for reason, count in counted.items():
        assert f"{reason}: {count}" in result.stdout
    assert "rejected.parquet" in result.stderr


def test_column_texts():
    assert parse_columns(["item_id=a=b", "image="]) == {"item_id": "a=b", "image": ""}
    for wrong in (["item_id"], ["=x"], ["item_id=a", "item_id=b"]):
        with pytest.raises(BadConfig, match="--column"):
            parse_columns(wrong)


# -------------------------------------------------------------------------------------- whole run


def test_a_run_says_what_it_does_and_shows_what_came_out(finished, domains):
    out, result = finished
    assert "recipe mini, seed 3" in result.stderr
    assert "domain clothing: 60 items, 80 users" in result.stderr
    assert "tokenizer: 3 steps of 16 items out of 120; 3 codes out of 8 and 16 and 16" in (
        result.stderr
    )
    assert "Training the tokenizer: 3 in " in result.stderr  # progress without a terminal
    assert "Loading weights" not in result.stderr  # transformers' own bars are off
    for system in ("Popularity", "ItemKNN", "ItemKNN, tuned", "UTGRec", "Oracle"):
        assert result.stdout.count(f"│ {system} ") == len(domains)
    assert f"report: {out / 'report.html'}" in result.stdout
    assert (out / "report.html").stat().st_size > 1000


def test_codes_that_say_little_are_a_warning(finished):
    out, result = finished
    for shop in SHOPS:
        facts = storage.read_manifest(out / "codes" / shop, "codes").facts
        warned = f"of the items of {shop} shared their nearest codes" in result.stderr
        assert warned == (facts["conflict_rate"] > 0.5)
    assert codes_warning({"conflict_rate": 0.5, "domain": "d"}) is None
    assert "100% of the items of d " in str(codes_warning({"conflict_rate": 1.0, "domain": "d"}))


def test_the_table_shows_the_figures_of_the_evaluation(finished):
    out, result = finished
    compared = storage.read_json(out / "evaluation" / "clothing" / "comparison.json")
    for row in compared["rows"]:
        value = row["metrics"]["ndcg@10"]["value"]
        line = f"{value:.4f} ± "
        assert line in result.stdout
        assert f"{row['oracle_share']['value']:.1%} │" in result.stdout


def test_a_finished_run_is_not_made_again(finished, domains):
    out, result = finished
    files = sorted(out.rglob("manifest.json"))
    before = [path.stat().st_mtime_ns for path in files]
    again = call("run", "mini", *domains, "--out", out, "--seed", "3")
    assert len(files) == 7
    assert [path.stat().st_mtime_ns for path in files] == before
    assert again.stdout == result.stdout
    assert (
        "finished before: tokenizer, codes/kitchen, codes/clothing, recommender, ranker"
        in again.stderr
    )
    assert "Training" not in again.stderr


def test_an_interrupted_stage_is_announced(finished, domains, tmp_path):
    out, _ = finished
    (tmp_path / "run" / ".tokenizer.work").mkdir(parents=True)
    plan = storage.read_json(out / "run.json")
    storage.write_json(tmp_path / "run" / "run.json", plan)
    # The folder is then refused for its other seed, before anything is made in it.
    refused = call("run", "mini", *domains, "--out", tmp_path / "run", code=1)
    assert "to be continued: tokenizer" in refused.stderr


def test_every_command_prints_one_json_document(finished, domains, market, tmp_path):
    out, _ = finished
    run = call_json("run", "mini", *domains, "--out", out, "--seed", "3")
    assert set(run["stages"]) >= {"tokenizer", "recommender", "codes/kitchen"}
    assert list(run["evaluation"]) == SHOPS
    assert call_json("evaluate", out)["evaluation"] == run["evaluation"]
    assert Path(call_json("report", out, "--out", tmp_path / "r.html")["report"]).is_file()
    assert call_json("inspect", domains[0])["name"] == "kitchen"
    again = call_json("prepare", "marketplace", "--out", market, *SIZES)
    assert [row["name"] for row in again["domains"]] == SHOPS


def test_a_published_tokenizer_gives_the_same_codes(finished, tmp_path):
    run, _ = finished
    out = tmp_path / "kitchen codes"
    made = call_json("tokenizer", "publish", run, "--out", out)
    assert made["name"] == "kitchen codes" and made["licence"] == "apache-2.0"
    card = (out / "README.md").read_text()
    assert "# kitchen codes" in card and "2 domains (`kitchen`, `clothing`)" in card
    report = storage.read_json(run / "codes" / "kitchen" / "report.json")
    assert f"{report['conflict_rate']:.3f}" in card
    assert storage.read_json(out / "code_report.json")["kitchen"] == report
    own, theirs = (
        utgrec.ItemTokenizer.from_pretrained(folder) for folder in (run / "tokenizer", out)
    )
    for text in ("A cup nobody has seen.", "Blue scarf, wool."):
        assert own.encode(text=text) == theirs.encode(text=text)
    again = call_json("tokenizer", "publish", run / "tokenizer", "--out", out, "--name", "other")
    assert again["name"] == "other" and "No catalogue" in (out / "README.md").read_text()
    call("tokenizer", "publish", run, "--out", out, "--backbone", "some/model", code=2)
    assert (out / "README.md").is_file()


def test_what_lies_elsewhere_is_looked_for_where_it_is_said_to_be(finished, domains, tmp_path):
    """An autoencoder by all commands that train; a base model by those that encode new items."""
    run, nowhere = finished[0], tmp_path / "nowhere"
    for command in (("run", "mini"), ("pretrain", "--recipe", "mini"),
                    ("tokenizer", "train", "--recipe", "mini")):  # fmt: skip
        where = ("--out", tmp_path / "made", "--vae", nowhere)
        said = call(*command, domains[0], *where, code=1).stderr
        assert "holds no autoencoder" in " ".join(said.split())
    items = tmp_path / "new.jsonl"
    items.write_text('{"item_id": "new", "title": "Jug"}\n')
    where = ("--domain", SHOPS[0], "--backbone", nowhere)
    said = call("catalog", "add", run, items, *where, code=2).stderr
    assert "holds its own backbone" in " ".join(said.split())


def test_stages_one_by_one_are_the_stages_of_a_run(finished, domains, tmp_path):
    out, _ = finished
    recipe = ("--recipe", "mini", "--seed", 3)
    made = call("tokenizer", "train", *domains, *recipe, "--out", tmp_path / "t")
    assert "items trained" in made.stdout
    for shop, domain in zip(SHOPS, domains, strict=True):
        codes = tmp_path / "codes" / shop
        assigned = call("tokenizer", "assign", tmp_path / "t", domain, "--out", codes)
        assert "perplexity" in assigned.stdout and "by chance" in assigned.stdout
    codes = [part for shop in SHOPS for part in ("--codes", tmp_path / "codes" / shop)]
    trained = call_json("recommender", "train", *domains, *codes, *recipe, "--out", tmp_path / "r")
    assert trained["steps_done"] == 4
    for ours, stage, theirs in (
        ("t", "tokenizer", "tokenizer"),
        ("codes/clothing", "codes", "codes/clothing"),
        ("r", "recommender", "recommender"),
    ):
        own = storage.read_manifest(tmp_path / ours, stage)
        assert own.fingerprint == storage.read_manifest(out / theirs, stage).fingerprint


def test_the_table_of_stages_says_what_rankers_learned_from(finished):
    _, result = finished
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("│ ranker")]
    assert "users 160, rankers kept " in line


def test_a_run_without_a_ranker_gets_one(finished, tmp_path):
    out, _ = finished
    run = tmp_path / "run"
    shutil.copytree(out, run)
    shutil.rmtree(run / "ranker")
    assert len(utgrec.load(run, "clothing").recommend([], k=5)) == 5
    made = call_json("recommender", "rank", run)
    assert made["domains"]["clothing"]["users"] == 80
    assert storage.read_manifest(run / "ranker", "ranker").fingerprint == (
        storage.read_manifest(out / "ranker", "ranker").fingerprint
    )
    again = call("recommender", "rank", run)
    kept = "yes" if made["domains"]["kitchen"]["kept"] else "no"
    assert "ranker of kitchen" in again.stdout
    (line,) = [line for line in again.stdout.splitlines()[:8] if "kept" in line]
    assert kept in line.split()


def test_recommend_is_what_the_library_recommends(finished):
    out, _ = finished
    loaded = utgrec.load(out, "clothing")
    history = loaded.catalog.item_ids[:3]
    arguments = ("recommend", out, "--domain", "clothing", "--k", 4)
    answer = call_json(*arguments, "--history", ", ".join(history))
    wanted = [(entry.item.item_id, entry.score) for entry in loaded.recommend(history, 4)]
    assert [(row["item_id"], row["score"]) for row in answer["recommendations"]] == wanted
    assert answer["history"] == history
    apart = [part for item_id in history for part in ("--item", item_id)]
    assert call_json(*arguments, *apart) == answer
    text = call(*arguments, "--history", history[0], "--item", history[1])
    assert loaded.catalog.titles[1] in " ".join(text.stdout.split())


def test_seen_items_are_recommended_only_if_asked(finished):
    out, _ = finished
    seen = utgrec.load(out, "kitchen").catalog.item_ids[:2]
    arguments = ("recommend", out, "--domain", "kitchen", "--k", 60, "--history", ",".join(seen))
    fresh = {row["item_id"] for row in call_json(*arguments)["recommendations"]}
    everything = {row["item_id"] for row in call_json(*arguments, "--keep-seen")["recommendations"]}
    assert len(fresh) == 58 and not fresh & set(seen)
    assert everything == fresh | set(seen)


def test_demo_does_everything_and_can_be_served(monkeypatch, tmp_path):
    from fastapi.testclient import TestClient

    from utgrec.data import marketplace
    from utgrec.serving.app import create_app
    from utgrec.serving.generations import GenerationStore

    small = functools.partial(marketplace.MarketplaceConfig, items_per_shop=40, users_per_shop=30)
    monkeypatch.setattr(marketplace, "MarketplaceConfig", small)
    monkeypatch.setitem(recipes.RECIPES, "demo", mini)
    result = call("demo", "--out", tmp_path / "demo")
    report = tmp_path / "demo" / "run" / "report.html"  # where the explorer shows it
    assert f"report: {report}" in result.stdout and report.is_file()
    assert result.stdout.count("│ Oracle ") == 2
    said = result.stderr[result.stderr.index("Try: utgrec ") :].splitlines()
    tried = said[0].split()[2:]
    assert len(call_json(*tried, "--k", 3)["recommendations"]) == 3
    assert f"utgrec serve {tmp_path / 'demo' / 'run'} --domain " in said[1]
    server = create_app(GenerationStore(tmp_path / "demo" / "run", tried[3]))
    with TestClient(server, base_url="http://localhost") as client:
        shown = client.get(client.get("/v1/report").json()["url"])
    assert shown.text == report.read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "words"),
    [
        ("inspect {tmp}/nowhere", 1, "MissingStage", "domain.json"),
        ("inspect {tmp}", 1, "MissingStage", "domain.json"),
        ("prepare table {tmp}/nowhere --out {tmp}/d", 1, "BadTable", "nowhere"),
        ("prepare table {tmp} --out {tmp}/d --column sku", 2, "BadConfig", "ROLE=NAME"),
        ("prepare table {tmp} --out {tmp}/d --column colour=c", 2, "BadConfig", "colour"),
        (
            "prepare table {tmp} --out {tmp}/d --no-text-columns --text-column a",
            2,
            "BadConfig",
            "exclude",
        ),
        ("prepare marketplace --out {tmp}/m --shop fish", 2, "BadConfig", "fish"),
        ("prepare marketplace --out {market} --items 61", 1, "SettingsMismatch", "items_per_shop"),
        ("tokenizer train {domain} --recipe huge --out {tmp}/t", 2, "BadConfig", "huge"),
        ("tokenizer assign {tmp} {domain} --out {tmp}/c", 1, "MissingStage", "tokenizer"),
        ("tokenizer publish {tmp} --out {tmp}/p", 1, "MissingStage", "tokenizer"),
        ("tokenizer convert-vae {tmp}/kl16.ckpt --out {tmp}/v", 1, "MissingStage", "kl16.ckpt"),
        ("recommender train {domain} --codes {tmp} --out {tmp}/r", 1, "MissingStage", "codes"),
        ("recommender rank {tmp}", 1, "MissingStage", "run.json"),
        (
            "recommender train {domain} {domain} --codes {tmp} --out {tmp}/r",
            2,
            "BadConfig",
            "2 domains",
        ),
        ("run huge {domain} --out {tmp}/r", 2, "BadConfig", "tiny, demo"),
        ("run mini {tmp} --out {tmp}/r", 1, "MissingStage", "domain.json"),
        ("run mini {domain} {domain} --out {tmp}/r", 2, "BadConfig", "different names"),
        ("run mini {domain} --out {run}", 1, "SettingsMismatch", "recipe"),
        ("run mini {domain} --out {market}", 1, "InputError", "no run"),
        ("evaluate {tmp}/nowhere", 1, "MissingStage", "run.json"),
        ("evaluate {market}", 1, "MissingStage", "run.json"),
        ("report {market} --out {tmp}/r.html", 1, "MissingStage", "run.json"),
        ("recommend {market} --history A", 1, "MissingStage", "run.json"),
        ("recommend {run} --domain kitchen", 2, "BadConfig", "--history"),
        ("recommend {run} --domain kitchen --history ,", 2, "BadConfig", "--history"),
        ("recommend {run} --domain kitchen --history A,B", 1, "UnknownItem", "'A', 'B'"),
        ("recommend {run} --domain kitchen --item A,B", 1, "UnknownItem", "'A,B'"),
        ("recommend {run} --history KIT00001", 1, "InputError", "kitchen, clothing"),
        ("recommend {run} --history KIT00001 --domain fish", 1, "InputError", "fish"),
    ],
)
def test_an_error_is_one_line_and_one_document(
    arguments, code, kind, words, finished, market, domains, tmp_path
):
    places = {"tmp": tmp_path, "market": market, "domain": domains[0], "run": finished[0]}
    filled = arguments.format(**places).split()
    text = call(*filled, code=code)
    assert text.stdout == ""
    line = text.stderr.splitlines()[-1]
    assert line.startswith(f"{kind}: ") and words in line
    assert "Traceback" not in text.stderr
    silent = call(*filled, "--json", "--quiet", code=code)
    assert json.loads(silent.stdout) == {
        "error": {"type": kind, "message": line.removeprefix(f"{kind}: ")}
    }
    assert silent.stderr.splitlines() == [line]


@pytest.mark.parametrize(
    "arguments",
    [
        "inspect",
        "inspect a b",
        "run tiny --out r",
        "nosuch",
        "recommend r --history A --k 0",
        "recommend r --history A --k ten",
        "prepare table s --out d --bad-rows keep",
        "prepare table s --out d --time-unit weeks",
        "prepare table s --out d --k-core 0",
        "tokenizer train d --out t --seed -1",
    ],
)
def test_wrong_usage_ends_with_2(arguments):
    result = call(*arguments.split(), code=2)
    assert result.stdout == ""
    assert "Usage: " in result.stderr and "--help" in result.stderr


def test_debug_shows_where_an_error_came_from(tmp_path):
    text = call("inspect", tmp_path, "--debug", code=1).stderr
    assert "Traceback" in text and "read_manifest" in text
    assert text.splitlines()[-1].startswith("MissingStage: ")


# ------------------------------------------------------------------------------------------ frame


def run_frame(command, *flags: str, code: int = 0):
    """Run a command of the test as `utgrec` would."""
    own = typer.Typer()
    frame.add_command(own, "try", example="utgrec try")(command)
    result = CliRunner().invoke(own, list(flags))
    assert result.exit_code == code, result.output
    return result


def answer(terminal: frame.Terminal) -> frame.Answer:
    """Do what libraries do: print, log and report progress."""
    print("printed by a library")
    logging.getLogger("utgrec.x").info("told by utgrec")
    terminal.progress("Working", 2, 2)
    terminal.say("a message")
    return frame.Answer({"value": "ü", "path": Path("x")}, ("shown [b]",))


def test_stdout_belongs_to_the_answer():
    text, document = run_frame(answer), run_frame(answer, "--json")
    assert text.stdout == "shown [b]\n"
    assert json.loads(document.stdout) == {"value": "ü", "path": "x"}
    for result in (text, document):
        assert result.stderr.splitlines() == [
            "printed by a library",
            "Working: 2 in 0:00",
            "a message",
        ]


def test_quiet_and_verbose():
    assert run_frame(answer, "--quiet").stderr == "printed by a library\n"
    assert "told by utgrec" in run_frame(answer, "--verbose").stderr


def test_ctrl_c_says_that_running_again_continues():
    def command(terminal: frame.Terminal) -> frame.Answer:
        """Be stopped."""
        terminal.progress("Working", 3, 9)
        raise KeyboardInterrupt

    stopped = run_frame(command, "--json", code=130)
    assert stopped.stderr.splitlines()[0] == "Working: 3 of 9 in 0:00"
    assert "run the same command again to continue" in stopped.stderr.splitlines()[1]
    assert json.loads(stopped.stdout)["error"]["type"] == "Interrupted"


def test_a_defect_shows_its_traceback():
    def command(terminal: frame.Terminal) -> frame.Answer:
        """Have a defect."""
        return frame.Answer({"value": 1 // 0}, ())

    failed = run_frame(command, "--json", code=1)
    assert "Traceback" in failed.stderr and "report it" in failed.stderr
    assert json.loads(failed.stdout)["error"]["type"] == "ZeroDivisionError"


def test_a_full_disk_is_no_defect():
    def command(terminal: frame.Terminal) -> frame.Answer:
        """Write where there is no room."""
        raise OSError(28, "No space left on device", "runs/x")

    failed = run_frame(command, code=1)
    assert "No space left" in failed.stderr and "Traceback" not in failed.stderr
