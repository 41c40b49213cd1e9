"""The command recommend: for one history on the command line, or for a file of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import RunPath
from utgrec.commands.views import recommendations_table
from utgrec.errors import BadConfig, InputError

if TYPE_CHECKING:
    from utgrec.serving.engine import Engine
    from utgrec.serving.filters import Filters


def recommend(
    terminal: Terminal,
    path: RunPath,
    history: Annotated[
        str,
        typer.Option(help="Item ids, oldest first, separated by commas.", metavar="ID,ID"),
    ] = "",
    item: Annotated[
        list[str] | None,
        typer.Option(
            help="One item id as it is, also one with a comma; after those of --history. "
            "May be repeated.",
            metavar="ID",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Histories, as .jsonl or .parquet; instead of --history.", metavar="FILE"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write, with --from.", metavar="FILE"),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many items.")] = 10,
    beam: Annotated[
        int | None,
        typer.Option(min=1, help="Beams kept while decoding; the run's own if left out."),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Domain of the run; may be left out if it has one.")
    ] = None,
    generation: Annotated[
        int | None,
        typer.Option(min=1, help="Generation of the catalogue; the one that serves if left out."),
    ] = None,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Items of the history may be recommended again.")
    ] = False,
    unknown: Annotated[
        Literal["error", "skip"],
        typer.Option(help="What to do about ids that the catalogue has never had."),
    ] = "error",
    category: Annotated[
        list[str] | None, typer.Option(help="Only of this category. May be repeated.")
    ] = None,
    min_price: Annotated[float | None, typer.Option(help="Lowest price.")] = None,
    max_price: Annotated[float | None, typer.Option(help="Highest price.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only with this value in a column. May be repeated.", metavar="NAME=VALUE"
        ),
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option(help="Id of an item to leave out. May be repeated.")
    ] = None,
) -> Answer:
    """Recommend the next items after a history, or after each history of a file.

    A line of the file is {"user_id": "u1", "history": ["A12", "B7"]}. A job that was stopped goes
    on when it is started again; its output appears when it is whole.
    """
    from utgrec.serving.engine import Engine, Request
    from utgrec.serving.generations import GenerationStore

    item_ids = [part.strip() for part in history.split(",") if part.strip()] + (item or [])
    if (source is None) != (out is None):
        raise BadConfig("--from FILE and --out FILE belong together; give both, or --history")
    if source is not None and item_ids:
        raise BadConfig("give either --from FILE or a history, not both")
    if source is None and not item_ids:
        raise BadConfig("no history was given; name items with --history ID,ID or --item ID")
    engine = Engine(GenerationStore(path, domain, write=False), generation=generation)
    terminal.say(f"{engine.store.domain}, {_catalogue(engine)}")
    filters = _filters(engine, category or [], min_price, max_price, where or [], deny or [])
    asked = Request(
        history=tuple(item_ids),
        k=k,
        beam=beam,
        filters=filters,
        exclude_seen=not keep_seen,
        unknown=unknown,
    )
    document: dict[str, Any] = {
        "run": str(path),
        "domain": engine.store.domain,
        "generation": engine.shelf.number,
    }
    if source is None or out is None:
        return _for_one(engine, asked, document)
    from utgrec.serving.bulk import recommend_file

    done = recommend_file(engine, source, out, asked, progress=terminal.progress)
    document |= {"histories": done.histories, "done_before": done.before, "out": str(out)}
    earlier = f", {done.before:,} of them by an earlier call" if done.before else ""
    return Answer(document, (f"{done.histories:,} histories answered{earlier}: {out}",))


def _for_one(engine: "Engine", asked: Any, document: dict[str, Any]) -> Answer:
    (answer,) = engine.recommend([asked])
    if isinstance(answer, Exception):
        raise answer
    catalog = engine.shelf.catalog
    rows = []
    for hit in answer.found:
        found = catalog[hit.item]
        rows.append(
            {
                "item_id": found.item_id,
                "title": found.title,
                "score": hit.score,
                "image": None if found.image is None else str(found.image),
                "attributes": found.attributes,
            }
        )
    known = [one for one in asked.history if one in catalog]
    titles = [catalog.titles[index] for index in catalog.indices_of(known)]
    shown = " → ".join(title or name for title, name in zip(titles, known, strict=True))
    document |= {
        "history": list(asked.history),
        "unknown": answer.unknown,
        "recommendations": rows,
    }
    return Answer(document, (recommendations_table(f"after {shown}", rows),))


def _catalogue(engine: "Engine") -> str:
    live = f"{engine.shelf.live_count:,} items"
    if engine.store.has_changed:
        return f"generation {engine.shelf.number} of the catalogue: {live}"
    return f"the catalogue of the run: {live}"


def _filters(
    engine: "Engine",
    categories: list[str],
    min_price: float | None,
    max_price: float | None,
    where: list[str],
    deny: list[str],
) -> "Filters":
    from utgrec.serving.filters import Condition, Filters

    conditions: list[tuple[str, Condition]] = []
    if categories:
        conditions.append(("category", Condition(any_of=tuple(categories))))
    if min_price is not None or max_price is not None:
        conditions.append(("price", Condition(at_least=min_price, at_most=max_price)))
    for one in where:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise BadConfig(f"--where {one!r} must be NAME=VALUE, such as brand=Ostara")
        conditions.append((name, Condition(any_of=(_value(engine, name, value),))))
    filters = Filters(where=tuple(conditions), deny=tuple(deny))
    engine.shelf.index.matching(filters.where)  # a condition that does not fit is told at once
    return filters


def _value(engine: "Engine", name: str, value: str) -> str | bool | float:
    """The words of --where as the column has its values."""
    kind = engine.shelf.index.kind(name)
    try:
        if kind == "flags":
            return {"true": True, "false": False}[value.lower()]
        return float(value) if kind == "numbers" else value
    except (KeyError, ValueError):
        wanted = "true or false" if kind == "flags" else "a number"
        raise InputError(f"--where {name}={value}: {name} must be {wanted}") from None


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    add_command(
        app,
        "recommend",
        example="utgrec recommend runs/shop --history A12,B7 --k 10",
        uses_models=True,
    )(recommend)
