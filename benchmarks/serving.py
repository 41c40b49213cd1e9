"""What a server of one run does under load: latency, the rate at which it saturates, and beyond.

    python benchmarks/serving.py runs/shop --domain kitchen

It starts `utgrec serve` on this machine and sends it requests with histories drawn from the
catalogue, in this order: one after the other; at half of what it can do; at twice of it, when it
has to refuse requests (429) and answer the rest; at half again, to see that it recovers; and while
generations are exchanged all the time. Requests leave at their own pace, whatever the answers
(Poisson), so a slow server does not slow its load down. The caller runs on the same processors.
Results go to `benchmarks/results/serving.json`.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from utgrec.serving.generations import GenerationStore

RESULTS = Path(__file__).parent / "results" / "serving.json"
STARTS_WITHIN_S = 120


class Sent(NamedTuple):
    """One request and what became of it."""

    status: int  # 0: no answer
    ms: float


async def send(client: httpx2.AsyncClient, body: dict[str, Any]) -> Sent:
    """One request."""
    started = time.perf_counter()
    try:
        status = (await client.post("/v1/recommend", json=body)).status_code
    except httpx2.HTTPError:
        status = 0
    return Sent(status, 1000 * (time.perf_counter() - started))


async def one_by_one(
    client: httpx2.AsyncClient, bodies: list[dict[str, Any]], seconds: float
) -> list[Sent]:
    """Each request after the answer to the one before."""
    sent, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        sent.append(await send(client, random.choice(bodies)))
    return sent


async def together(
    client: httpx2.AsyncClient, bodies: list[dict[str, Any]], seconds: float, callers: int
) -> list[Sent]:
    """So many callers, each with one request after the other."""
    parts = await asyncio.gather(*(one_by_one(client, bodies, seconds) for _ in range(callers)))
    return [sent for part in parts for sent in part]


async def at_rate(
    client: httpx2.AsyncClient, bodies: list[dict[str, Any]], seconds: float, rate: float
) -> list[Sent]:
    """Requests at random moments, `rate` per second on average."""
    tasks, when, start = [], 0.0, time.perf_counter()
    while when < seconds:
        await asyncio.sleep(max(start + when - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(send(client, random.choice(bodies))))
        when += random.expovariate(rate)
    return await asyncio.gather(*tasks)


def figures(name: str, sent: list[Sent], seconds: float) -> dict[str, Any]:
    """Counts and latencies of one part."""
    fine = sorted(one.ms for one in sent if one.status == 200)

    def at(share: float) -> float | None:
        return round(fine[min(int(share * len(fine)), len(fine) - 1)], 1) if fine else None

    row = {
        "part": name,
        "seconds": seconds,
        "sent": len(sent),
        "answered": len(fine),
        "refused": sum(one.status == 429 for one in sent),
        "failed": sum(one.status not in (200, 429) for one in sent),
        "answered_per_s": round(len(fine) / seconds, 1),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
    }
    print(
        f"{name:<28} {row['answered_per_s']:>8} {row['refused']:>8} {row['failed']:>7} "
        f"{row['p50_ms']!s:>8} {row['p99_ms']!s:>8}",
        flush=True,
    )
    return row


async def measure(url: str, bodies: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """All parts."""
    print(f"{'':<28} {'answers/s':>8} {'refused':>8} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8}")
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        await together(client, bodies, min(seconds, 2), 8)  # warm
        rows = [figures("one by one", await one_by_one(client, bodies, seconds), seconds)]
        full = figures("64 callers", await together(client, bodies, seconds, 64), seconds)
        rate = max(full["answered_per_s"], 1.0)
        rows.append(full)
        for name, share in (("half of that", 0.5), ("twice of that", 2), ("half again", 0.5)):
            rows.append(
                figures(name, await at_rate(client, bodies, seconds, share * rate), seconds)
            )
        stop = asyncio.Event()

        async def exchange() -> int:
            count = 0
            while not stop.is_set():
                answer = await client.post("/v1/generations", json={"activate": 1 + count % 2})
                assert answer.status_code == 200, answer.text
                count += 1
            return count

        changing = asyncio.create_task(exchange())
        sent = await at_rate(client, bodies, seconds, 0.25 * rate)
        stop.set()
        exchanged = await changing
        rows.append({**figures("a quarter, exchanging", sent, seconds), "exchanges": exchanged})
        return rows


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--domain")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    parser.add_argument("--history", type=int, default=20, help="items of a history")
    parser.add_argument("--beam", type=int, default=20)
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"  # generations are added: the run itself stays as it is
        shutil.copytree(arguments.run, run, ignore=shutil.ignore_patterns("generations"))
        store = GenerationStore(run, arguments.domain)
        ids = store.open().catalog.item_ids
        bodies = [
            {
                "history": random.sample(ids, min(arguments.history, len(ids))),
                "k": 10,
                "beam": arguments.beam,
            }
            for _ in range(500)
        ]
        command = [sys.executable, "-m", "utgrec", "serve", str(run), "--domain", store.domain]
        server = subprocess.Popen([*command, "--port", str(arguments.port), "--quiet"])
        url = f"http://127.0.0.1:{arguments.port}"
        try:
            wait_for(url, server)
            httpx2.delete(f"{url}/v1/items/{ids[0]}", timeout=60).raise_for_status()
            bodies = [body for body in bodies if ids[0] not in body["history"]]
            rows = asyncio.run(measure(url, bodies, arguments.seconds))
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
    assert code == 0, f"the server ended with {code}"
    settings = {k: str(v) for k, v in vars(arguments).items() if k != "out"}
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    result = {"machine": machine, "settings": settings, "items": len(ids), "parts": rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Return when the server is ready."""
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx2.get(f"{url}/readyz").status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
