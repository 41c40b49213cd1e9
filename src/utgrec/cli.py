"""The command line `utgrec`: puts the commands together; they are in `utgrec.commands`.

Nothing heavy is imported here: torch and polars are loaded by the commands that need them.
"""

from typing import Annotated

import typer

import utgrec
from utgrec.commands import (
    card,
    catalog,
    clean,
    compare,
    images,
    prepare,
    prepare_amazon,
    prepare_sources,
    recommend,
    runs,
    serve,
    stages,
    transfer,
)

app = typer.Typer(
    name="utgrec", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"utgrec {utgrec.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Transferable generative recommendation: a catalogue and a log become recommendations.

    Try `utgrec demo` first: simulated shops, everything, minutes, no download.
    """


runs.add_to(app)
recommend.add_to(app)
compare.add_to(app)
transfer.add_to(app)
sources = prepare.add_to(app)
prepare_sources.add_to(app, sources)
prepare_amazon.add_to(sources)
images.add_to(app)
clean.add_to(app)
card.add_to(app)
stages.add_to(app)
catalog.add_to(app)
serve.add_to(app)


def main() -> None:
    """The entry point of the `utgrec` command."""
    app(prog_name="utgrec")
