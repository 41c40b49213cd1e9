"""Commands that move what was learned between shops: pretrain on some, adapt to another."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import (
    BackboneName,
    BackbonePlace,
    Devices,
    DomainFolder,
    Domains,
    DryRun,
    RecipeName,
    Seed,
    Tflops,
    VaePlace,
)
from utgrec.commands.plans import plan_answer
from utgrec.commands.prepare import domain_row
from utgrec.commands.runs import do_run, finish

if TYPE_CHECKING:
    from utgrec.runs import RunPlan

LeaveOut = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        help="Leave out a part of the tokenizer: tree, alignment or co-occurrence. "
        "May be repeated.",
        metavar="PART",
    ),
]


def pretrain(
    terminal: Terminal,
    domains: Domains,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.", metavar="RUN")],
    recipe: RecipeName = "tiny",
    backbone: BackboneName = None,
    vae: VaePlace = None,
    leave_out: LeaveOut = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    devices: Devices = 1,
    tflops: Tflops = None,
) -> Answer:
    """Learn from several shops at once what a new shop can start from.

    One tokenizer and one recommender for all domains, each domain evaluated by itself. Finished
    stages are skipped, an interrupted one is continued: run the same command again.
    """
    from utgrec.recipes import find_recipe

    settings = find_recipe(recipe, seed, leave_out=leave_out or (), backbone=backbone, vae=vae)
    if dry_run:
        title = f"recipe {recipe}"
        return plan_answer(terminal, settings.tokenizer, domains, title, devices, tflops)
    answer = do_run(terminal, settings, domains, out, seed)
    terminal.say(f"Next: utgrec adapt {out} NEW_DOMAIN --out NEW_RUN")
    return answer


def adapt(
    terminal: Terminal,
    base: Annotated[Path, typer.Argument(help="A finished run.", metavar="RUN")],
    folder: DomainFolder,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.", metavar="RUN")],
    regime: Annotated[
        str | None,
        typer.Option(
            help="What is taken from RUN and what is trained: full, frozen-tokenizer, basis-too, "
            "new-recommender, from-scratch or zero-shot.",
            show_default="as the recipe of RUN says",
        ),
    ] = None,
    leave_out: LeaveOut = None,
    backbone: BackbonePlace = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seed of everything drawn at random.",
            show_default="as the recipe of RUN says",
        ),
    ] = None,
    dry_run: DryRun = False,
    devices: Devices = 1,
    tflops: Tflops = None,
) -> Answer:
    """Bring a finished run to a new domain; the new run folder needs the old one no more.

    The tokenizer goes on from RUN's with its code basis frozen, the recommender from RUN's weights.
    Finished stages are skipped, an interrupted one is continued: run the same command again.
    """
    from utgrec.adaptation import adapt_run, plan_adaptation
    from utgrec.catalog import Domain
    from utgrec.runs import RunFolder, read_plan

    settings = read_plan(RunFolder(base)).recipe.adapt
    if regime is not None:
        settings = dataclasses.replace(settings, regime=regime)
    if seed is not None:
        settings = dataclasses.replace(settings, seed=seed)
    parts = leave_out or []
    plan = plan_adaptation(
        base, Domain.open(folder), folder, out, settings, leave_out=parts, backbone=backbone
    )
    if dry_run:
        from utgrec.regimes import tokenizer_settings

        wanted = tokenizer_settings(plan.recipe.tokenizer, plan.recipe.adapt)
        title = f"adapting {base}"
        return plan_answer(terminal, wanted, [folder], title, devices, tflops)
    rows = [domain_row(folder)]
    for line in adaptation_lines(plan, base, out):
        terminal.say(line)
    done = adapt_run(
        base,
        folder,
        out,
        settings,
        leave_out=parts,
        backbone=backbone,
        progress=terminal.progress,
    )
    document = {
        "run": str(out),
        "base": str(base),
        "recipe": plan.recipe.name,
        "regime": settings.regime,
        "without": parts,
        "seed": settings.seed,
        "domains": rows,
    }
    return finish(terminal, document, done, out)


def adaptation_lines(plan: "RunPlan", base: Path, out: Path) -> list[str]:
    """What an adaptation is going to do, derived from the base and the regime."""
    from utgrec.regimes import recommender_settings, tokenizer_settings

    adapt, what, recipe = plan.recipe.adapt, plan.recipe.adapt.what, plan.recipe
    (name,) = plan.domains
    lines = [f"{base} → {name}, regime {adapt.regime}, recipe {recipe.name} → {out}"]
    if what.train_tokenizer:
        tokenizer = tokenizer_settings(recipe.tokenizer, adapt)
        frozen = ", basis frozen" if tokenizer.quantizer.freeze_basis else ""
        lines.append(
            f"tokenizer: {'from the base' if what.base_tokenizer else 'new'}{frozen}; "
            f"{tokenizer.trainer.steps:,} steps of {tokenizer.batch_size} items at learning rate "
            f"{tokenizer.trainer.learning_rate:.2g}"
        )
    else:
        lines.append("tokenizer: the base's, only the statistics of states are measured anew")
    if what.train_recommender:
        recommender = recommender_settings(recipe.recommender, adapt)
        lines.append(
            f"recommender: {'from the base' if what.base_recommender else 'new'}; at most "
            f"{recommender.trainer.steps:,} steps of {recommender.batch_size} histories at "
            f"learning rate {recommender.trainer.learning_rate:.2g}"
        )
    else:
        lines.append("recommender: the base's, not trained")
        lines.append("ranker: the base's, if it has any, not trained")
    return lines


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    add_command(
        app,
        "pretrain",
        example="utgrec pretrain domains/a domains/b --recipe tiny --out runs/base",
        uses_models=True,
    )(pretrain)
    add_command(
        app,
        "adapt",
        example="utgrec adapt runs/base domains/shop --out runs/shop",
        uses_models=True,
    )(adapt)
