"""Folders that are either whole or absent: temporary names, renames, and a manifest written last.

A *stage* is a folder that one step of the pipeline writes. Its `manifest.json` names the stage,
the configuration, the hashes of what it read and of what it wrote. A folder without a manifest
counts as absent. Its `measured` part (wall time, memory) is the only thing that differs between
two runs with the same settings.
"""

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import utgrec
from utgrec import exchange, processes
from utgrec.config import fingerprint
from utgrec.errors import (
    CorruptFile,
    FormatVersionError,
    MissingStage,
    StorageError,
    UTGRecError,
)

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
# What to do about a full disk, where nobody knows better.
AGAIN = "what was finished stays: free some room and run the same command again to continue"
CACHE_VARIABLE = "UTGREC_CACHE"  # names the folder of what may be made again
ELSEWHERE_S = 86_400  # what another machine has not touched for so long is taken as left behind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished stage says about itself."""

    stage: str
    """Name of the stage: domain, tokenizer, codes, recommender, evaluation."""
    config: dict[str, Any]
    """The full configuration that made it."""
    inputs: dict[str, str]
    """Name of each input → its fingerprint."""
    files: dict[str, str]
    """Relative path of each file written → SHA-256 (hex)."""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Small results that others read without opening the files: counts, chosen settings."""
    measured: dict[str, float] = dataclasses.field(default_factory=dict)
    """Wall time (s) and peak memory (MiB): differ from run to run, not part of the fingerprint."""
    package_version: str = ""
    """Version of UTGRec that wrote it."""
    format_version: int = FORMAT_VERSION
    """Version of the folder's layout."""

    @property
    def fingerprint(self) -> str:
        """Identifies the content: what later stages record as their input."""
        return fingerprint({"stage": self.stage, "files": self.files})

    @property
    def recipe_fingerprint(self) -> str:
        """Identifies what the content was made from: configuration and inputs."""
        return recipe_fingerprint(self.stage, self.config, self.inputs)


def cache_folder(asked: str = "") -> Path:
    """Where what may be made again is kept: as asked, or `$UTGREC_CACHE`, or ~/.cache/utgrec."""
    found = asked or os.environ.get(CACHE_VARIABLE) or "~/.cache/utgrec"
    return Path(found).expanduser()


def recipe_fingerprint(stage: str, config: Any, inputs: dict[str, str]) -> str:
    """What a stage would be made from; equal fingerprints mean the finished stage can be reused."""
    return fingerprint({"stage": stage, "config": config, "inputs": inputs})


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it into place."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def new_file(final: Path) -> Iterator[Path]:
    """A temporary name beside `final`, renamed to it when the block ends without an error.

    What killed writers of the same file left behind is removed.
    """
    for stale in _stale(final):
        stale.unlink(missing_ok=True)
    partial = _partial(final)
    try:
        with room(final.parent, AGAIN):
            yield partial
            with open(partial, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8, indented, keys in the given order) atomically. NaN is refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a broken one is a CorruptFile error that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} is not valid JSON ({error}); make this folder again") from error


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, renamed to it when the block ends without an error.

    An existing `final` is replaced: where the system can (Linux, macOS) in one step, so that there
    is the old or the new one at any moment. What a killed run left behind is tidied up first.
    """
    final = Path(os.path.abspath(final))
    final.parent.mkdir(parents=True, exist_ok=True)
    recover(final)
    tidy(final)
    aside = _aside(final)
    partial = _partial(final)
    try:
        with room(final.parent, AGAIN):
            partial.mkdir()
            yield partial
            if not final.exists():
                os.replace(partial, final)
            elif not exchange.swap(partial, final):
                os.replace(final, aside)
                os.replace(partial, final)
                shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def scratch(final: Path) -> Iterator[Path]:
    """A folder beside `final` for what is only needed while it is made.

    It is removed in the end, and so is what a killed run left behind.
    """
    final = Path(os.path.abspath(final))
    final.parent.mkdir(parents=True, exist_ok=True)
    for stale in final.parent.glob(f".{glob.escape(final.name)}.*.work"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = final.parent / f".{final.name}.{os.getpid()}.work"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def room(where: Path, then: str) -> Iterator[None]:
    """Say what a full disk means: `then` is what to do about it, and what became of the work.

    Where one block is inside another, the outer one knows better what became of the work.

    Raises:
        StorageError: the disk that holds `where` is full, or a file may not grow any more.
    """
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error
        if cause is None or not is_full(cause):
            raise
        said = getattr(cause, "strerror", None) or cause
        if _number(cause) == errno.EFBIG:
            raise StorageError(
                f"a file in {where} reaches the largest size allowed there ({said}; "
                f"ulimit -f shows the limit, the file system may have its own); {then}"
            ) from cause
        raise StorageError(f"the disk of {where} is full ({said}); {then}") from cause


def is_full(error: BaseException) -> bool:
    """Whether a disk without room, a spent quota or a limit on files is behind an error."""
    return _number(error) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _number(error: BaseException) -> int | None:
    """The system's number of an error."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # safetensors has an error of its own and polars an OSError; both keep it in the text alone.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


@contextlib.contextmanager
def only_one(lock: Path, busy: UTGRecError) -> Iterator[None]:
    """One process at a time is in the block; the lock ends with the process that holds it.

    Raises:
        UTGRecError: `busy`, if another one is.
    """
    import fcntl

    with open(lock, "wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise busy from error
        yield


def recover(final: Path) -> None:
    """Put a folder back that a killed run had just moved aside to replace it."""
    aside = _aside(Path(os.path.abspath(final)))
    if aside.exists() and not final.exists():
        os.replace(aside, final)


def tidy(final: Path) -> None:
    """Remove what killed runs left beside a folder that they made or replaced."""
    shutil.rmtree(_aside(final), ignore_errors=True)
    for stale in _stale(final):
        shutil.rmtree(stale, ignore_errors=True)


def _aside(final: Path) -> Path:
    return final.parent / f".{final.name}.replaced"


def _partial(final: Path) -> Path:
    """A name that no other writer uses: it says which machine, process and thread this one is."""
    writer = f"{_machine()}-{os.getpid()}-{threading.get_native_id()}"
    return final.with_name(f".{final.name}.{writer}.partial")


def _stale(final: Path) -> list[Path]:
    """Unfinished files or folders beside `final` whose writers do not work on them any more."""
    pattern = re.compile(rf"\.{re.escape(final.name)}\.(\w+)-(\d+)-(\d+)\.partial")
    found = []
    for path in final.parent.glob(f".{glob.escape(final.name)}.*.partial"):
        if parts := pattern.fullmatch(path.name):
            machine, process, thread = parts[1], int(parts[2]), int(parts[3])
            if _has_ended(path, machine, process, thread):
                found.append(path)
    return found


def _has_ended(path: Path, machine: str, process: int, thread: int) -> bool:
    if machine != _machine():  # on a disk of several; its processes cannot be asked for from here
        with contextlib.suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > ELSEWHERE_S
        return False
    if process != os.getpid():
        return not processes.is_alive(process)
    others = {one.native_id for one in threading.enumerate()} - {threading.get_native_id()}
    return thread not in others  # a number that this process has had from one before it


def _machine() -> str:
    return re.sub(r"\W", "_", platform.node()) or "_"


def write_manifest(
    folder: Path,
    *,
    stage: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    facts: dict[str, Any] | None = None,
    measured: dict[str, float] | None = None,
    name: str = MANIFEST,
    known: Mapping[str, str] | None = None,
) -> Manifest:
    """Hash every file in `folder` and write the manifest, last and atomically.

    Files whose SHA-256 is already known, by relative path, are not read again.
    """
    known = known or {}
    names = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path != folder / name
    }
    files = {
        relative: known[relative] if relative in known else hash_file(path)
        for relative, path in names.items()
    }
    manifest = Manifest(
        stage=stage,
        config=config,
        inputs=inputs,
        files=files,
        facts=facts or {},
        measured=measured or {},
        package_version=utgrec.__version__,
    )
    write_json(folder / name, dataclasses.asdict(manifest))
    return manifest


def read_manifest(folder: Path, stage: str, name: str = MANIFEST) -> Manifest:
    """The manifest of a finished stage.

    Raises:
        MissingStage: no such folder, or it was never finished.
        FormatVersionError: written by another version of the layout.
        StorageError: the folder holds another kind of stage.
    """
    path = folder / name
    if not path.is_file():
        raise MissingStage(
            f"{folder} holds no finished {stage} ({name} is missing); "
            "check the path, or run the command that makes it"
        )
    values = read_json(path)
    if not isinstance(values, dict):
        raise CorruptFile(f"{path} is not a manifest; make this folder again")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{folder} has format version {version!r}, this UTGRec reads version {FORMAT_VERSION}; "
            "make the folder again, or install the UTGRec version that wrote it "
            f"({values.get('package_version', 'unknown')})"
        )
    if values.get("stage") != stage:
        raise StorageError(f"{folder} holds a {values.get('stage')!r}, not a {stage!r}")
    try:
        return Manifest(**values)
    except TypeError as error:
        raise CorruptFile(f"{path} is not a manifest ({error}); make this folder again") from error


def find_manifest(folder: Path, stage: str, name: str = MANIFEST) -> Manifest | None:
    """Like `read_manifest`, but None when the stage was never finished."""
    try:
        return read_manifest(folder, stage, name)
    except MissingStage:
        return None


def check_file(folder: Path, manifest: Manifest, relative: str) -> Path:
    """The path of a file that the manifest names, after checking its hash.

    Raises:
        CorruptFile: missing, or not the bytes that were written.
    """
    path = folder / relative
    if not path.is_file():
        raise CorruptFile(f"{path} is missing; make this folder again")
    if hash_file(path) != manifest.files.get(relative):
        raise CorruptFile(f"{path} is not the file its manifest names; make this folder again")
    return path
