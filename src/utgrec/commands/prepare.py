"""Commands that make and show domain folders: prepare table, prepare marketplace, inspect."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from utgrec.commands import prepare_amazon
from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import DomainFolder, Out
from utgrec.commands.views import domains_table, prepared_table
from utgrec.errors import BadConfig

# The same choices as in utgrec.data, which would load polars for `utgrec --help`.
BadRows = Literal["error", "reject"]
TimeUnit = Literal["auto", "position", "row", "s", "ms", "us", "ns"]
SHOPS = ["kitchen", "clothing"]


def prepare_table(
    terminal: Terminal,
    source: Annotated[
        Path, typer.Argument(help="Folder with the tables and pictures.", metavar="SRC")
    ],
    out: Annotated[Path, typer.Option("--out", help="Domain folder to write.", metavar="DOMAIN")],
    name: Annotated[str, typer.Option(help="Name of the domain.", show_default="SRC's")] = "",
    items: Annotated[
        str | None, typer.Option(help="Table of items in SRC.", show_default="usual names")
    ] = None,
    interactions: Annotated[
        str | None, typer.Option(help="Table of interactions in SRC.", show_default="usual names")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a role where its usual names do not fit; ROLE= for none. Roles: "
            "item_id, title, brand, categories, features, description, price, image, text; "
            "user, item, timestamp. May be repeated.",
            metavar="ROLE=NAME",
        ),
    ] = None,
    text_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Further item column that belongs into the sentence. May be repeated.",
            metavar="NAME",
            show_default="all that hold words",
        ),
    ] = None,
    no_text_columns: Annotated[
        bool, typer.Option("--no-text-columns", help="No further column into the sentence.")
    ] = False,
    skip_column: Annotated[
        list[str] | None,
        typer.Option(help="Item column to leave out. May be repeated.", metavar="NAME"),
    ] = None,
    time_unit: Annotated[
        TimeUnit, typer.Option(help="Unit of the times; row: their order in the table.")
    ] = "auto",
    k_core: Annotated[
        int, typer.Option(min=1, help="Fewest interactions of a user and of an item; 1: no filter.")
    ] = 5,
    keep_untaken: Annotated[
        bool | None,
        typer.Option(
            "--keep-untaken/--drop-untaken",
            help="Whether items without interactions stay.",
            show_default="kept if --k-core is 1",
        ),
    ] = None,
    max_image_pixels: Annotated[
        int, typer.Option(min=1, help="Most pixels of a picture (width × height).")
    ] = 40_000_000,
    bad_rows: Annotated[
        BadRows, typer.Option(help="Rows that cannot be used: stop, or set them aside.")
    ] = "error",
    source_note: Annotated[
        str, typer.Option("--source", help="Where the data come from, in words.")
    ] = "",
    licence: Annotated[str, typer.Option(help="Terms of use of the data, in words.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a domain made with other settings.")
    ] = False,
) -> Answer:
    """Make a domain folder from a shop's tables of items and interactions.

    Tables may be CSV, TSV, JSON lines or Parquet. Nothing is dropped in silence: what was rejected
    or removed is counted by reason.
    """
    from utgrec.data import prepare

    if text_column and no_text_columns:
        raise BadConfig("--text-column and --no-text-columns exclude each other; give one of them")
    options = prepare.TableOptions(
        name=name,
        items_file=items,
        interactions_file=interactions,
        columns=parse_columns(column or []),
        text_columns=() if no_text_columns else tuple(text_column) if text_column else None,
        skip_columns=tuple(skip_column or ()),
        time_unit=time_unit,
        k_core=k_core,
        keep_untaken_items=keep_untaken,
        max_image_pixels=max_image_pixels,
        bad_rows=bad_rows,
        source=source_note,
        licence=licence,
        overwrite=overwrite,
    )
    manifest = prepare.prepare_table(source, out, options, terminal.progress)
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


def parse_columns(given: list[str]) -> dict[str, str]:
    """Role → column from ROLE=NAME texts.

    Raises:
        BadConfig: not of this form, or a role twice.
    """
    columns: dict[str, str] = {}
    for text in given:
        role, equals, name = text.partition("=")
        if not equals or not role:
            raise BadConfig(
                f"--column {text!r} must be ROLE=NAME, such as item_id=asin; ROLE= for no column"
            )
        if role in columns:
            raise BadConfig(f"--column gives role {role!r} twice; a role has one column")
        columns[role] = name
    return columns


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


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Make domain folders.")
    app.add_typer(group, name="prepare")
    add_command(
        group, "table", example="utgrec prepare table shop/ --out domains/shop --column item_id=sku"
    )(prepare_table)
    add_command(
        group, "marketplace", example="utgrec prepare marketplace --out market --shop kitchen"
    )(prepare_marketplace)
    prepare_amazon.add_to(group)
    add_command(app, "inspect", example="utgrec inspect domains/shop")(inspect)
