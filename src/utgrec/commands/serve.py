"""Commands of the server: serve, key add."""

import signal
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from utgrec.commands.catalog import DomainName
from utgrec.commands.frame import Answer, Terminal, add_command
from utgrec.commands.options import BackbonePlace, RunPath
from utgrec.errors import BadConfig, MissingDependency

LOOPBACK = ("127.0.0.1", "::1", "localhost")
DRAIN_S = 30
# Longer than callers and proxies keep an idle connection: a request never meets one just closed.
KEEP_ALIVE_S = 75


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
    keep_generations: Annotated[
        int,
        typer.Option(
            min=1, help="Generations kept; older ones are removed once there are twice as many."
        ),
    ] = 50,
    users: Annotated[
        str,
        typer.Option(
            help="Where user histories are kept: run (a file in the run folder), off, a file, or "
            "a PostgreSQL URL.",
            envvar="UTGREC_USERS",
            show_envvar=True,
        ),
    ] = "run",
    backbone: BackbonePlace = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes behind the port, sharing memory.")
    ] = 1,
    ray_replicas: Annotated[
        int | None,
        typer.Option(
            min=1, help="Replicas through Ray Serve instead, on the machines of RAY_ADDRESS."
        ),
    ] = None,
) -> Answer:
    """Answer requests for recommendations over HTTP, from a catalogue that may change meanwhile.

    Everything it needs is in the run folder. Set OMP_NUM_THREADS to say how many threads a process
    computes with. It stops with Ctrl-C or SIGTERM, after answering what
    it has accepted.
    """
    if keys is None and host not in LOOPBACK:
        raise BadConfig(
            f"--host {host} can be reached from other machines, so --keys FILE is required; make "
            "one with `utgrec key add FILE --name NAME --role read`, or listen on 127.0.0.1"
        )
    if workers > 1 and ray_replicas is not None:
        raise BadConfig("--workers is for one machine, --ray-replicas for Ray; give one of them")
    try:
        import uvicorn

        from utgrec.serving.starting import (
            ServerSettings,
            check_settings,
            log_to,
            make_app,
            run_workers,
        )
        from utgrec.serving.stopping import Server
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"the server needs {error.name}; install it with `pip install 'utgrec[serve]'`"
        ) from error
    from utgrec.serving.batching import BatchingConfig
    from utgrec.serving.generations import GenerationStore
    from utgrec.serving.service import ServiceConfig

    config = ServiceConfig(
        batching=BatchingConfig(
            wait_ms=wait_ms,
            most_together=most_together,
            most_waiting=most_waiting,
            longest_wait_s=longest_wait_s,
        ),
        max_body_bytes=max_body_mib * 2**20,
        max_pixels=max_image_pixels,
        keep_generations=keep_generations,
        backbone=backbone,
    )
    settings = ServerSettings(
        run=str(path),
        domain=domain,
        keys=None if keys is None else str(keys),
        users=users,
        service=config,
        quiet=terminal.messages.quiet,
    )
    uvicorn_settings: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": DRAIN_S,
        "timeout_keep_alive": KEEP_ALIVE_S,
    }
    address = f"http://{_shown(host)}:{port}"
    store = GenerationStore(path, domain)
    if workers > 1 or ray_replicas is not None:
        check_settings(settings)  # what is broken is better told once than by every process
    if ray_replicas is not None:
        from utgrec.serving.replicas import serve_replicas

        terminal.say(f"{store.domain}, {ray_replicas} replicas through Ray: {address}")
        serve_replicas(settings, ray_replicas, host, port)
        return Answer(_document(path, store.domain), ("stopped",))
    with _listen(host, port) as listener:
        log_to(terminal.messages.file, quiet=settings.quiet)
        if workers > 1:
            terminal.say(f"{store.domain}, {workers} processes: {address}")
            run_workers(settings, workers, uvicorn_settings, listener)
            return Answer(_document(path, store.domain), ("stopped",))
        app = make_app(settings)
        server = Server(uvicorn.Config(app, **uvicorn_settings))
        terminal.say(f"{store.domain}, generation {app.state.service.shelf.number}: {address}")
        # Once it has stopped, uvicorn raises the signal that stopped it again; it has been obeyed.
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda number, frame: None)
        server.run(sockets=[listener])
    return Answer(_document(path, store.domain), ("stopped",))


def _document(path: Path, domain: str) -> dict[str, Any]:
    return {"run": str(path), "domain": domain, "stopped": True}


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
