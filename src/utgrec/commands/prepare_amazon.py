"""The command that makes domains of Amazon Reviews 2023: prepare amazon2023."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.views import prepared_table
from utgrec.errors import BadConfig, DownloadFailed

if TYPE_CHECKING:
    from utgrec.data.download import Listed, Wanted

# The same choices as in utgrec.data, which would load polars for `utgrec --help`.
BadRows = Literal["error", "reject"]
Version = Literal["raw", "5core"]
Repeats = Literal["first", "keep"]
MIB = 2**20


def prepare_amazon2023(
    terminal: Terminal,
    category: Annotated[
        list[str],
        typer.Argument(
            help="Categories, such as Musical_Instruments or, as the paper says, Instrument.",
            metavar="CATEGORY...",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder that gets a domain folder of each category.")
    ] = Path("domains"),
    data: Annotated[
        Path, typer.Option(help="Folder where the files are, or where they are downloaded to.")
    ] = Path("amazon2023"),
    version: Annotated[
        Version, typer.Option(help="All reviews, or the official 5-core without texts.")
    ] = "raw",
    k_core: Annotated[
        int, typer.Option(min=1, help="Fewest interactions of a user and of an item; 1: no filter.")
    ] = 5,
    repeats: Annotated[
        Repeats, typer.Option(help="Several reviews of one item by one user: the earliest, or all.")
    ] = "first",
    bad_rows: Annotated[
        BadRows, typer.Option(help="Lines that cannot be used: set them aside, or stop.")
    ] = "reject",
    mirror: Annotated[
        str, typer.Option(help="huggingface, ucsd, or the address of a folder like theirs.")
    ] = "huggingface",
    offline: Annotated[
        bool, typer.Option("--offline", help="Use the network for nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the files, their sizes and addresses.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Work on a Ray cluster: its address, or local. Files must be where all its "
            "machines see them.",
            metavar="ADDRESS",
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Terms of use of the data, in words.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a domain made with other settings.")
    ] = False,
) -> Answer:
    """Make domain folders of categories of Amazon Reviews 2023.

    Files that are not in --data are downloaded; an interrupted download goes on where it stopped.
    Counts are compared with those that the paper states.
    """
    from utgrec.data.amazon2023 import prepare
    from utgrec.data.amazon2023.presets import find_category

    names = list(dict.fromkeys(find_category(name) for name in category))
    options = prepare.AmazonOptions(
        version=version,
        k_core=k_core,
        repeats=repeats,
        bad_rows=bad_rows,
        licence=licence,
        overwrite=overwrite,
    )
    if dry_run:
        return _listing(data, names, version, mirror, offline)
    if not offline:
        _download(terminal, data, names, version, mirror)
    prepared = {}
    with _machine(ray) as machine:
        for name in names:
            terminal.say(f"{name}:")
            manifest = prepare.prepare_amazon(
                name, data, out / name, options, terminal.progress, machine
            )
            prepared[name] = manifest.facts
    terminal.say(f"Next: utgrec inspect {out / names[0]}")
    return Answer(
        {"domains": {name: {"domain": str(out / name), **prepared[name]} for name in names}},
        tuple(part for name in names for part in _view(name, prepared[name])),
    )


def _view(category: str, facts: dict[str, Any]) -> tuple[Table, str]:
    from utgrec.data.amazon2023.check import in_words

    return prepared_table(facts), "\n".join(in_words(category, facts["paper"]))


def _machine(address: str | None) -> Any:
    """Whoever works through the files, as a context."""
    import contextlib

    if address is None:
        return contextlib.nullcontext()
    from utgrec.data.cluster import ray_machine

    return ray_machine(None if address == "local" else address)


def _wanted(
    data: Path, names: list[str], version: Version, mirror: str
) -> "tuple[list[Wanted], list[Path]]":
    """What to download, and what is here."""
    from utgrec.data.amazon2023 import files
    from utgrec.data.download import Wanted

    if mirror not in files.MIRRORS and not mirror.startswith(("http://", "https://")):
        raise BadConfig(
            f"--mirror is {mirror!r}; it is {', '.join(files.MIRRORS)} or an address (https://…)"
        )
    wanted, here = [], []
    for name in names:
        for file in files.needed(name, version):
            found = files.find_local(data, file)
            if found is not None:
                here.append(found)
                continue
            url = files.address(mirror, file)
            path = data / file.path.parent / url.rpartition("/")[2]
            wanted.append(Wanted(url, path))
    return wanted, here


def _download(
    terminal: Terminal, data: Path, names: list[str], version: Version, mirror: str
) -> None:
    from utgrec.data.download import DownloadConfig, download

    wanted, _ = _wanted(data, names, version, mirror)
    if wanted:
        terminal.say(f"Downloading {len(wanted)} files to {data}")
        download(wanted, DownloadConfig(), terminal.progress)


def _listing(data: Path, names: list[str], version: Version, mirror: str, offline: bool) -> Answer:
    from utgrec.data.download import DownloadConfig, Listed, list_files

    wanted, here = _wanted(data, names, version, mirror)
    listed = [
        Listed("", path, path.stat().st_size, path.stat().st_size, None, None) for path in here
    ]
    if offline:
        listed += [Listed(w.url, w.path, None, 0, None, "not here") for w in wanted]
    elif wanted:
        try:
            listed += list_files(wanted, DownloadConfig())
        except DownloadFailed as error:
            listed += [Listed(w.url, w.path, None, 0, None, str(error)) for w in wanted]
    rows = [
        {
            **each._asdict(),
            "path": str(each.path),
            "missing": each.missing,
        }
        for each in listed
    ]
    return Answer({"files": rows}, (_files_table(listed),))


def _files_table(listed: "list[Listed]") -> Table:
    table = Table(title="files", title_justify="left")
    for name in ("file", "MiB", "to fetch (MiB)", "from"):
        table.add_column(name, justify="right" if "MiB" in name else "left", overflow="fold")
    for each in listed:
        cells = [str(each.path), _mib(each.bytes), _mib(each.missing)]
        table.add_row(*(Text(cell) for cell in (*cells, each.problem or each.url or "here")))
    known = [each.missing for each in listed if each.missing is not None]
    table.caption = f"to fetch: {_mib(sum(known))} MiB"
    if len(known) < len(listed):
        table.caption += f", and {len(listed) - len(known)} files of unknown size"
    table.caption_justify = "left"
    return table


def _mib(count: int | None) -> str:
    return "?" if count is None else f"{count / MIB:,.1f}"


def add_to(app: typer.Typer) -> None:
    """Register the command of this file in the group `prepare`."""
    add_command(
        app, "amazon2023", example="utgrec prepare amazon2023 Musical_Instruments --out domains"
    )(prepare_amazon2023)
