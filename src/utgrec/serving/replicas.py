"""Replicas of a server through Ray Serve, on one machine or on many. Needs `utgrec[ray]`.

Every replica makes its own application from the settings, so the run folder must be at the same
path on every machine, for instance on a shared file system. Ray's proxy listens on the port, sends
each request to the replica that has least to do, and replaces replicas that die.
"""

import os
import signal
import threading
from typing import Any

from utgrec.config import from_dict, to_dict
from utgrec.errors import BadConfig, MissingDependency
from utgrec.serving.starting import ServerSettings, make_app
from utgrec.serving.users.choose import OFF, POSTGRES

NAME = "utgrec"
DRAIN_S = 30


def start_replicas(settings: ServerSettings, replicas: int, host: str, port: int) -> None:
    """Start replicas on the Ray that is connected, or a new one, and return when they answer.

    Raises:
        MissingDependency: Ray Serve is not installed.
        BadConfig: histories in a file, although the replicas may be on several machines.
        UTGRecError: the run, the keys or the histories cannot be used.
    """
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise MissingDependency(
            "replicas need Ray Serve; install it with `pip install 'utgrec[ray,serve]'`"
        ) from error
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
    alive = [node for node in ray.nodes() if node["Alive"]]
    if len(alive) > 1 and settings.users != OFF and not settings.users.startswith(POSTGRES):
        raise BadConfig(
            f"this Ray has {len(alive)} machines, which cannot share a file of user histories; "
            "give --users postgresql://…, or --users off"
        )
    serve.start(http_options={"host": host, "port": port})
    values = to_dict(settings)

    class Replica:
        """One server; Ray sends its requests to the application."""

        def __serve_build_asgi_app__(self) -> Any:
            return make_app(from_dict(ServerSettings, values))

    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        num_replicas=replicas,
        # The batcher inside sheds what it cannot answer in time; Ray shall not queue before it.
        max_ongoing_requests=4 * settings.service.batching.most_waiting,
        graceful_shutdown_timeout_s=DRAIN_S,
    )
    serve.run(deployment.bind(), name=NAME, route_prefix="/")


def serve_replicas(settings: ServerSettings, replicas: int, host: str, port: int) -> None:
    """Start replicas and stop them at SIGTERM or SIGINT."""
    start_replicas(settings, replicas, host, port)
    from ray import serve

    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, frame: stopped.set())
    stopped.wait()
    serve.delete(NAME)
    serve.shutdown()
