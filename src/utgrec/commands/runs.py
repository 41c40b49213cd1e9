"""Commands on whole runs: demo, run, evaluate, report."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from utgrec import processes
from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import (
    BackboneName,
    Devices,
    Domains,
    DryRun,
    RunPath,
    Seed,
    Tflops,
    VaePlace,
)
from utgrec.commands.plans import plan_answer
from utgrec.commands.prepare import domain_row, simulate_shops
from utgrec.commands.views import (
    codes_warning,
    comparison_table,
    stages_table,
)

if TYPE_CHECKING:
    from utgrec.recipes import Recipe
    from utgrec.storage import Manifest


# Nine interactions a user over so many items leave eighteen to an item on average and a handful to
# most: what an item is has to make up for what few have done with it, as in most real shops.
DEMO_ITEMS = 1500
DEMO_USERS = 3000


def demo(
    terminal: Terminal,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.", metavar="DIR")] = Path(
        "demo"
    ),
    seed: Seed = 0,
) -> Answer:
    """Simulate two shops and do everything with them.

    It takes minutes and downloads nothing. It ends with a comparison against simple recommenders
    and against the best possible one, and with a report to open in a browser.
    """
    from utgrec.data.marketplace import MarketplaceConfig
    from utgrec.recipes import find_recipe

    folders = simulate_shops(
        terminal,
        out / "market",
        MarketplaceConfig(items_per_shop=DEMO_ITEMS, users_per_shop=DEMO_USERS),
        overwrite=False,
    )
    settings = find_recipe("demo", seed)
    answer = do_run(terminal, settings, folders, out / "run", seed)
    example = example_history(folders[0])
    named = f"{out / 'run'} --domain {domain_row(folders[0])['name']}"
    terminal.say(f"Try: utgrec recommend {named} --history {','.join(example)}")
    terminal.say(f"Or:  utgrec serve {named}  and open http://127.0.0.1:8000")
    return answer


def run(
    terminal: Terminal,
    recipe: Annotated[str, typer.Argument(help="Name of the recipe.", metavar="RECIPE")],
    domains: Domains,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.", metavar="RUN")],
    backbone: BackboneName = None,
    vae: VaePlace = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    devices: Devices = 1,
    tflops: Tflops = None,
) -> Answer:
    """Do all stages of a recipe on some domains.

    These are tokenizer, codes, recommender, evaluation and report. Finished stages are skipped,
    an interrupted one is continued: run the same command again.
    """
    from utgrec.recipes import find_recipe

    settings = find_recipe(recipe, seed, backbone=backbone, vae=vae)
    if dry_run:
        title = f"recipe {recipe}"
        return plan_answer(terminal, settings.tokenizer, domains, title, devices, tflops)
    return do_run(terminal, settings, domains, out, seed)


def evaluate(terminal: Terminal, path: RunPath) -> Answer:
    """Measure a run beside simple recommenders.

    The test items of all its domains are used. What was evaluated before is only shown. The codes
    are those of the run, whatever became of its catalogue since.
    """
    from utgrec.errors import StorageError
    from utgrec.runs import evaluate_run
    from utgrec.serving.generations import GenerationStore

    done = evaluate_run(path, terminal.progress)
    compared = read_comparisons(path, done)
    for name in compared:
        with contextlib.suppress(StorageError):
            store = GenerationStore(path, name, write=False)
            if store.has_changed:
                terminal.say(
                    f"{name}: this measures the run; what serves is generation {store.current} of "
                    "its catalogue"
                )
    return Answer({"run": str(path), "evaluation": compared}, tuple(tables(compared)))


def report(
    terminal: Terminal,
    path: RunPath,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File to write.", metavar="FILE", show_default="RUN/report.html"
        ),
    ] = None,
) -> Answer:
    """Write the report of a finished run once more.

    It is one HTML file that needs nothing else.
    """
    from utgrec.report import write_report

    written = write_report(path, out)
    return Answer({"run": str(path), "report": str(written)}, (f"report: {written}",))


def do_run(
    terminal: Terminal,
    recipe: "Recipe",
    domains: Sequence[Path],
    out: Path,
    seed: int,
) -> Answer:
    """All stages of a recipe and the report."""
    from utgrec.runs import run_recipe

    rows = [domain_row(folder) for folder in domains]
    for line in plan_lines(recipe, seed, rows, out):
        terminal.say(line)
    done = run_recipe(recipe, domains, out, terminal.progress)
    made_from = {"run": str(out), "recipe": recipe.name, "seed": seed, "domains": rows}
    return finish(terminal, made_from, done, out)


def finish(
    terminal: Terminal,
    made_from: Mapping[str, Any],
    done: Mapping[str, "Manifest"],
    out: Path,
) -> Answer:
    """The report of a finished run, and the answer of the command that made it."""
    from utgrec.report import write_report
    from utgrec.runs import RunFolder

    for made in done.values():
        if made.stage == "codes" and (warning := codes_warning(made.facts)):
            terminal.say(warning)
    compared = read_comparisons(out, done)
    # Of several processes the first one writes and answers; its figures are everybody's.
    written = write_report(out) if processes.is_first() else RunFolder(out).report
    stages = {path: {"facts": made.facts, "measured": made.measured} for path, made in done.items()}
    document = {
        **made_from,
        "stages": stages,
        "evaluation": compared,
        "report": str(written),
    }
    view = [stages_table(stages), *tables(compared), f"report: {written}"]
    return Answer(document, tuple(view))


def plan_lines(
    recipe: "Recipe", seed: int, domains: Sequence[Mapping[str, Any]], out: Path
) -> list[str]:
    """What a run is going to do, derived from the recipe, the domains and the run folder."""
    from utgrec.runs import RunFolder
    from utgrec.storage import MANIFEST

    folder = RunFolder(out)
    tokenizer, recommender = recipe.tokenizer, recipe.recommender
    sizes = tokenizer.quantizer
    items = sum(domain["counts"]["items"] for domain in domains)
    leaves = f" and {sizes.leaf_size}" * (sizes.code_length - 1)
    stages = [
        folder.tokenizer,
        *(folder.codes(domain["name"]) for domain in domains),
        folder.recommender,
        folder.ranker,
        *(folder.evaluation(domain["name"]) for domain in domains),
    ]
    finished = [stage for stage in stages if (stage / MANIFEST).is_file()]
    begun = [stage for stage in stages if (stage.parent / f".{stage.name}.work").is_dir()]
    lines = [f"recipe {recipe.name}, seed {seed} → {out}"]
    lines += [
        f"domain {domain['name']}: "
        + ", ".join(f"{domain['counts'][what]:,} {what}" for what in ("items", "users"))
        + f", {domain['counts']['interactions']:,} interactions"
        for domain in domains
    ]
    lines += [
        f"tokenizer: {tokenizer.trainer.steps:,} steps of {tokenizer.batch_size} items out of "
        f"{items:,}; {sizes.code_length} codes out of {sizes.root_size}{leaves}",
        f"recommender: at most {recommender.trainer.steps:,} steps of {recommender.batch_size} "
        f"targets; {recommender.sizes.summary}",
        f"ranker: {recipe.ranker.networks} small networks put the best {recipe.ranker.candidates} "
        "in order",
        f"evaluation: beam {recipe.decoding.beam}, seen items "
        + ("left out" if recipe.exclude_seen else "kept"),
    ]
    for what, which in (("finished before", finished), ("to be continued", begun)):
        if which:
            lines.append(f"{what}: " + ", ".join(str(stage.relative_to(out)) for stage in which))
    return lines


def read_comparisons(out: Path, done: Mapping[str, "Manifest"]) -> dict[str, Any]:
    """Domain → its comparison.json, checked against the manifests of a run's stages."""
    from utgrec import storage

    return {
        made.facts["domain"]: storage.read_json(
            storage.check_file(out / path, made, "comparison.json")
        )
        for path, made in done.items()
        if made.stage == "evaluation"
    }


def tables(compared: Mapping[str, Any]) -> list[RenderableType]:
    """The comparison of every domain."""
    return [comparison_table(domain, values) for domain, values in compared.items()]


def example_history(folder: Path) -> list[str]:
    """The first items of a domain's first user."""
    from utgrec.catalog import Domain

    domain = Domain.open(folder)
    return [domain.catalog.item_ids[index] for index in domain.history(0)[:3]]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    add_command(app, "demo", example="utgrec demo --out demo", uses_models=True)(demo)
    add_command(
        app,
        "run",
        example="utgrec run tiny domains/shop --out runs/shop",
        uses_models=True,
    )(run)
    add_command(app, "evaluate", example="utgrec evaluate runs/shop", uses_models=True)(evaluate)
    add_command(app, "report", example="utgrec report runs/shop --out shop.html")(report)
