"""Commands of the server: serve, key add."""

import json
import logging
import signal
import socket
from pathlib import Path
from typing import Annotated, Literal

import typer

from utgrec.commands.catalog import DomainName
from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import RunPath
from utgrec.errors import BadConfig, MissingDependency

LOOPBACK = ("127.0.0.1", "::1", "localhost")
DRAIN_S = 30
# Longer than callers and proxies keep an idle connection: a request never meets one just closed.
KEEP_ALIVE_S = 75


class JsonLines(logging.Formatter):
    """One JSON object per record, without anything that callers sent."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return json.dumps(line, ensure_ascii=False)


def serve(
    terminal: Terminal,
    path: RunPath,
    domain: DomainName = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(help="File of API keys, made with `utgrec key add`.", metavar="FILE"),
    ] = None,
    wait_ms: Annotated[
        float, typer.Option(min=0, help="Longest time a request waits for company (ms).")
    ] = 2.0,
    most_together: Annotated[int, typer.Option(min=1, help="Histories searched together.")] = 64,
    most_waiting: Annotated[
        int, typer.Option(min=1, help="Histories in line; more are answered 429.")
    ] = 512,
    longest_wait_s: Annotated[
        float, typer.Option(help="What would wait longer is answered 429 (s).")
    ] = 2.0,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Largest body of a request (MiB).")] = 16,
    max_image_pixels: Annotated[
        int, typer.Option(min=1, help="Most pixels of a picture (width × height).")
    ] = 40_000_000,
) -> Answer:
    """Answer requests for recommendations over HTTP, from a catalogue that may change meanwhile.

    Everything it needs is in the run folder. It stops with Ctrl-C or SIGTERM, after answering what
    it has accepted.
    """
    if keys is None and host not in LOOPBACK:
        raise BadConfig(
            f"--host {host} can be reached from other machines, so --keys FILE is required; make "
            "one with `utgrec key add FILE --name NAME --role read`, or listen on 127.0.0.1"
        )
    try:
        import uvicorn

        from utgrec.serving.app import create_app
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"the server needs {error.name}; install it with `pip install 'utgrec[serve]'`"
        ) from error
    from utgrec.serving.batching import BatchingConfig
    from utgrec.serving.generations import GenerationStore
    from utgrec.serving.keys import read_keys
    from utgrec.serving.service import ServiceConfig

    known = None if keys is None else read_keys(keys)
    config = ServiceConfig(
        batching=BatchingConfig(
            wait_ms=wait_ms,
            most_together=most_together,
            most_waiting=most_waiting,
            longest_wait_s=longest_wait_s,
        ),
        max_body_bytes=max_body_mib * 2**20,
        max_pixels=max_image_pixels,
    )
    with _listen(host, port) as listener:
        store = GenerationStore(path, domain)
        app = create_app(store, config, keys=known)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=DRAIN_S,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        _log_to(terminal)
        generation = app.state.service.shelf.number
        terminal.say(f"{store.domain}, generation {generation}: http://{_shown(host)}:{port}")
        # Once it has stopped, uvicorn raises the signal that stopped it again; it has been obeyed.
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda number, frame: None)
        server.run(sockets=[listener])
    return Answer({"run": str(path), "domain": store.domain, "stopped": True}, ("stopped",))


def key_add(
    terminal: Terminal,
    path: Annotated[Path, typer.Argument(help="File of keys; made if need be.", metavar="FILE")],
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    role: Annotated[
        Literal["read", "write"], typer.Option(help="write may also change the catalogue.")
    ] = "read",
) -> Answer:
    """Make an API key. It is shown once: the file keeps its hash only."""
    from utgrec.serving.keys import add_key

    word = add_key(path, name, role)
    document = {"file": str(path), "name": name, "role": role, "key": word}
    terminal.say("Keep this key, it cannot be shown again; send it as `Authorization: Bearer KEY`.")
    return Answer(document, (word,))


def _log_to(terminal: Terminal) -> None:
    """JSON lines on stderr, for what the server does; the frame's own lines stay as they are."""
    handler = logging.StreamHandler(terminal.messages.file)
    handler.setFormatter(JsonLines())
    for name in ("utgrec.serving", "uvicorn"):
        log = logging.getLogger(name)
        log.handlers = [handler]
        log.propagate = False
        log.setLevel(logging.WARNING if terminal.messages.quiet else logging.INFO)


def _listen(host: str, port: int) -> socket.socket:
    """Take the address before any work is done for it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise BadConfig(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another --port, or a "
            "--host of this machine"
        ) from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    add_command(app, "serve", example="utgrec serve runs/shop --port 8000", uses_models=True)(serve)
    group = typer.Typer(no_args_is_help=True, help="API keys of the server.")
    app.add_typer(group, name="key")
    add_command(group, "add", example="utgrec key add keys.json --name shop --role write")(key_add)
