"""Do a task in a process of its own, so that its peak memory and its crash are its own."""

import json
import signal
import subprocess
import sys

from utgrec.comparison.cells import do_task
from utgrec.comparison.folder import ComparisonFolder, Resolved, Task
from utgrec.errors import CellFailed, UTGRecError
from utgrec.progress import Progress


def do_here(folder: ComparisonFolder, resolved: Resolved, task: Task, progress: Progress) -> None:
    """Do a task in this process; its peak memory is then that of everything done so far.

    Raises:
        CellFailed: the task failed with an error of the library.
    """
    try:
        do_task(folder, resolved, task, progress)
    except UTGRecError as error:
        raise CellFailed(f"{task.title} failed: {type(error).__name__}: {error}") from error


def do_apart(folder: ComparisonFolder, task: Task, progress: Progress) -> None:
    """Do a task in a process of its own; the plan must be written before.

    Raises:
        CellFailed: the task failed, or its process was killed. The message names its log.
    """
    log = folder.log(task)
    log.parent.mkdir(parents=True, exist_ok=True)
    order = json.dumps({"folder": str(folder.path.resolve()), "task": list(task)})
    with (
        open(log, "w", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "utgrec.comparison.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        ) as process,
    ):
        try:
            problem = _follow(process, order, progress)
        except BaseException:
            process.kill()
            raise
        code = process.wait()
    if problem is None and code == 0:
        log.unlink()
        return
    raise CellFailed(f"{task.title} failed: {problem or _death(code)}; its messages are in {log}")


def _follow(process: "subprocess.Popen[str]", order: str, progress: Progress) -> str | None:
    """Pass on progress until the process ends; the error that it told, if any."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both pipes were asked for")
    problem: str | None = None
    try:
        process.stdin.write(order + "\n")
        process.stdin.flush()
    except BrokenPipeError:  # it died while it started; its exit code says how
        return problem
    for line in process.stdout:
        kind, *values = json.loads(line)
        if kind == "progress":
            progress(*values)
        elif kind == "error":
            problem = ": ".join(values)
    return problem


def _death(code: int) -> str:
    """Why a process ended that said nothing."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (often: the machine ran out of memory)" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}"
