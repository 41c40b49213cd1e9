"""How fast pictures are fetched, beside a client that only downloads: 20,000 files, 50 ms each.

    python benchmarks/images.py

A server in a process of its own answers every request after a delay. A bare client (sockets, no
parser, nothing kept) and `utgrec images` take turns with the same number of connections; the bare
client's rate is the server's own bound. UTGRec's time is that of the fetching, with decoding,
checking and writing; the time of the whole call is stated beside it. Results go
to `benchmarks/results/images.json`.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from machine_facts import machine
from utgrec import storage
from utgrec.catalog import write_domain
from utgrec.data.pictures.fetch import fetch_images
from utgrec.data.pictures.options import ImageOptions

RESULTS = Path(__file__).parent / "results" / "images.json"
SIDE = 160  # pixels


class Server(asyncio.Protocol):
    """Answers `GET /N.jpg` with the N-th picture, `delay` seconds later."""

    def __init__(self, bodies: list[bytes], delay: float) -> None:
        self._bodies, self._delay, self._waiting = bodies, delay, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            path = self._waiting.split(b" ", 2)[1]
            body = self._bodies[int(path[1:].partition(b".")[0])]
            head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay, self._transport.write, head % len(body) + body)
            self._waiting = self._waiting[end + 4 :]


def make_pictures(count: int) -> list[bytes]:
    """Small JPEGs, each with its own soft pattern."""
    rng = np.random.default_rng(0)
    bodies = []
    for _ in range(count):
        stream = BytesIO()
        pattern = Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8))
        pattern.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(stream, "JPEG", quality=80)
        bodies.append(stream.getvalue())
    return bodies


async def serve(bodies: list[bytes], delay: float) -> None:
    """Serve until killed; the port and the mean size go to stdout first."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(bodies, delay), "127.0.0.1", 0, backlog=4096)
    size = sum(map(len, bodies)) / len(bodies)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]} {size:.0f}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def bare(port: int, count: int, connections: int) -> None:
    """Only download: as many requests, over as many connections."""
    numbers = iter(range(count))

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            writer.write(b"GET /%d.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))


def write_shop(folder: Path, port: int, count: int) -> None:
    """A domain whose items name the pictures."""
    urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(count)]
    names = [f"i{number}" for number in range(count)]
    columns = {"user": pa.int32(), "item": pa.int32(), "timestamp": pa.int64()}
    with storage.new_folder(folder) as new:
        write_domain(
            new,
            name="shop",
            items=pa.table(
                {
                    "item_id": names,
                    "title": names,
                    "text": names,
                    "image": pa.array([None] * count, pa.string()),
                    "image_url": urls,
                }
            ),
            user_ids=[],
            interactions=pa.table({name: pa.array([], kind) for name, kind in columns.items()}),
            config={},
            inputs={},
            facts={},
        )


def processor_s() -> float:
    """Processor time of this process and of those it started and that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def one_pair(port: int, count: int, connections: int, work: Path) -> dict[str, float]:
    """The bare client, then UTGRec."""
    started = time.monotonic()
    asyncio.run(bare(port, count, connections))
    bound = count / (time.monotonic() - started)
    folder = work / "shop"
    write_shop(folder, port, count)
    options = ImageOptions(per_host=connections, allow_private_addresses=True)
    used, started = processor_s(), time.monotonic()
    manifest = fetch_images(folder, options)
    whole = time.monotonic() - started
    assert manifest.facts["images"]["outcomes"] == {"stored": count}
    assert len(manifest.files) > 0.99 * count  # nothing was the same as another
    return {
        "bare_per_s": round(bound, 1),
        "utgrec_per_s": round(count / manifest.measured["images_wall_s"], 1),
        "of_bound": round(count / manifest.measured["images_wall_s"] / bound, 4),
        "utgrec_whole_call_per_s": round(count / whole, 1),
        "whole_call_of_bound": round(count / whole / bound, 4),
        "utgrec_processor_ms_each": round(1000 * (processor_s() - used) / count, 3),
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--delay", type=float, default=0.05, help="of the server (s)")
    parser.add_argument("--connections", type=int, default=32, help="to the server, of both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="", help="about the machine while it measured")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(make_pictures(options.files), options.delay))
    command = [sys.executable, __file__, "--serve", "--files", str(options.files)]
    server = subprocess.Popen(
        [*command, "--delay", str(options.delay)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port, size = map(int, server.stdout.readline().split())
        pairs = []
        for _ in range(options.repeats):
            load = os.getloadavg()[0]
            with tempfile.TemporaryDirectory() as work:
                pair = one_pair(port, options.files, options.connections, Path(work))
            pairs.append({**pair, "load_before": round(load, 2)})
            sys.stderr.write(f"{pairs[-1]}\n")
    finally:
        server.kill()
        server.wait()
    medians = {name: statistics.median(pair[name] for pair in pairs) for name in pairs[0]}
    found = {
        "command": " ".join(["python", "benchmarks/images.py", *sys.argv[1:]]),
        "files": options.files,
        "bytes_each": size,
        "pixels": f"{SIDE} × {SIDE}",
        "delay_ms": 1000 * options.delay,
        "connections": options.connections,
        "machine": machine(),
        "note": options.note,
        "median": medians,
        "pairs": pairs,
    }
    storage.write_json(RESULTS, found)
    sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
