"""What every command shares: flags, progress, errors, exit codes, and the answer on stdout.

stdout holds the answer alone: tables for a person, or with --json one JSON document, which is
{"error": {"type", "message"}} if the command fails. All else goes to stderr.

Exit codes: 0 done · 1 failed · 2 wrong usage (also a setting outside its range) · 130 Ctrl-C ·
143 SIGTERM. Stopped in the middle of training, a command has written a checkpoint.
"""

import contextlib
import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, NamedTuple, NoReturn, ParamSpec

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from utgrec import processes
from utgrec.console import ConsoleProgress, log_lines
from utgrec.errors import BadConfig, Stopped, UTGRecError
from utgrec.progress import Progress, quiet_transformers, silent

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
BY_SIGNAL = 128  # plus the signal's number, as shells count
PLAIN_WIDTH = 120  # columns of tables that are not printed on a terminal

P = ParamSpec("P")


class Answer(NamedTuple):
    """What a command gives back."""

    document: dict[str, Any]  # for --json
    view: tuple[RenderableType, ...]  # for a person, one under the other


class Terminal(NamedTuple):
    """What a command may use while it works; all of it is on stderr."""

    progress: Progress
    messages: Console

    def say(self, text: str) -> None:
        """One message; nothing with --quiet."""
        self.messages.print(Text(text), soft_wrap=True)


class Flags(NamedTuple):
    """The options that every command has."""

    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no messages, only errors.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also tell what goes on inside.")
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error came from (traceback).")
    ] = False


Command = Callable[Concatenate[Terminal, P], Answer]


def add_command(
    app: typer.Typer, name: str, *, example: str, uses_models: bool = False
) -> Callable[[Command[P]], Command[P]]:
    """Register a function as the command `name` of `app`, with all that commands share.

    Its first parameter, the Terminal, is given by the frame; the others become arguments and
    options, those annotated with a NamedTuple its fields. `uses_models` says that it loads torch
    and transformers.
    """

    def register(command: Command[P]) -> Command[P]:
        def run(**given: Any) -> None:
            flags = Flags(**{field: given.pop(field) for field in Flags._fields})
            for name, group in groups.items():
                given[name] = group(**{field: given.pop(field) for field in group._fields})
            execute(functools.partial(command, **given), flags, uses_models)

        own: list[inspect.Parameter] = []
        groups: dict[str, Any] = {}
        for parameter in list(inspect.signature(command).parameters.values())[1:]:
            kind = parameter.annotation
            if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
                groups[parameter.name] = kind
                own += inspect.signature(kind).parameters.values()
            else:
                own.append(parameter)
        shared = list(inspect.signature(Flags).parameters.values())
        # Keyword-only, so that options with and without a default may come in any order.
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *shared]]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__doc__ = command.__doc__
        app.command(name, epilog=f"Example: {example}")(run)
        return command

    return register


def execute(command: Callable[[Terminal], Answer], flags: Flags, uses_models: bool) -> None:
    """Run a command, print its answer, and turn what goes wrong into a line and an exit code."""
    if not processes.is_first():
        flags = flags._replace(as_json=False, quiet=True)
    messages = Console(stderr=True, quiet=flags.quiet, highlight=False)
    try:
        # Whatever a library prints goes to stderr: stdout belongs to the answer.
        with (
            log_lines(Console(stderr=True), quiet=flags.quiet, verbose=flags.verbose),
            ConsoleProgress(messages) as bars,
            contextlib.redirect_stdout(sys.stderr),
        ):
            if uses_models:
                quiet_transformers()
            answer = command(Terminal(silent if flags.quiet else bars, messages))
    except KeyboardInterrupt:
        again = "stopped by Ctrl-C; run the same command again to continue"
        _fail("Interrupted", again, INTERRUPTED, flags)
    except Stopped as stopped:
        _fail("Stopped", str(stopped), BY_SIGNAL + stopped.signal, flags)
    except (UTGRecError, OSError) as error:
        code = WRONG_USAGE if isinstance(error, BadConfig) else FAILED
        _fail(type(error).__name__, str(error), code, flags)
    except Exception as error:
        message = f"{error} (a defect of UTGRec; please report it with its traceback)"
        _fail(type(error).__name__, message, FAILED, flags._replace(debug=True))
    if not processes.is_first():
        return
    if flags.as_json:
        _print_json(answer.document)
        return
    on_screen = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if on_screen else PLAIN_WIDTH, highlight=False)
    for part in answer.view:
        # Text, since rich reads a plain string as markup: "[b]" in a path would vanish.
        console.print(
            Text(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str)
        )


def _fail(kind: str, message: str, code: int, flags: Flags) -> NoReturn:
    if flags.debug:
        sys.stderr.write(traceback.format_exc())
    Console(stderr=True).print(Text(f"{kind}: {message}", "bold red"), soft_wrap=True)
    if flags.as_json:
        _print_json({"error": {"type": kind, "message": message}})
    raise typer.Exit(code)


def _print_json(document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=1, allow_nan=False, default=str)
    sys.stdout.write(text + "\n")
