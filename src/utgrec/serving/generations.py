"""Generations: the published versions of a catalogue, each one immutable.

RUN/generations/DOMAIN/
  CURRENT            number of the generation that serves; without it, the first one does
  000001/            made from the run's codes stage; every change of the catalogue adds another
    items.parquet    every item ever published, in the order in which they came
    codes.parquet    the same rows: codes, and whether the item can be recommended
    delta.json       what changed since the parent
    drift.json       how far the catalogue has moved from what the codes were made for
    manifest.json    written last
  images/            pictures of items that were added, named by their content

The newest generation names every item that any generation ever published, with its codes, and its
first rows are the rows of every older one. So an item's index and codes never change, also after
going back to an older generation, and no two items ever have the same codes.

Shapes: N items, live or not · L codes per item.
"""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import Catalog
from utgrec.errors import (
    CorruptFile,
    FieldError,
    InputError,
    MissingStage,
    SettingsMismatch,
    StorageError,
)
from utgrec.runs import RunFolder, read_plan
from utgrec.serving.rows import FIRST, Rows, coded_table, first_rows, read_rows
from utgrec.tokenizer.codes import STAGE as CODES

STAGE = "generation"
CURRENT = "CURRENT"


class Delta(NamedTuple):
    """What a generation changes, as item ids."""

    added: Sequence[str] = ()
    restored: Sequence[str] = ()  # removed earlier, and back with the codes they had
    removed: Sequence[str] = ()
    replaced: Sequence[str] = ()


class Generation:
    """One published version of a catalogue."""

    def __init__(self, manifest: storage.Manifest, rows: Rows, pictures: "Pictures") -> None:
        self.manifest = manifest
        self.rows = rows
        self.number: int = manifest.facts["number"]
        self.parent: int | None = manifest.facts["parent"]
        self.sizes: tuple[int, ...] = tuple(manifest.facts["sizes"])
        self._pictures = pictures

    @cached_property
    def catalog(self) -> Catalog:
        """All items ever published, with the paths of their pictures."""
        items, own = self.rows.items, self.rows.own_picture
        if own.any():
            names = items.column("image").to_pylist()
            paths = [
                str(self._pictures.own / name) if name and here else name
                for name, here in zip(names, own.tolist(), strict=True)
            ]
            place = items.column_names.index("image")
            items = items.set_column(place, "image", pa.array(paths, pa.string()))
        return Catalog(items, self._pictures.domain)


class Pictures(NamedTuple):
    """Where relative paths of pictures start."""

    domain: Path  # for items of the run's own domain
    own: Path  # for items that were added


class Listed(NamedTuple):
    """One line of the list of generations."""

    number: int
    active: bool
    parent: int | None
    live: int  # items that can be recommended
    changes: dict[str, int]  # added, restored, removed, replaced: how many
    written: float  # seconds since 1970
    problem: str | None  # why it cannot be used; its files are only checked when it is opened


class GenerationStore:
    """The generations of one domain of a run."""

    def __init__(self, run: str | Path, domain: str | None = None, *, write: bool = True) -> None:
        """With one domain in the run its name may be left out.

        The first generation is made of the run's codes if it is not there. Without `write` it is
        only read from there, so that nothing is written into the run.

        Raises:
            MissingStage: the folder is no run, or the domain has no codes yet.
            InputError: the run has several domains and none is named, or not this one.
            SettingsMismatch: the codes were assigned anew since the first generation was made.
        """
        self.run = RunFolder(run)
        domains = read_plan(self.run).domains
        if domain is None and len(domains) > 1:
            raise InputError(
                f"{run} knows {', '.join(domains)}; say which with domain=… (or --domain NAME)"
            )
        self.domain = domain or next(iter(domains))
        if self.domain not in domains:
            raise InputError(
                f"{run} does not know domain {self.domain!r}; it knows {', '.join(domains)}"
            )
        self.domain_folder = domains[self.domain]
        # Absolute, since paths of pictures in the domain folder are not meant relative to it.
        self.folder = self.run.path.resolve() / "generations" / self.domain
        self._codes = storage.read_manifest(self.run.codes(self.domain), CODES)
        if write:
            self._ensure_first()
        self._check_first()

    @property
    def has_changed(self) -> bool:
        """Whether there is more than the catalogue that the run was made with."""
        return self.numbers not in ([], [FIRST])

    @property
    def pictures(self) -> Pictures:
        """Where relative paths of pictures start."""
        return Pictures(self.domain_folder, self.folder)

    @property
    def current(self) -> int:
        """Number of the generation that serves."""
        path = self.folder / CURRENT
        if not path.is_file():
            return FIRST
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if not re.fullmatch("[0-9]{1,9}", text):
            raise CorruptFile(
                f"{path} holds {text[:40]!r}, not the number of a generation; choose one with "
                f"`utgrec catalog activate {self.run.path} NUMBER`"
            )
        return int(text)

    @property
    def mark(self) -> tuple[str, int, int] | None:
        """Something else after every choice of a generation; None if none was ever chosen.

        Two choices may fall into one tick of the clock that files are dated by: their texts differ.
        The same choice made again, after a repair, is another file, or at least a later one.
        """
        path = self.folder / CURRENT
        try:
            found = path.stat()
            return (
                path.read_text(encoding="utf-8", errors="replace"),
                found.st_ino,
                found.st_mtime_ns,
            )
        except FileNotFoundError:
            return None

    @property
    def numbers(self) -> list[int]:
        """Numbers of all whole generations, oldest first."""
        found = (path.parent.name for path in self.folder.glob(f"*/{storage.MANIFEST}"))
        return sorted(int(name) for name in found if re.fullmatch("[0-9]{6,9}", name))

    def open(self, number: int | None = None) -> Generation:
        """Read one generation, by default the one that serves, and check every file of it.

        Raises:
            MissingStage: there is no such generation.
            CorruptFile: a file is not the one that was published.
        """
        number = self.current if number is None else number
        if number == FIRST and not self.numbers:
            return Generation(
                self._unwritten(),
                first_rows(self.run.codes(self.domain), self._codes),
                self.pictures,
            )
        folder = self.path(number)
        manifest = self.manifest(number)
        if manifest.facts.get("number") != number:
            raise CorruptFile(
                f"{folder} says it is generation {manifest.facts.get('number')!r}; it was copied "
                "or renamed: remove it"
            )
        paths = {name: storage.check_file(folder, manifest, name) for name in manifest.files}
        rows = read_rows(paths["items.parquet"], paths["codes.parquet"])
        return Generation(manifest, rows, self.pictures)

    def listing(self) -> list[Listed]:
        """All generations, oldest first."""
        active = self.current
        return [self._listed(number, number == active) for number in self.numbers]

    def activate(self, number: int) -> None:
        """Let a generation serve, after checking every file of it.

        Raises:
            MissingStage, CorruptFile: it cannot be used; the one before goes on serving.
        """
        self.open(number)
        with self.writing():
            self.manifest(number)  # nobody removed it meanwhile
            self._point_to(number)

    def rollback(self) -> int:
        """Let the parent of the current generation serve, and return its number.

        Raises:
            InputError: the current one is the first.
        """
        current = self.current
        parent = self.manifest(current).facts["parent"]
        if parent is None:
            raise InputError(
                f"generation {current} is the first one, there is none before it; activate another "
                "one by its number"
            ).about([FieldError("rollback", "true", "is asked after a change")])
        self.activate(parent)
        return int(parent)

    def drift(self, number: int) -> dict[str, Any]:
        """The drift report that a generation was published with."""
        path = storage.check_file(self.path(number), self.manifest(number), "drift.json")
        return dict(storage.read_json(path))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Only one process at a time changes a catalogue; the others wait here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # a killed process gives its lock back
            yield

    def publish(
        self,
        rows: Rows,
        *,
        parent: int | None,
        delta: Delta,
        drift: dict[str, Any],
        activate: bool = True,
    ) -> storage.Manifest:
        """Write the next generation, then let it serve. Call it inside `writing`.

        Returns once everything is on the disk; whatever kills the process before leaves the
        generation that served until then.
        """
        number = max(self.numbers, default=0) + 1
        inputs = {"codes": self._codes.fingerprint}
        if parent is not None:
            inputs["parent"] = self.manifest(parent).fingerprint
        with storage.new_folder(self.path(number)) as folder:
            pq.write_table(rows.items, folder / "items.parquet", compression="zstd")
            pq.write_table(coded_table(rows), folder / "codes.parquet", compression="zstd")
            storage.write_json(folder / "delta.json", {k: [*v] for k, v in delta._asdict().items()})
            storage.write_json(folder / "drift.json", drift)
            for name in ("items.parquet", "codes.parquet"):
                _flush(folder / name)
            manifest = storage.write_manifest(
                folder,
                stage=STAGE,
                config={},
                inputs=inputs,
                facts={
                    "domain": self.domain,
                    "number": number,
                    "parent": parent,
                    "sizes": self._codes.facts["sizes"],
                    "items": len(rows.live),
                    "live": int(rows.live.sum()),
                    "changes": {name: len(ids) for name, ids in delta._asdict().items()},
                },
                measured={"written": round(time.time(), 3)},
            )
        _flush(self.folder)
        if activate:
            self._point_to(number)
        return manifest

    def path(self, number: int) -> Path:
        """The folder of a generation."""
        return self.folder / f"{number:06d}"

    def _point_to(self, number: int) -> None:
        storage.write_text(self.folder / CURRENT, f"{number}\n")
        _flush(self.folder)

    def manifest(self, number: int) -> storage.Manifest:
        """What a generation says about itself.

        Raises:
            MissingStage, CorruptFile: there is none, or it cannot be read.
        """
        if number not in self.numbers:
            known = ", ".join(map(str, self.numbers[-10:]))
            raise MissingStage(
                f"{self.folder} has no generation {number}; the newest ones are {known}; see "
                f"`utgrec catalog list {self.run.path}`"
            )
        return storage.read_manifest(self.path(number), STAGE)

    def _listed(self, number: int, active: bool) -> Listed:
        try:
            made = self.manifest(number)
            facts = made.facts
            return Listed(
                number,
                active,
                facts["parent"],
                facts["live"],
                facts["changes"],
                made.measured.get("written", 0.0),
                None,
            )
        except (StorageError, KeyError) as error:
            return Listed(number, active, None, 0, {}, 0.0, str(error))

    def _ensure_first(self) -> None:
        """Make the first generation out of the run's codes stage, unless it is there."""
        if FIRST in self.numbers:
            return
        try:
            with self.writing():
                if FIRST not in self.numbers:
                    self.publish(
                        first_rows(self.run.codes(self.domain), self._codes),
                        parent=None,
                        delta=Delta(),
                        drift={},
                        activate=False,
                    )
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be written ({error.strerror}), and the run's first "
                "generation is not there yet; open the run once where it can be written, for "
                f"instance with `utgrec catalog list {self.run.path}`, then serve it from here"
            ) from error

    def _check_first(self) -> None:
        """Raise SettingsMismatch if the first generation was made from other codes."""
        if FIRST not in self.numbers:
            return
        made_from = self.manifest(FIRST).inputs.get("codes")
        if made_from != self._codes.fingerprint:
            raise SettingsMismatch(
                f"{self.folder} was begun with other codes than {self.run.codes(self.domain)} now "
                "holds; move the generations away to begin anew, or restore the codes"
            )

    def _unwritten(self) -> storage.Manifest:
        """What the first generation would say about itself."""
        facts = {"number": FIRST, "parent": None, "sizes": self._codes.facts["sizes"]}
        return storage.Manifest(
            stage=STAGE,
            config={},
            inputs={"codes": self._codes.fingerprint},
            files=self._codes.files,
            facts=facts,
        )


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
