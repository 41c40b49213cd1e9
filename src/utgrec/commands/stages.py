"""Commands that do one stage: tokenizer train, tokenizer assign, recommender train and rank."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from utgrec.commands import encode, tokenizers
from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import (
    BackboneName,
    BackbonePlace,
    Devices,
    DomainFolder,
    Domains,
    DryRun,
    Out,
    RecipeName,
    Seed,
    Tflops,
    VaePlace,
)
from utgrec.commands.plans import plan_answer
from utgrec.commands.views import codes_table, codes_warning, facts_table


def train_tokenizer(
    terminal: Terminal,
    domains: Domains,
    out: Out,
    recipe: RecipeName = "tiny",
    backbone: BackboneName = None,
    vae: VaePlace = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    devices: Devices = 1,
    tflops: Tflops = None,
) -> Answer:
    """Train a tokenizer, which turns items into codes, on one or more domains.

    A finished one is left as it is; an interrupted one is continued.
    """
    from utgrec.catalog import Domain
    from utgrec.recipes import find_recipe
    from utgrec.tokenizer.train import train_tokenizer as train

    settings = find_recipe(recipe, seed, backbone=backbone, vae=vae)
    if dry_run:
        title = f"recipe {recipe}"
        return plan_answer(terminal, settings.tokenizer, domains, title, devices, tflops)
    opened = [Domain.open(folder) for folder in domains]
    made = train(opened, settings.tokenizer, out, terminal.progress)
    terminal.say(f"Next: utgrec tokenizer assign {out} {domains[0]} --out codes/{opened[0].name}")
    facts = {**made.facts, **made.measured}
    return Answer({"tokenizer": str(out), **facts}, (facts_table(f"tokenizer {out}", facts),))


def assign_codes(
    terminal: Terminal,
    tokenizer: Annotated[Path, typer.Argument(help="A tokenizer folder.", metavar="TOKENIZER")],
    folder: DomainFolder,
    out: Out,
    backbone: BackbonePlace = None,
) -> Answer:
    """Give every item of a domain its codes, and report on them."""
    from utgrec.catalog import Domain
    from utgrec.tokenizer.codes import assign_domain

    made = assign_domain(tokenizer, Domain.open(folder), out, terminal.progress, backbone=backbone)
    if warning := codes_warning(made.facts):
        terminal.say(warning)
    document = {"codes": str(out), **made.facts, **made.measured}
    return Answer(document, (codes_table(made.facts),))


def train_recommender(
    terminal: Terminal,
    domains: Domains,
    out: Out,
    codes: Annotated[
        list[Path],
        typer.Option(
            help="Codes folder of a domain; once for each domain, in the same order.",
            metavar="DIR",
        ),
    ],
    recipe: RecipeName = "tiny",
    seed: Seed = 0,
) -> Answer:
    """Train a recommender on the histories of one or more domains.

    A finished one is left as it is; an interrupted one is continued.
    """
    from utgrec.catalog import Domain
    from utgrec.config import require
    from utgrec.evaluation.calibration import make_calibrator
    from utgrec.evaluation.generative import make_validator
    from utgrec.recipes import find_recipe
    from utgrec.recommender.train import train_recommender as train

    settings = find_recipe(recipe, seed)
    require(
        len(codes) == len(domains),
        f"{len(domains)} domains were given with {len(codes)} --codes; give --codes once for each "
        "domain, in the same order",
    )
    most, seen = settings.recommender.max_items, settings.exclude_seen
    made = train(
        [Domain.open(folder) for folder in domains],
        codes,
        settings.recommender,
        out,
        validator=make_validator(settings.validation, max_items=most, exclude_seen=seen),
        calibrator=make_calibrator(
            settings.validation, settings.decoding, max_items=most, exclude_seen=seen
        ),
        progress=terminal.progress,
    )
    facts = {**made.facts, **made.measured}
    return Answer({"recommender": str(out), **facts}, (facts_table(f"recommender {out}", facts),))


def rank_candidates(
    terminal: Terminal,
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
) -> Answer:
    """Fit the ranker of a finished run on its validation items.

    `run`, `pretrain` and `adapt` do it by themselves. This is for a run made before there were
    rankers, or adapted zero-shot, whose base lent it one. Its own is left as it is.
    """
    from utgrec.catalog import Domain
    from utgrec.evaluation.ranking import is_lent
    from utgrec.runs import RunFolder, read_plan, stale_evaluations, train_run_ranker

    folder = RunFolder(run)
    plan = read_plan(folder)
    domains = [Domain.open(path) for path in plan.domains.values()]
    if is_lent(folder.ranker):
        terminal.say(f"{folder.ranker} was lent by the base; one of the run's own takes its place")
        shutil.rmtree(folder.ranker)
    made = train_run_ranker(folder, plan.recipe, domains, terminal.progress)
    for stale in stale_evaluations(folder, list(plan.domains)):
        terminal.say(
            f"{stale} was made without this ranker; remove it and run `utgrec evaluate {run}`"
        )
    tables = [
        facts_table(f"ranker of {name}", made.facts["domains"][name]) for name in plan.domains
    ]
    return Answer({"ranker": str(folder.ranker), **made.facts, **made.measured}, tuple(tables))


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    tokenizer = typer.Typer(no_args_is_help=True, help="Items to codes, step by step.")
    recommender = typer.Typer(no_args_is_help=True, help="Codes to recommendations, step by step.")
    app.add_typer(tokenizer, name="tokenizer")
    app.add_typer(recommender, name="recommender")
    add_command(
        tokenizer,
        "train",
        example="utgrec tokenizer train domains/a domains/b --recipe tiny --out tokenizer",
        uses_models=True,
    )(train_tokenizer)
    add_command(
        tokenizer,
        "assign",
        example="utgrec tokenizer assign tokenizer domains/a --out codes/a",
        uses_models=True,
    )(assign_codes)
    encode.add_to(tokenizer)
    tokenizers.add_to(tokenizer)
    add_command(
        recommender,
        "train",
        example="utgrec recommender train domains/a --codes codes/a --out recommender",
        uses_models=True,
    )(train_recommender)
    add_command(
        recommender,
        "rank",
        example="utgrec recommender rank runs/shop",
        uses_models=True,
    )(rank_candidates)
