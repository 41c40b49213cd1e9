"""Encodes items, and fills a cache, on a disk that is too small, and goes on once it is larger.

Runs where it may mount: `unshare --user --map-root-user --mount python small_disk.py ARGUMENTS`.
Arguments: tokenizer, items, an empty folder. Prints what happened as JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from utgrec.errors import StorageError
from utgrec.tokenizer.bulk_workers import BulkSettings, encode_items
from utgrec.tokenizer.cache import RowCache


def size(disk: Path, options: str) -> None:
    """Mount a disk in memory, or make it larger."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)


def finished(disk: Path) -> dict[str, int]:
    """When every file of codes, and every index of a cache, was written (ns)."""
    paths = [*disk.rglob("part-*.parquet"), *disk.rglob("*.index.safetensors")]
    return {path.name: path.stat().st_mtime_ns for path in paths}


def main() -> None:
    """Fail, look, go on."""
    tokenizer, items, disk = (Path(word) for word in sys.argv[1:])
    size(disk, "size=64k")
    told, out = {}, disk / "codes"

    def encode() -> None:
        encode_items(tokenizer, items, out, BulkSettings(shard_rows=2))

    def fill() -> None:
        rows, counts = torch.ones(64, 16), np.full(64, 1, dtype=np.int64)
        for number in range(64):
            keys = [bytes([number, row]) * 16 for row in range(64)]
            if not cache.has_shard(keys):
                cache.add(keys, keys, rows, counts, np.ones((64, 2), dtype=np.int64))

    for name, work in (("encode", encode), ("cache", fill)):
        if name == "cache":
            size(disk, "remount,size=4m")
            room = os.statvfs(disk)
            (disk / "ballast").write_bytes(b"0" * (room.f_bavail * room.f_bsize - (200 << 10)))
            cache = RowCache(disk / "cache", "features", {}, 16, torch.float32)
        try:
            work()
        except StorageError as error:
            told[name] = str(error)
        told[f"{name} partial"] = [path.name for path in disk.rglob("*.partial")]
        kept = finished(disk)
        told[f"{name} kept"] = len(kept)
        size(disk, "remount,size=64m")
        work()
        after = finished(disk)
        told[f"{name} again"] = [key for key in kept if after.get(key) != kept[key]]
    found = cache.find([bytes([number, 5]) * 16 for number in range(64)])
    told["rows"] = int((found.part > 0).sum())
    (items / "encoded").mkdir()
    for path in out.glob("part-*"):
        (items / "encoded" / path.name).write_bytes(path.read_bytes())
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
