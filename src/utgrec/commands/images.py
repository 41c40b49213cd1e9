"""The command that fetches pictures by their addresses: images."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import DomainFolder


def images(
    terminal: Terminal,
    folder: DomainFolder,
    column: Annotated[
        str, typer.Option(help="Item attribute that holds the addresses.", metavar="NAME")
    ] = "image_url",
    max_side: Annotated[
        int, typer.Option(min=1, max=8192, help="Longest side of a stored picture (pixels).")
    ] = 512,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Most bytes of one picture as fetched.")
    ] = 20 * 2**20,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Most pixels (width × height) of one picture as fetched.")
    ] = 40_000_000,
    max_redirects: Annotated[int, typer.Option(min=0, help="Most redirects from one address.")] = 5,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Most time for one try of one picture (s).")
    ] = 60.0,
    attempts: Annotated[
        int, typer.Option(min=1, help="Tries of one address, where a failure is temporary.")
    ] = 3,
    connections: Annotated[int, typer.Option(min=1, help="Most connections at a time.")] = 1024,
    per_host: Annotated[
        int, typer.Option(min=1, help="Most connections at a time to one host.")
    ] = 32,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Decoding processes.", show_default="one for each processor"),
    ] = 0,
    retry: Annotated[
        list[str],
        typer.Option(
            help="Earlier failures to try again: temporary, all, or an outcome such as "
            "'not found'. May be repeated.",
            metavar="WHICH",
        ),
    ] = ["temporary"],  # noqa: B006
    refetch: Annotated[bool, typer.Option("--refetch", help="Fetch everything anew.")] = False,
    proxy: Annotated[
        str,
        typer.Option(
            help="Proxy to go through: its address, or env for the usual variables.",
            metavar="ADDRESS|env",
            show_default="none",
        ),
    ] = "",
    allow_private_addresses: Annotated[
        bool,
        typer.Option(
            "--allow-private-addresses",
            help="Also ask hosts that are not on the public internet (tests, own network).",
        ),
    ] = False,
) -> Answer:
    """Fetch the pictures that items name by web address, check them, and put them into the domain.

    What was fetched before is not fetched again: run it again to continue after an interruption, or
    to repair what failed for a while. Every address gets an outcome (image_outcomes.parquet).
    """
    from utgrec.data.pictures.fetch import fetch_images
    from utgrec.data.pictures.options import ImageOptions
    from utgrec.data.web import environment_names_proxy

    manifest = fetch_images(
        folder,
        ImageOptions(
            column=column,
            max_side=max_side,
            max_bytes=max_bytes,
            max_pixels=max_pixels,
            max_redirects=max_redirects,
            timeout_s=timeout,
            connect_timeout_s=min(10.0, timeout),
            read_timeout_s=min(20.0, timeout),
            attempts=attempts,
            connections=connections,
            per_host=per_host,
            workers=workers,
            retry=tuple(retry),
            refetch=refetch,
            proxy=proxy,
            allow_private_addresses=allow_private_addresses,
        ),
        terminal.progress,
    )
    outcomes = manifest.facts["images"]["outcomes"]
    if failures_of(outcomes):
        terminal.say(f"Every address and what became of it: {folder / 'image_outcomes.parquet'}")
    if "private address" in outcomes and not allow_private_addresses:
        terminal.say("Hosts of your own network are asked only with --allow-private-addresses.")
    unreached = {"connection failed", "unknown host"} & set(outcomes)
    if unreached and not proxy and environment_names_proxy():
        terminal.say("The environment names a proxy: it is used only with --proxy env.")
    terminal.say(f"Next: utgrec card {folder}")
    document = {"domain": str(folder), "counts": manifest.facts["counts"]}
    document |= {"images": manifest.facts["images"], "fingerprint": manifest.fingerprint}
    return Answer(document, (outcomes_view(manifest.facts["name"], outcomes),))


def outcomes_view(name: str, outcomes: Mapping[str, int]) -> Table:
    """Items by what became of their picture, the most frequent first."""
    from utgrec.data.pictures.outcomes import MEANINGS, TEMPORARY

    table = Table(title=Text(f"pictures of {name}"), title_justify="left")
    for heading in ("outcome", "items", "meaning", "tried again"):
        table.add_column(heading, justify="right" if heading == "items" else "left")
    failures = failures_of(outcomes)
    for outcome, count in sorted(outcomes.items(), key=lambda entry: -entry[1]):
        again = "by itself" if outcome in TEMPORARY else "with --retry all"
        table.add_row(
            outcome, f"{count:,}", MEANINGS[outcome], again if outcome in failures else ""
        )
    return table


def failures_of(outcomes: Mapping[str, int]) -> dict[str, Any]:
    """Those outcomes that left an item without the picture it names."""
    from utgrec.data.pictures.outcomes import NOTHING_TO_DO

    return {outcome: n for outcome, n in outcomes.items() if outcome not in NOTHING_TO_DO}


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    add_command(app, "images", example="utgrec images domains/shop")(images)
