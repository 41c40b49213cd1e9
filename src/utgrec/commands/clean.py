"""The command that writes a cleaned copy of a domain: clean."""

from pathlib import Path
from typing import Annotated

import typer

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import DomainFolder
from utgrec.commands.views import facts_table


def clean(
    terminal: Terminal,
    folder: DomainFolder,
    out: Annotated[Path, typer.Option("--out", help="Domain folder to write.", metavar="DOMAIN")],
    drop_duplicate_events: Annotated[
        bool,
        typer.Option(
            "--drop-duplicate-events", help="Interactions with user, item and time of another."
        ),
    ] = False,
    drop_bursts: Annotated[
        int | None,
        typer.Option(min=2, help="N or more interactions of one user in one second.", metavar="N"),
    ] = None,
    drop_fast_users: Annotated[
        int | None,
        typer.Option(min=1, help="Users with more than N interactions in an hour.", metavar="N"),
    ] = None,
    drop_empty_text: Annotated[
        bool,
        typer.Option("--drop-empty-text", help="Items without text, or with N/A and the like."),
    ] = False,
    drop_boilerplate: Annotated[
        bool,
        typer.Option("--drop-boilerplate", help="Sentences that very many items share."),
    ] = False,
    drop_shared_images: Annotated[
        int | None,
        typer.Option(min=2, help="Pictures that N or more items have.", metavar="N"),
    ] = None,
    strip_html: Annotated[
        bool, typer.Option("--strip-html", help="HTML in titles and texts.")
    ] = False,
    fix_mojibake: Annotated[
        bool, typer.Option("--fix-mojibake", help="Texts that were decoded wrongly.")
    ] = False,
    k_core: Annotated[
        int | None,
        typer.Option(min=1, help="Filter again afterwards.", show_default="as in the source"),
    ] = None,
) -> Answer:
    """Write a copy of a domain without what the options name; nothing else is changed.

    `utgrec inspect` counts what there is to clean. Dropped items and interactions are listed with
    their reason in rejected.parquet.
    """
    from utgrec.data.cleaning.clean import CleanOptions, clean_domain

    options = CleanOptions(
        drop_duplicate_events=drop_duplicate_events,
        drop_bursts=drop_bursts,
        drop_fast_users=drop_fast_users,
        drop_empty_text=drop_empty_text,
        drop_boilerplate=drop_boilerplate,
        drop_shared_images=drop_shared_images,
        strip_html=strip_html,
        fix_mojibake=fix_mojibake,
        k_core=k_core,
    )
    manifest = clean_domain(folder, out, options)
    facts = manifest.facts
    cleaned = facts["cleaned"]
    shown = {
        "items dropped": cleaned["items_dropped"],
        "interactions dropped": cleaned["interactions_dropped"],
        "pictures taken away": cleaned["pictures_taken_away"],
        **{f"texts changed by {name}": n for name, n in cleaned["changed_texts"].items()},
        **{
            f"{name} outside the {facts['filter']['k_core']}-core afterwards": n
            for name in ("items", "users", "interactions")
            if (n := facts["filter"][f"{name}_removed"])
        },
        **{f"left: {name}": facts["counts"][name] for name in ("items", "users", "interactions")},
    }
    if facts["rejected"]:
        terminal.say(f"Every row that was left out: {out / 'rejected.parquet'}")
    terminal.say(f"Next: utgrec inspect {out}")
    return Answer({"domain": str(out), **facts}, (facts_table(f"cleaned {facts['name']}", shown),))


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    add_command(
        app,
        "clean",
        example="utgrec clean domains/shop --out domains/clean --drop-duplicate-events",
    )(clean)
