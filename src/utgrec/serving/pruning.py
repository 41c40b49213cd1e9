"""Remove old generations of a catalogue, and pictures that no generation shows any more.

What a catalogue depends on is never removed: the generation that serves; the one it was made from,
to go back to; the newest, which knows every code that was ever given away; and the first, by which
the codes of the run are recognised.
"""

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from utgrec import storage
from utgrec.config import require
from utgrec.serving.generations import GenerationStore
from utgrec.serving.rows import FIRST

# A picture is stored before the generation that shows it: young ones may belong to one on its way.
OLD_S = 86_400
REMOVED = "removed"


class Pruned(NamedTuple):
    """What was removed."""

    generations: list[int]
    pictures: int
    kept: list[int]  # generations


def prune(store: GenerationStore, keep: int, *, old_s: float = OLD_S) -> Pruned:
    """Keep the newest `keep` generations and what the catalogue depends on; remove the others.

    A process that is killed meanwhile leaves whole generations only; the next call tidies up.

    Raises:
        CorruptFile: one that stays cannot be read. Nothing was removed then.
    """
    require(keep >= 1, f"at least 1 generation is kept, got {keep}")
    with store.writing():
        numbers = store.numbers
        current = store.current
        parent = store.manifest(current).facts["parent"]
        needed = {FIRST, current, *numbers[-keep:]} | ({parent} - {None})
        kept = [number for number in numbers if number in needed]
        shown = {name for number in kept for name in _pictures(store, number)}
        for stale in store.folder.glob(f".*.{REMOVED}"):
            shutil.rmtree(stale)
        gone = [number for number in numbers if number not in needed]
        for number in gone:
            aside = store.folder / f".{number:06d}.{REMOVED}"
            os.replace(store.path(number), aside)  # from now on it counts as absent
            shutil.rmtree(aside)
        return Pruned(gone, _remove_pictures(store.folder, shown, old_s), kept)


def _pictures(store: GenerationStore, number: int) -> list[str]:
    """Names of the pictures that a generation keeps beside itself."""
    manifest, folder = store.manifest(number), store.path(number)
    items = pq.read_table(storage.check_file(folder, manifest, "items.parquet"), columns=["image"])
    coded = pq.read_table(
        storage.check_file(folder, manifest, "codes.parquet"), columns=["own_picture"]
    )
    names = items.column("image").filter(coded.column("own_picture"))
    return [name for name in names.to_pylist() if name]


def _remove_pictures(folder: Path, shown: set[str], old_s: float) -> int:
    before, count = time.time() - old_s, 0
    for path in (folder / "images").glob("*/*"):
        name = path.relative_to(folder).as_posix()
        if name not in shown and path.stat().st_mtime < before:
            path.unlink()
            count += 1
    return count
