"""Commands around tokenizers: publish one, convert the autoencoder that its latents come from."""

from pathlib import Path
from typing import Annotated

import typer

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import Out
from utgrec.commands.views import facts_table


def publish(
    terminal: Terminal,
    run: Annotated[
        Path, typer.Argument(help="A finished run, or a tokenizer folder.", metavar="RUN")
    ],
    out: Out,
    name: Annotated[str, typer.Option("--name", help="What its card calls it.")] = "",
    licence: Annotated[
        str, typer.Option("--licence", help="SPDX name of the licence of its weights.")
    ] = "apache-2.0",
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", help="Public name of the base model, if it was trained on a folder."
        ),
    ] = None,
) -> Answer:
    """Write a tokenizer as one folder that opens anywhere, with a model card."""
    from utgrec import storage
    from utgrec.runs import RunFolder
    from utgrec.tokenizer.pretrained import STAGE
    from utgrec.tokenizer.publishing import publish_tokenizer

    folder = RunFolder(run)
    tokenizer, reports = run, {}
    if storage.find_manifest(run, STAGE) is None:
        tokenizer = folder.tokenizer
        reports = {
            path.parent.name: storage.read_json(path)
            for path in sorted((run / "codes").glob("*/report.json"))
        }
    made = publish_tokenizer(
        tokenizer,
        out,
        name=name or out.resolve().name,
        reports=reports,
        licence=licence,
        backbone=backbone,
    )
    base = made.config["backbone"].get("name")
    if base and "/" not in base:
        terminal.say(
            f"The base model was a folder here ({base}). Others must give theirs: "
            f"ItemTokenizer.from_pretrained({str(out)!r}, backbone=...); or name it with --backbone"
        )
    facts = {**made.facts, "files": len(made.files)}
    return Answer({"tokenizer": str(out), **facts}, (facts_table(f"published {out}", facts),))


def convert(
    terminal: Terminal,
    checkpoint: Annotated[
        Path, typer.Argument(help="kl16.ckpt of MAR or LDM.", metavar="CHECKPOINT")
    ],
    out: Out,
) -> Answer:
    """Turn the checkpoint of a KL autoencoder into a folder of safetensors, once."""
    from utgrec.tokenizer.kl_convert import convert_vae

    settings = convert_vae(checkpoint, out)
    facts = {name: str(value) for name, value in settings.items()}
    return Answer({"vae": str(out), **settings}, (facts_table(f"autoencoder {out}", facts),))


def add_to(tokenizer: typer.Typer) -> None:
    """Register the commands of this file under `utgrec tokenizer`."""
    add_command(
        tokenizer,
        "publish",
        example="utgrec tokenizer publish runs/base --out published/base",
        uses_models=True,
    )(publish)
    add_command(
        tokenizer,
        "convert-vae",
        example="utgrec tokenizer convert-vae kl16.ckpt --out models/kl16",
        uses_models=True,
    )(convert)
