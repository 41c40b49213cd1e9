"""Commands that make and show domain folders: prepare table, prepare marketplace, inspect."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from utgrec.commands import prepare_options as shared
from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import DomainFolder, Out
from utgrec.commands.views import domains_table, prepared_table
from utgrec.errors import BadConfig

if TYPE_CHECKING:
    from utgrec.data.options import TableOptions
    from utgrec.storage import Manifest

SHOPS = ["kitchen", "clothing"]


def prepare_table(
    terminal: Terminal,
    source: Annotated[
        Path, typer.Argument(help="Folder with the tables and pictures.", metavar="SRC")
    ],
    out: shared.DomainOut,
    log: shared.LogChoice,
    domain: shared.DomainChoice,
    places: shared.SplitPlaces,
    text_column: shared.TextColumn = None,
    no_text_columns: shared.NoTextColumns = False,
    skip_column: shared.SkipColumn = None,
    max_image_pixels: shared.MaxPixels = None,
) -> Answer:
    """Make a domain folder from a shop's tables of items and interactions.

    Tables may be CSV, TSV, JSON lines or Parquet, in one file or many. Nothing is dropped in
    silence: what was rejected or removed is counted by reason.
    """
    from utgrec.data import prepare

    if text_column and no_text_columns:
        raise BadConfig("--text-column and --no-text-columns exclude each other; give one of them")
    given = shared.told(
        text_columns=() if no_text_columns else tuple(text_column) if text_column else None,
        skip_columns=tuple(skip_column) if skip_column else None,
        max_image_pixels=max_image_pixels,
    )
    options = options_for(terminal, source, given, domain, log, places)
    return prepared(terminal, out, prepare.prepare_table(source, out, options, terminal.progress))


def options_for(
    terminal: Terminal,
    source: Path,
    given: dict[str, Any],
    domain: shared.DomainChoice,
    log: shared.LogChoice | None = None,
    places: shared.SplitPlaces | None = None,
) -> "TableOptions":
    """What was told on the command line, over what a mapping file says."""
    from utgrec.data.options import find_mapping, merge_options, read_mapping

    given = {**domain.settings(), **given}
    if log is not None and places is not None:
        given |= {**log.settings(), **shared.told(split=places.settings(log.split))}
    found = find_mapping(source, domain.mapping)
    if found is None:
        return merge_options({}, given)
    terminal.say(f"Settings of {found} are used")
    return merge_options(read_mapping(found), given)


def prepared(terminal: Terminal, out: Path, manifest: "Manifest") -> Answer:
    """What a preparation answers."""
    if manifest.facts["rejected"]:
        terminal.say(f"Rejected rows and their reasons: {out / 'rejected.parquet'}")
    terminal.say(f"Next: utgrec inspect {out}")
    return Answer({"domain": str(out), **manifest.facts}, (prepared_table(manifest.facts),))


def prepare_marketplace(
    terminal: Terminal,
    out: Out,
    shop: Annotated[
        list[str], typer.Option(help="Shop to simulate. May be repeated.", metavar="NAME")
    ] = SHOPS,
    items: Annotated[int, typer.Option(min=1, help="Items of each shop.")] = 600,
    users: Annotated[int, typer.Option(min=1, help="Users of each shop.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 7,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace shops made with other settings.")
    ] = False,
) -> Answer:
    """Simulate shops whose best possible recommender is known.

    Writes for each shop what its owner would bring (DIR/sources/SHOP) and the domain folder made
    from it (DIR/domains/SHOP).
    """
    from utgrec.data.marketplace import MarketplaceConfig

    config = MarketplaceConfig(
        shops=tuple(shop), items_per_shop=items, users_per_shop=users, seed=seed
    )
    folders = simulate_shops(terminal, out, config, overwrite)
    rows = [domain_row(folder) for folder in folders]
    terminal.say(f"Next: utgrec inspect {folders[0]}")
    return Answer({"domains": rows}, (domains_table("simulated shops", rows),))


def inspect(terminal: Terminal, folder: DomainFolder) -> Answer:
    """Show what is in a domain, and what was left out and why."""
    from utgrec.catalog import Domain
    from utgrec.config import to_dict
    from utgrec.data.summary import render_summary, summarise

    summary = summarise(Domain.open(folder))
    return Answer(to_dict(summary), (render_summary(summary),))


def simulate_shops(terminal: Terminal, out: Path, config: Any, overwrite: bool) -> list[Path]:
    """Write the shops of a MarketplaceConfig one by one, so that there is progress to see."""
    from utgrec.data.marketplace import write_marketplace

    folders: list[Path] = []
    for done, shop in enumerate(config.shops):
        terminal.progress("Simulating shops", done, len(config.shops), shop)
        alone = dataclasses.replace(config, shops=(shop,))
        folders += write_marketplace(out, alone, overwrite=overwrite)
    terminal.progress("Simulating shops", len(config.shops), len(config.shops))
    return folders


def domain_row(folder: Path) -> dict[str, Any]:
    """Name, counts and folder of a domain, from its manifest alone."""
    from utgrec import storage
    from utgrec.catalog import DOMAIN_MANIFEST

    facts = storage.read_manifest(folder, "domain", DOMAIN_MANIFEST).facts
    return {"name": facts["name"], "folder": str(folder), "counts": facts["counts"]}


def add_to(app: typer.Typer) -> typer.Typer:
    """Register the commands of this file; the group `prepare`, for those of other files."""
    group = typer.Typer(no_args_is_help=True, help="Make domain folders.")
    app.add_typer(group, name="prepare")
    add_command(
        group, "table", example="utgrec prepare table shop/ --out domains/shop --column item_id=sku"
    )(prepare_table)
    add_command(
        group, "marketplace", example="utgrec prepare marketplace --out market --shop kitchen"
    )(prepare_marketplace)
    add_command(app, "inspect", example="utgrec inspect domains/shop")(inspect)
    return group
