"""The command that encodes items by the million: tokenizer encode."""

from pathlib import Path
from typing import Annotated

import typer

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import BackbonePlace, Out
from utgrec.commands.views import facts_table


def encode(
    terminal: Terminal,
    tokenizer: Annotated[Path, typer.Argument(help="A tokenizer folder.", metavar="TOKENIZER")],
    items: Annotated[
        Path,
        typer.Option(
            "--items",
            help="Parquet file, or folder of them, with columns item_id, text and maybe image.",
            metavar="PATH",
        ),
    ],
    out: Out,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder where relative picture paths start.",
            metavar="DIR",
            show_default="beside the items",
        ),
    ] = None,
    backbone: BackbonePlace = None,
    shard_rows: Annotated[
        int, typer.Option(min=1, help="Items of an output file; an interrupted one is done again.")
    ] = 20_000,
    at_once: Annotated[int, typer.Option(min=1, help="Items encoded together.")] = 1024,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, or actors with --ray.")
    ] = 1,
    ray: Annotated[
        bool, typer.Option("--ray", help="Work on a Ray cluster (pip install 'utgrec[ray]').")
    ] = False,
    gpus: Annotated[
        float, typer.Option(min=0.0, help="With --ray: GPUs of each actor, also a part of one.")
    ] = 0.0,
) -> Answer:
    """Write the nearest codes of any number of items, in bounded memory.

    Codes do not depend on the order of items, on what is encoded together, or on the number of
    workers. A picture that cannot be read is noted, and its item goes by its words. Finished shards
    are kept: run the same command again to continue.
    """
    from utgrec.tokenizer.bulk_workers import BulkSettings, encode_items

    settings = BulkSettings(
        shard_rows=shard_rows,
        at_once=at_once,
        workers=workers,
        ray=ray,
        gpus=gpus,
        backbone=backbone,
        images=images,
    )
    made = encode_items(tokenizer, items, out, settings, terminal.progress)
    if broken := made.facts["pictures_not_read"]:
        terminal.say(f"{broken:,} pictures were not read; {out / 'problems.parquet'} names them")
    return Answer({"codes": str(out), **made.facts}, (facts_table(f"codes {out}", made.facts),))


def add_to(tokenizer: typer.Typer) -> None:
    """Register the command of this file."""
    add_command(
        tokenizer,
        "encode",
        example="utgrec tokenizer encode tokenizer --items items.parquet --out codes",
        uses_models=True,
    )(encode)
