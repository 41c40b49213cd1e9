"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Domains = Annotated[
    list[Path], typer.Argument(help="Domain folders.", metavar="DOMAIN...", show_default=False)
]
DomainFolder = Annotated[Path, typer.Argument(help="A domain folder.", metavar="DOMAIN")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.", metavar="DIR")]
RunPath = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
RecipeName = Annotated[str, typer.Option("--recipe", help="Complete set of settings, by name.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything drawn at random.")]
