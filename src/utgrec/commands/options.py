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
BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="Hub name or folder of the pretrained model that reads items; for recipes that "
        "have one.",
        metavar="NAME",
        show_default="the recipe's",
    ),
]
BackbonePlace = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="Hub name or folder of the tokenizer's base model, if it is not where it was.",
        metavar="NAME",
        show_default="where it was in training",
    ),
]
VaePlace = Annotated[
    str | None,
    typer.Option(
        "--vae",
        help="Folder of the picture autoencoder (`utgrec tokenizer convert-vae` makes it), whose "
        "latents training rebuilds.",
        metavar="DIR",
        show_default="the recipe's",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what it would take: parameters, memory, hours."),
]
Tflops = Annotated[
    float | None,
    typer.Option(
        "--tflops",
        help="With --dry-run: what one device does, in 10^12 operations per second.",
        show_default="known for common GPUs, measured on a CPU",
    ),
]
Devices = Annotated[
    int, typer.Option("--devices", min=1, help="With --dry-run: devices that train together.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything drawn at random.")]
