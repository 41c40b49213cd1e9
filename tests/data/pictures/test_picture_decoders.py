"""A picture that kills its decoder costs only itself, and a dead run leaves no process behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from deadly_decoder import decode_or_die
from picture_web import picture

from utgrec.data.pictures.decoders import Decoders
from utgrec.data.pictures.download import Body


def test_a_deadly_picture_costs_only_itself(tmp_path: Path) -> None:
    bodies = [picture(n) for n in range(6)]
    bodies.insert(3, b"deadly")

    async def decode() -> list[str]:
        with Decoders(tmp_path, workers=2, max_pixels=10**6, max_side=64) as decoders:
            decoders._call = partial(decode_or_die, store=tmp_path)
            tasks = (decoders.decode(Body(body, len(body))) for body in bodies)
            first = [result.outcome for result in await asyncio.gather(*tasks)]
            after = await decoders.decode(Body(picture(9), 1))
            return [*first, after.outcome]

    found = asyncio.run(decode())
    assert found == ["stored"] * 3 + ["crashes the decoder"] + ["stored"] * 4
    assert len(list(tmp_path.rglob("*.jpg"))) == 7


PROGRAM = """
import asyncio, os, sys, time
from pathlib import Path
from utgrec.data.pictures.decoders import Decoders
from utgrec.data.pictures.download import Body

async def main():
    with Decoders(Path(sys.argv[1]), workers=1, max_pixels=9, max_side=9) as decoders:
        await decoders.decode(Body(b"x", 1))
        print(*decoders._pool._processes, flush=True)
        time.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_decoders_die_with_the_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        os.kill(worker, 0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for _ in range(200):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the decoding process outlived the run")
