"""Commands for domains from and to other programs: recbole, authors, datasets, split, export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from utgrec.commands import prepare_options as shared
from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import DomainFolder, Out
from utgrec.commands.prepare import options_for, prepared
from utgrec.commands.views import facts_table
from utgrec.errors import BadConfig, InputError

SourceFolder = Annotated[Path, typer.Argument(help="Folder of the source.", metavar="SRC")]
ExportFormat = Literal["recbole", "csv", "parquet", "authors"]


def prepare_recbole(
    terminal: Terminal,
    source: SourceFolder,
    out: shared.DomainOut,
    log: shared.LogChoice,
    domain: shared.DomainChoice,
    places: shared.SplitPlaces,
) -> Answer:
    """Make a domain folder from RecBole's atomic files (NAME.inter, NAME.item)."""
    from utgrec.data import recbole

    options = options_for(terminal, source, {}, domain, log, places)
    return prepared(terminal, out, recbole.prepare_recbole(source, out, options, terminal.progress))


def prepare_authors(
    terminal: Terminal,
    source: SourceFolder,
    out: shared.DomainOut,
    domain: shared.DomainChoice,
    codes_out: Annotated[
        Path | None,
        typer.Option(help="Codes folder to make from SRC's *.sem_ids.", metavar="DIR"),
    ] = None,
    sem_ids: Annotated[
        Path | None,
        typer.Option(help="Which *.sem_ids.", metavar="FILE", show_default="the one in SRC"),
    ] = None,
    code_sizes: Annotated[
        str, typer.Option(help="Entries of the codebook of each position.")
    ] = "256,512,512",
) -> Answer:
    """Make a domain folder from a folder that the paper's authors prepared."""
    from utgrec.data import authors

    # Their folders are filtered already.
    filtered = {"k_core": 1} if domain.k_core is None else {}
    options = options_for(terminal, source, filtered, domain)
    sizes = _sizes(code_sizes)
    found = None if codes_out is None else (sem_ids or _only(source, "*.sem_ids"))
    answer = prepared(
        terminal, out, authors.prepare_authors(source, out, options, terminal.progress)
    )
    if codes_out is not None and found is not None:
        from utgrec.catalog import Domain
        from utgrec.tokenizer.sem_ids import import_sem_ids

        import_sem_ids(found, Domain.open(out), codes_out, sizes)
        answer.document["codes"] = str(codes_out)
        terminal.say(f"Codes of {found.name}: {codes_out}")
    return answer


def prepare_datasets(
    terminal: Terminal,
    source: SourceFolder,
    out: shared.DomainOut,
    log: shared.LogChoice,
    domain: shared.DomainChoice,
    places: shared.SplitPlaces,
) -> Answer:
    """Make a domain folder from data sets that Hugging Face's `datasets` saved to disk."""
    from utgrec.data import hf_datasets

    options = options_for(terminal, source, {}, domain, log, places)
    return prepared(
        terminal, out, hf_datasets.prepare_datasets(source, out, options, terminal.progress)
    )


def prepare_split(
    terminal: Terminal,
    folder: DomainFolder,
    out: shared.DomainOut,
    places: shared.SplitPlaces,
    split: shared.SplitKindNeeded = "global-time",
    name: Annotated[
        str | None, typer.Option(help="Name of the domain.", show_default="NAME-time, NAME-last")
    ] = None,
) -> Answer:
    """Make a domain with another split from a domain: the same items and the same log."""
    from utgrec.data.resplit import resplit_domain
    from utgrec.data.splitting import SplitOptions

    options = SplitOptions(**places.settings(split))
    facts = resplit_domain(folder, options, out, name=name or "").facts
    terminal.say(f"Next: utgrec inspect {out}")
    shown = {key: value for key, value in facts["split"].items() if key != "kind"}
    return Answer(
        {"domain": str(out), "name": facts["name"], "split": facts["split"]},
        (facts_table(f"domain {facts['name']}", shown),),
    )


def export(
    terminal: Terminal,
    folder: DomainFolder,
    out: Out,
    form: Annotated[ExportFormat, typer.Option("--format", help="What to write.")],
    codes: Annotated[
        Path | None,
        typer.Option(help="Run or codes folder; writes NAME.sem_ids too.", metavar="DIR"),
    ] = None,
) -> Answer:
    """Write a domain for other programs; `utgrec prepare` makes the same domain from it again."""
    from utgrec import storage
    from utgrec.data.export import export_domain

    sem_ids, mark = None, ""
    if codes is not None:
        from utgrec.catalog import Domain
        from utgrec.runs import RunFolder
        from utgrec.tokenizer.sem_ids import sem_ids_of

        domain = Domain.open(folder)
        own = RunFolder(codes).codes(domain.name)
        where = own if own.is_dir() else codes
        sem_ids = sem_ids_of(where, domain)
        mark = storage.read_manifest(where, "codes").fingerprint
    facts = export_domain(folder, out, form, sem_ids=sem_ids, codes=mark).facts
    return Answer({"folder": str(out), **facts}, (facts_table(f"export {out}", facts),))


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError as error:
        raise BadConfig(f"--code-sizes {text!r} must be numbers such as 256,512,512") from error


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder} must have one file {pattern}, it has {names}; use --sem-ids")
    return found[0]


def add_to(app: typer.Typer, group: typer.Typer) -> None:
    """Register the commands of this file; `group` is `prepare`."""
    for name, command, example in (
        ("recbole", prepare_recbole, "utgrec prepare recbole ml-100k/ --out domains/films"),
        ("authors", prepare_authors, "utgrec prepare authors Instrument/ --out domains/music"),
        ("datasets", prepare_datasets, "utgrec prepare datasets saved/ --out domains/shop"),
    ):
        add_command(group, name, example=example)(command)
    add_command(
        group, "split", example="utgrec prepare split domains/shop --out domains/shop-time"
    )(prepare_split)
    add_command(
        app, "export", example="utgrec export domains/shop --format recbole --out exports/shop"
    )(export)
