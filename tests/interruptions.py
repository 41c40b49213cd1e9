"""Disks that are full half way, and processes that are killed."""

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from utgrec import storage
from utgrec.data import event_store


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """From the write with this number on, the disk is full."""
    writes = 0
    doors = [(pl.DataFrame, "write_ipc"), (pq, "write_table"), (Path, "write_bytes")]
    doors += [(storage, "write_text"), (event_store, "_write")]
    for owner, name in doors:
        real = getattr(owner, name)

        def full(*given: Any, real: Any = real, **named: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*given, **named)

        monkeypatch.setattr(owner, name, full)


def kill_some(script: str, *arguments: Path, out: Path, longest_s: float = 0.15) -> None:
    """Run a program three times, and kill it soon after it said that it is ready.

    `out` is whole or absent all the time, and at least one of them really was killed.
    """
    rng, killed = random.Random(5), 0
    for _ in range(3):
        command = [sys.executable, "-c", script, *map(str, arguments)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0, longest_s))
        child.kill()
        killed += child.wait() != 0
        child.stdout.close()
        if not (out / "domain.json").exists():
            assert not out.exists()  # nothing half made has the name of a domain
    assert killed
