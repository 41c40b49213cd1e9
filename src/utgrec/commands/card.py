"""The command that writes the data card of a domain: card."""

from pathlib import Path
from typing import Annotated

import typer

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import DomainFolder


def card(
    terminal: Terminal,
    folder: DomainFolder,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write.", metavar="DIR", show_default="DOMAIN-card"),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Items that are shown.")] = 12,
) -> Answer:
    """Write the data card of a domain: one page as HTML and as Markdown.

    Sizes, curves, time span, coverage, languages, what is suspicious, sample items with pictures,
    and warnings. A card that is there is replaced.
    """
    from utgrec.config import to_dict
    from utgrec.report.card import write_card

    written, summary = write_card(folder, out, samples=samples)
    page, text = written / "card.html", written / "card.md"
    document = {"domain": str(folder), "html": str(page), "markdown": str(text)}
    return Answer({**document, "summary": to_dict(summary)}, (str(page), str(text)))


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    add_command(app, "card", example="utgrec card domains/shop")(card)
