"""What a server does under load: latency, the rate at which it saturates, and beyond.

    python benchmarks/serving.py                              # a made run: T5, 10,000 items
    python benchmarks/serving.py --run runs/shop --domain kitchen

It starts `utgrec serve` on this machine and sends it requests with histories drawn from the
catalogue, in this order: one after the other; by 64 callers at once, which gives the rate at which
it saturates; at half of that rate; at twice of it, when it has to refuse requests (429) and answer
the rest; at half again, to see that it recovers; at a quarter while generations are exchanged all
the time; and events of users. Requests leave at their own pace, whatever the answers (Poisson), so
a slow server does not slow its load down. The caller runs on the same processors and takes a part
of them. The parts below saturation are done --repeats times; their figures are medians.

It ends with what must hold: no request without an answer, refusals beyond saturation and recovery
afterwards, a 99th percentile within three medians below saturation, no failed request while
generations are exchanged. Results go to `benchmarks/results/serving.json`, with the load of the
machine, since other programs make latencies longer.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from machine_facts import machine
from made_run import make_run
from utgrec.serving.generations import GenerationStore

RESULTS = Path(__file__).parent / "results" / "serving.json"
STARTS_WITHIN_S = 180
CALLERS = 64
Row = dict[str, Any]


class Sent(NamedTuple):
    """One request and what became of it."""

    status: int  # 0: no answer
    ms: float


async def send(client: httpx2.AsyncClient, body: Row, path: str = "/v1/recommend") -> Sent:
    """One request."""
    started = time.perf_counter()
    try:
        status = (await client.post(path, json=body)).status_code
    except httpx2.HTTPError:
        status = 0
    return Sent(status, 1000 * (time.perf_counter() - started))


async def one_by_one(client: httpx2.AsyncClient, bodies: list[Row], seconds: float) -> list[Sent]:
    """Each request after the answer to the one before."""
    sent, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        sent.append(await send(client, random.choice(bodies)))
    return sent


async def together(
    client: httpx2.AsyncClient, bodies: list[Row], seconds: float, callers: int
) -> list[Sent]:
    """So many callers, each with one request after the other."""
    parts = await asyncio.gather(*(one_by_one(client, bodies, seconds) for _ in range(callers)))
    return [sent for part in parts for sent in part]


async def saturate(client: httpx2.AsyncClient, bodies: list[Row], seconds: float) -> Row:
    """As many callers as fill every search; the rate is what came out in the time it really took.

    The last answers come after `seconds`: without their time the rate would be too high or, if a
    round takes longer than `seconds`, too low.
    """
    started = time.perf_counter()
    sent = await together(client, bodies, seconds, CALLERS)
    return figures(f"{CALLERS} callers", sent, round(time.perf_counter() - started, 2))


async def at_rate(
    client: httpx2.AsyncClient, bodies: list[Row], seconds: float, rate: float
) -> list[Sent]:
    """Requests at random moments, `rate` per second on average."""
    tasks, when, start = [], 0.0, time.perf_counter()
    while when < seconds:
        await asyncio.sleep(max(start + when - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(send(client, random.choice(bodies))))
        when += random.expovariate(rate)
    return await asyncio.gather(*tasks)


async def exchanging(
    client: httpx2.AsyncClient, bodies: list[Row], seconds: float, rate: float
) -> tuple[list[Sent], int]:
    """Requests at a rate while two generations are activated in turn; how often that was."""
    stop = asyncio.Event()

    async def exchange() -> int:
        count = 0
        while not stop.is_set():
            answer = await client.post("/v1/generations", json={"activate": 1 + count % 2})
            assert answer.status_code == 200, answer.text
            count += 1
            await asyncio.sleep(0.2)  # a catalogue changes often, but not all of the time
        return count

    changing = asyncio.create_task(exchange())
    sent = await at_rate(client, bodies, seconds, rate)
    stop.set()
    return sent, await changing


async def events(client: httpx2.AsyncClient, ids: list[str], seconds: float) -> list[Sent]:
    """Eight callers that send one event after the other; each answer means it is on the disk."""

    async def caller(name: int) -> list[Sent]:
        sent, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until:
            event = {
                "event_id": f"{name}-{len(sent)}",
                "user_id": f"u{name}",
                "item_id": random.choice(ids),
            }
            sent.append(await send(client, {"events": [event]}, "/v1/events"))
        return sent

    return [sent for part in await asyncio.gather(*map(caller, range(8))) for sent in part]


def figures(name: str, sent: list[Sent], seconds: float) -> Row:
    """Counts and latencies of one part."""
    fine = sorted(one.ms for one in sent if one.status == 200)

    def at(share: float) -> float:
        return round(fine[min(int(share * len(fine)), len(fine) - 1)], 1) if fine else float("inf")

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
        "load": round(os.getloadavg()[0], 1),
    }
    print(
        f"{name:<28} {row['answered_per_s']:>8} {row['refused']:>8} {row['failed']:>7} "
        f"{row['p50_ms']!s:>8} {row['p99_ms']!s:>8} {row['load']:>6}",
        flush=True,
    )
    return row


async def measure(
    url: str, bodies: list[Row], ids: list[str], seconds: float, repeats: int
) -> list[Row]:
    """All parts; those below saturation and beyond it in turn, so many times."""
    print(
        f"{'':<28} {'answers/s':>8} {'refused':>8} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8} "
        f"{'load':>6}"
    )
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=CALLERS)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        await together(client, bodies, min(seconds, 2), 8)  # warm
        rows = [figures("one by one", await one_by_one(client, bodies, seconds), seconds)]
        looking = [body | {"attention": True} for body in bodies]
        sent = await one_by_one(client, looking, seconds)
        rows.append(figures("one by one, attention", sent, seconds))
        rows.append(await saturate(client, bodies, seconds))
        rate = max(rows[-1]["answered_per_s"], 1.0)
        for _ in range(repeats):
            for name, share in (("half", 0.5), ("twice", 2.0), ("half afterwards", 0.5)):
                sent = await at_rate(client, bodies, seconds, share * rate)
                rows.append(figures(name, sent, seconds))
            sent, count = await exchanging(client, bodies, seconds, 0.25 * rate)
            rows.append({**figures("a quarter, exchanging", sent, seconds), "exchanges": count})
        sent = await events(client, ids, seconds)
        rows.append(figures("events, 8 callers", sent, seconds))
        return rows


def laws(rows: list[Row]) -> dict[str, Row]:
    """What must hold, with the figures that say whether it does."""

    def each(part: str, name: str) -> list[float]:
        return [row[name] for row in rows if row["part"] == part]

    def middle(part: str, name: str) -> float:
        return statistics.median(each(part, name))

    def total(name: str, *parts: str) -> int:
        return sum(row[name] for row in rows if not parts or row["part"] in parts)

    ratios = [
        round(row["p99_ms"] / row["p50_ms"], 2) for row in rows if row["part"].startswith("half")
    ]
    before, after = middle("half", "p50_ms"), middle("half afterwards", "p50_ms")
    return {
        "no request without an answer": {"holds": total("failed") == 0, "failed": total("failed")},
        "sheds at twice the saturating rate": {
            "holds": total("refused", "twice") > 0,
            "refused": total("refused", "twice"),
            "refused_each": each("twice", "refused"),
            "p99_ms_each": each("twice", "p99_ms"),
        },
        "recovers": {
            "holds": after < 1.5 * before,
            "p50_before_ms_each": each("half", "p50_ms"),
            "p50_afterwards_ms_each": each("half afterwards", "p50_ms"),
        },
        "p99 within three p50 at half the saturating rate": {
            "holds": statistics.median(ratios) <= 3,
            "ratio": round(statistics.median(ratios), 2),
            "ratio_each": ratios,
        },
        "no failed request while generations are exchanged": {
            "holds": total("failed", "a quarter, exchanging") == 0,
            "exchanges": sum(row.get("exchanges", 0) for row in rows),
            "answered": total("answered", "a quarter, exchanging"),
        },
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--run", type=Path, help="a finished run; otherwise one is made")
    parser.add_argument("--domain")
    parser.add_argument("--items", type=int, default=10_000, help="of the made run")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each part")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--history", type=int, default=20, help="items of a history")
    parser.add_argument("--beam", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"  # generations are added: the run itself stays as it is
        if arguments.run is None:
            make_run(run, arguments.items, arguments.beam)
        else:
            shutil.copytree(arguments.run, run, ignore=shutil.ignore_patterns("generations"))
        store = GenerationStore(run, arguments.domain)
        ids = store.open().catalog.item_ids
        bodies = [
            {
                "history": random.sample(ids[1:], min(arguments.history, len(ids) - 1)),
                "k": 10,
                "beam": arguments.beam,
            }
            for _ in range(500)
        ]
        command = [sys.executable, "-m", "utgrec", "serve", str(run), "--domain", store.domain]
        command += ["--port", str(arguments.port), "--workers", str(arguments.workers), "--quiet"]
        server = subprocess.Popen(command)
        url = f"http://127.0.0.1:{arguments.port}"
        try:
            wait_for(url, server)
            httpx2.delete(f"{url}/v1/items/{ids[0]}", timeout=60).raise_for_status()
            rows = asyncio.run(measure(url, bodies, ids, arguments.seconds, arguments.repeats))
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
    assert code == 0, f"the server ended with {code}"
    found = laws(rows)
    for name, law in found.items():
        print(f"{'holds' if law['holds'] else 'DOES NOT HOLD'}: {name}: {law}")
    settings = {k: str(v) for k, v in vars(arguments).items() if k != "out"}
    facts = {
        **machine(),
        "threads of the server": os.environ.get("OMP_NUM_THREADS", "all"),
        "nice": os.nice(0),
        "note": "load is the number of busy processes of the whole machine, the benchmark's own "
        "two among them; above the number of cores, latencies are also those of waiting",
    }
    result = {"machine": facts, "settings": settings, "items": len(ids)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**result, "laws": found, "parts": rows}, indent=1)
    arguments.out.write_text(text + "\n")


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
