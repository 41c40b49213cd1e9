"""Commands on a live catalogue: catalog add, replace, remove, list, activate, rollback, prune."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import BackbonePlace, RunPath

if TYPE_CHECKING:
    from utgrec.serving.changes import Published
    from utgrec.serving.generations import GenerationStore

DomainName = Annotated[
    str | None,
    typer.Option("--domain", help="Domain of the run; may be left out if it has one."),
]
ItemsFile = Annotated[
    Path, typer.Argument(help="Items, one JSON object per line.", metavar="ITEMS.jsonl")
]
NoActivate = Annotated[
    bool, typer.Option("--no-activate", help="Publish the generation, but do not let it serve yet.")
]


def add(
    terminal: Terminal,
    path: RunPath,
    items: ItemsFile,
    domain: DomainName = None,
    backbone: BackbonePlace = None,
    no_activate: NoActivate = False,
) -> Answer:
    """Add new items to a run's catalogue, or bring removed ones back.

    Published codes never move: new items get free ones beside them. A server on the same run
    recommends them within seconds.
    """
    return _change(path, items, domain, backbone, no_activate, "add")


def replace(
    terminal: Terminal,
    path: RunPath,
    items: ItemsFile,
    domain: DomainName = None,
    backbone: BackbonePlace = None,
    no_activate: NoActivate = False,
) -> Answer:
    """Change what items are: price, stock, words, picture. Their codes stay.

    A field that is left out keeps its value, except that words belong together: with one of them
    the item's whole sentence is made anew of those given.
    """
    return _change(path, items, domain, backbone, no_activate, "replace")


def remove(
    terminal: Terminal,
    path: RunPath,
    item: Annotated[list[str], typer.Argument(help="Ids of items.", metavar="ID...")],
    domain: DomainName = None,
    no_activate: NoActivate = False,
) -> Answer:
    """Stop recommending items. Histories with them stay readable."""
    from utgrec.serving.changes import CatalogEditor
    from utgrec.serving.generations import GenerationStore

    store = GenerationStore(path, domain)
    return _published(store, CatalogEditor(store).remove(item, activate=not no_activate))


def listing(terminal: Terminal, path: RunPath, domain: DomainName = None) -> Answer:
    """List the generations of a run's catalogue; one of them serves."""
    from utgrec.serving.generations import GenerationStore

    store = GenerationStore(path, domain)
    found = store.listing()
    table = Table(title=f"generations of {store.domain}", title_justify="left")
    for name in ("", "number", "from", "written", "items", "changes"):
        table.add_column(name, justify="right" if name in ("number", "from", "items") else "left")
    for one in found:
        changes = ", ".join(f"{count:,} {what}" for what, count in one.changes.items() if count)
        table.add_row(
            "→" if one.active else "",
            str(one.number),
            "" if one.parent is None else str(one.parent),
            _time(one.written),
            f"{one.live:,}",
            one.problem or changes or "codes of the run",
        )
    rows = [{**one._asdict(), "written": _time(one.written)} for one in found]
    document = {"run": str(path), "domain": store.domain, "generations": rows}
    return Answer(document, (table,))


def activate(
    terminal: Terminal,
    path: RunPath,
    number: Annotated[int, typer.Argument(help="Number of the generation.", metavar="NUMBER")],
    domain: DomainName = None,
) -> Answer:
    """Let another generation serve, after checking every file of it."""
    from utgrec.serving.generations import GenerationStore

    store = GenerationStore(path, domain)
    store.activate(number)
    return _serves(store)


def rollback(terminal: Terminal, path: RunPath, domain: DomainName = None) -> Answer:
    """Go back to the generation that the current one was made from."""
    from utgrec.serving.generations import GenerationStore

    store = GenerationStore(path, domain)
    store.rollback()
    return _serves(store)


def prune(
    terminal: Terminal,
    path: RunPath,
    keep: Annotated[int, typer.Option(min=1, help="Newest generations to keep.")],
    domain: DomainName = None,
) -> Answer:
    """Remove old generations, and pictures that none of the others shows.

    The one that serves, the one before it, the newest and the first are never removed.
    """
    from utgrec.serving.generations import GenerationStore
    from utgrec.serving.pruning import prune

    store = GenerationStore(path, domain)
    done = prune(store, keep)
    document = {"run": str(path), "domain": store.domain, **done._asdict()}
    said = f"{len(done.generations):,} generations and {done.pictures:,} pictures removed"
    return Answer(document, (f"{said}, {len(done.kept):,} generations kept",))


def _change(
    path: Path,
    items: Path,
    domain: str | None,
    backbone: str | None,
    no_activate: bool,
    how: str,
) -> Answer:
    from utgrec.serving.changes import CatalogEditor
    from utgrec.serving.coder import RunCoder
    from utgrec.serving.generations import GenerationStore
    from utgrec.serving.item_files import keep_item_pictures, read_item_file

    store = GenerationStore(path, domain)
    file = read_item_file(items, store.domain_folder)
    pictures = keep_item_pictures(store, items, file)
    editor = CatalogEditor(store, RunCoder(store.run.tokenizer, backbone=backbone))
    change = editor.add if how == "add" else editor.replace
    return _published(store, change(file.items, pictures, activate=not no_activate))


def _published(store: "GenerationStore", made: "Published") -> Answer:
    from utgrec.config import to_dict

    counts = {name: len(ids) for name, ids in made.delta._asdict().items() if len(ids)}
    drift = made.drift
    document: dict[str, Any] = {
        "run": str(store.run.path),
        "domain": store.domain,
        "generation": made.generation,
        "active": made.active,
        "changes": {name: list(ids) for name, ids in made.delta._asdict().items()},
        "codes": {item_id: list(codes) for item_id, codes in made.codes.items()},
        "drift": to_dict(drift),
    }
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    state = "serves now" if made.active else "is published, but does not serve yet"
    lines = [
        f"generation {made.generation} {state}: {said}; {drift.live:,} items, "
        f"{drift.new_share:.1%} of them new"
    ]
    if drift.reasons:
        lines.append("assigning all codes anew would pay: " + "; ".join(drift.reasons))
    return Answer(document, tuple(lines))


def _serves(store: "GenerationStore") -> Answer:
    number = store.current
    document = {"run": str(store.run.path), "domain": store.domain, "generation": number}
    return Answer(document, (f"generation {number} of {store.domain} serves now",))


def _time(written: float) -> str:
    return datetime.datetime.fromtimestamp(written, datetime.UTC).isoformat(timespec="seconds")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Change a run's catalogue while it serves.")
    app.add_typer(group, name="catalog")
    add_command(
        group, "add", example="utgrec catalog add runs/shop new_items.jsonl", uses_models=True
    )(add)
    add_command(
        group, "replace", example="utgrec catalog replace runs/shop prices.jsonl", uses_models=True
    )(replace)
    add_command(
        group, "remove", example="utgrec catalog remove runs/shop A12 B7", uses_models=True
    )(remove)
    add_command(group, "list", example="utgrec catalog list runs/shop", uses_models=True)(listing)
    add_command(group, "activate", example="utgrec catalog activate runs/shop 3", uses_models=True)(
        activate
    )
    add_command(
        group, "prune", example="utgrec catalog prune runs/shop --keep 10", uses_models=True
    )(prune)
    add_command(group, "rollback", example="utgrec catalog rollback runs/shop", uses_models=True)(
        rollback
    )
