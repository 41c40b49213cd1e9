"""Figures of a running server, in Prometheus' format; no label ever holds what a caller wrote."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

METHODS = {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of its own.

    With several processes on one port, prometheus_client keeps the figures of each in files.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "utgrec_requests_total",
            "Answers by route and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "utgrec_request_seconds",
            "Time from a request to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "utgrec_batch_histories",
            "Histories searched together.",
            buckets=SIZES,
            registry=registry,
        )
        self.search = Histogram(
            "utgrec_search_seconds", "Time of one search.", buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge(
            "utgrec_waiting_histories",
            "Histories in line.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.generation = Gauge(
            "utgrec_generation",
            "Number of the generation that serves; of several processes, the one behind.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.live = Gauge(
            "utgrec_live_items",
            "Items that can be recommended.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.refused = Counter(
            "utgrec_refused_generations_total",
            "Generations that could not be served.",
            registry=registry,
        )

    def on_batch(self, size: int, seconds: float) -> None:
        """Count one search."""
        self.batch.observe(size)
        self.search.observe(seconds)

    def on_look(self, waiting: int, generation: int, live: int) -> None:
        """Note how things are."""
        self.waiting.set(waiting)
        self.generation.set(generation)
        self.live.set(live)

    def on_answer(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """All figures as text; of several processes on one port, those of all together."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            together = CollectorRegistry()
            MultiProcessCollector(together)  # type: ignore[no-untyped-call]
            return generate_latest(together)
        return generate_latest(self.registry)
