"""How a server is started: its settings, and the application that a process makes of them.

With several processes each makes its own application from the settings, which it finds in its
environment. They share one port, the weights in memory, and one catalogue.
"""

import dataclasses
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from fastapi import FastAPI

from utgrec.config import from_dict, require, to_dict
from utgrec.serving.app import create_app
from utgrec.serving.generations import GenerationStore
from utgrec.serving.guards import error_facts
from utgrec.serving.keys import read_keys
from utgrec.serving.service import ServiceConfig
from utgrec.serving.users.choose import RUN, open_users

SETTINGS = "UTGREC_SERVER"  # environment variable
LOOK_S = 0.1  # of several processes for changes by the others
FIGURES = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name
HEALTH_S = 60  # a process that has not answered its parent for so long is replaced


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Everything that a process of a server must know."""

    run: str
    """The run folder."""
    domain: str | None = None
    """Domain of the run; None if it has one."""
    keys: str | None = None
    """File of API keys; None for callers on this machine only."""
    users: str = RUN
    """Where user histories are kept: run, off, a file, or a PostgreSQL URL."""
    service: ServiceConfig = dataclasses.field(default_factory=ServiceConfig)
    """Limits and times."""
    quiet: bool = False
    """Whether only warnings and errors are logged."""

    def __post_init__(self) -> None:
        require(bool(self.run), "a server needs a run folder, got an empty name")


class JsonLines(logging.Formatter):
    """One JSON object per record, without anything that callers sent."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "process": record.process,
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= error_facts(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


def log_to(stream: IO[str], *, quiet: bool) -> None:
    """Write what the server does to a stream, as JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in ("utgrec.serving", "uvicorn"):
        log = logging.getLogger(name)
        log.handlers = [handler]
        log.propagate = False
        log.setLevel(logging.WARNING if quiet else logging.INFO)


def make_app(settings: ServerSettings, together: Path | None = None) -> FastAPI:
    """The application of one process; `together` is the folder of several that serve one port.

    Raises:
        UTGRecError: the run, the keys or the histories cannot be used.
    """
    store = GenerationStore(settings.run, settings.domain)
    keys = None if settings.keys is None else read_keys(Path(settings.keys))
    users = open_users(settings.users, store.run, store.domain)
    config = settings.service
    if together is not None:
        config = dataclasses.replace(config, look_every_s=min(LOOK_S, config.look_every_s))
    try:
        return create_app(store, config, keys=keys, users=users, together=together)
    except BaseException:
        if users is not None:
            users.close()
        raise


def app_from_environment() -> FastAPI:
    """What uvicorn calls in each of several processes."""
    values = json.loads(os.environ[SETTINGS])
    settings = from_dict(ServerSettings, values["settings"])
    log_to(sys.stderr, quiet=settings.quiet)
    return make_app(settings, Path(values["together"]))


def check_settings(settings: ServerSettings) -> None:
    """Open everything once that processes of a server will open.

    Raises:
        UTGRecError: the run, the keys or the histories cannot be used.
    """
    store = GenerationStore(settings.run, settings.domain)
    store.open()
    if settings.keys is not None:
        read_keys(Path(settings.keys))
    users = open_users(settings.users, store.run, store.domain)
    if users is not None:
        users.close()


def run_workers(
    settings: ServerSettings, workers: int, config: dict[str, Any], socket: Any
) -> None:
    """Serve a socket with several processes until SIGTERM or SIGINT; dead ones are replaced.

    `config` holds further settings of uvicorn.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    class Parent(Multiprocess):
        def keep_subprocess_alive(self) -> None:
            # With the children's ends of their pipes open here too, the parent would wait HEALTH_S
            # for an answer from one that was killed before it gave it.
            for process in self.processes:
                process.child_conn.close()
            super().keep_subprocess_alive()

    with tempfile.TemporaryDirectory(prefix="utgrec-") as name:
        together = Path(name)
        for folder in ("peers", "weights", "figures"):
            (together / folder).mkdir()
        os.environ[SETTINGS] = json.dumps({"settings": to_dict(settings), "together": name})
        os.environ[FIGURES] = str(together / "figures")
        try:
            Parent(
                uvicorn.Config(
                    "utgrec.serving.starting:app_from_environment",
                    factory=True,
                    workers=workers,
                    timeout_worker_healthcheck=HEALTH_S,
                    **config,
                ),
                sockets=[socket],
            ).run()
        finally:
            del os.environ[SETTINGS], os.environ[FIGURES]
