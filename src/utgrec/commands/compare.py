"""The command compare: a plan in, tables and a page out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import Out
from utgrec.console import clock_text

Values = Mapping[str, Any]


def compare(
    terminal: Terminal,
    plan: Annotated[Path, typer.Argument(help="A plan in TOML.", metavar="PLAN")],
    out: Out,
    in_process: Annotated[
        bool,
        typer.Option(
            "--in-process", help="Run every cell in this process: quicker to start, less measured."
        ),
    ] = False,
) -> Answer:
    """Compare systems on several domains with several seeds.

    Finished cells are skipped and an interrupted one is continued: run the same command again.
    """
    from utgrec.comparison import compare as do_compare
    from utgrec.comparison import read_plan
    from utgrec.report import write_comparison

    wanted = read_plan(plan)
    terminal.say(
        f"{wanted.title}: {len(wanted.domains)} domains × {len(wanted.systems)} systems × "
        f"{len(wanted.seeds)} seeds → {out}"
    )
    compared = do_compare(wanted, out, terminal.progress, isolated=not in_process)
    if compared.finished_before:
        terminal.say(f"{compared.finished_before} of {compared.tasks} tasks were finished before")
    page = write_comparison(out)
    found = compared.figures
    document = {"comparison": str(out), "page": str(page), **found}
    view = [domain_table(found, domain) for domain in found["domains"]]
    return Answer(document, (*view, f"tables: {out / 'comparison.md'}", f"page: {page}"))


def domain_table(found: Values, domain: Values) -> Table:
    """The systems of one domain side by side."""
    metrics = list(dict.fromkeys(("recall@10", found["metric"])))
    seen = "left out" if found["exclude_seen"] else "kept"
    table = Table(
        title=Text(
            f"{domain['name']}: {domain['users']:,} users, {domain['items']:,} items, "
            f"seen items {seen}"
        ),
        title_justify="left",
    )
    table.add_column("system", overflow="fold")
    for name in (*metrics, "p", "training", "memory"):
        table.add_column(name, justify="right", overflow="fold")
    for system in domain["systems"]:
        cost = found["measured"][domain["name"]][system["system"]]
        test = system["reference_minus_system"]
        cells = [system["system"]]
        for name in metrics:
            metric = system["metrics"][name]
            cells.append(f"{metric['value']:.4f} ± {(metric['high'] - metric['low']) / 2:.4f}")
        cells.append("" if test is None else f"{test['p_corrected']:.4f}")
        cells += [clock_text(cost["train_s"]), f"{cost['peak_memory_mib']:,.0f} MiB"]
        table.add_row(*(Text(cell) for cell in cells))
    table.caption = Text(
        f"± is half of the 95 % interval over users. p: {found['reference']} against each on "
        f"{found['metric']}, corrected for {found['tests']} tests."
    )
    table.caption_justify = "left"
    return table


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    add_command(
        app,
        "compare",
        example="utgrec compare examples/comparison.toml --out comparison",
        uses_models=True,
    )(compare)
