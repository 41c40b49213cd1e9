"""Do a whole comparison: check, derive, tune, train, measure, write the tables."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.comparison.checks import check_plan, open_domains, plan_work
from utgrec.comparison.folder import ComparisonFolder, Task, check_folder, write_resolved
from utgrec.comparison.isolate import do_apart, do_here
from utgrec.comparison.plan import ComparisonPlan
from utgrec.comparison.summary import cell_rows, read_cells, summarise
from utgrec.comparison.tables import to_markdown
from utgrec.errors import CellFailed
from utgrec.progress import Progress, silent

NAME = "comparison"
log = logging.getLogger(__name__)


class Compared(NamedTuple):
    """A finished comparison."""

    figures: dict[str, Any]  # the values of comparison.json
    tasks: int  # tunings and cells
    finished_before: int  # of them, those that an earlier attempt had done


def compare(
    plan: ComparisonPlan, out: Path, progress: Progress = silent, *, isolated: bool = True
) -> Compared:
    """Run every cell of a plan and write comparison.md, .json and .parquet into `out`.

    Finished cells are skipped and an interrupted one is continued, so that the same call may be
    made again; a plan may also have grown in between. A cell that fails is told at once, and does
    not stop the others.

    Args:
        isolated: each cell runs in a process of its own, so that its peak memory and a crash are
            its own; False runs all in this process.

    Raises:
        BadConfig, InputError, StorageError: the plan cannot be done; nothing was trained.
        CellFailed: cells failed; the others are kept and the tables are not written.
    """
    folder = ComparisonFolder(out)
    check_plan(plan)
    check_folder(folder)
    resolved = open_domains(plan, folder)
    work = plan_work(folder, resolved)
    write_resolved(folder, resolved)
    failed: dict[Task, str] = {}
    for done, task in enumerate(work.tasks):
        progress("Comparing", done, len(work.tasks), task.title)
        if _waits_for(task, failed, plan):
            continue
        if storage.find_manifest(folder.stage(task), task.kind) is not None:
            continue
        try:
            if isolated:
                do_apart(folder, task, progress)
            else:
                do_here(folder, resolved, task, progress)
        except CellFailed as error:
            failed[task] = str(error)
            log.warning("%s; the comparison goes on with the others", error)
    progress("Comparing", len(work.tasks), len(work.tasks))
    if failed:
        raise CellFailed(
            f"{len(failed)} of {len(work.tasks)} tasks failed; the others are kept, and the same "
            "command does these alone again:\n" + "\n".join(failed.values())
        )
    cells = read_cells(folder, resolved, work.tasks)
    figures = summarise(folder, resolved, cells)
    storage.write_json(folder.path / f"{NAME}.json", figures)
    storage.write_text(folder.path / f"{NAME}.md", to_markdown(figures))
    _write_rows(folder.path / f"{NAME}.parquet", cell_rows(cells))
    return Compared(figures, len(work.tasks), work.finished)


def _waits_for(task: Task, failed: dict[Task, str], plan: ComparisonPlan) -> bool:
    """Whether a cell needs a tuning that failed."""
    family = next((s.family for s in plan.systems if s.name == task.system), None)
    return task.kind == "cell" and any(
        other.kind == "tuning" and other.system == family and other.domain == task.domain
        for other in failed
    )


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """A Parquet file under a temporary name, then renamed into place."""
    with storage.new_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows), partial, compression="zstd")
