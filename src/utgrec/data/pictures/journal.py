"""What an unfinished run has reached: pictures and a journal in a hidden folder beside the domain.

`.NAME.images/` holds `images/…` (fetched pictures, whole or absent), `journal.jsonl` (a line for
each address, appended) and `spool/`. It is removed once its content is part of the domain.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from utgrec import storage
from utgrec.data.pictures.outcomes import MEANINGS, Result
from utgrec.errors import StorageError


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Errors of the file system inside the block say what to do.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder} ({error.strerror or error}); make room or correct the "
            "permissions, then run the same command again: what was fetched so far is kept"
        ) from error


class Workspace:
    """The hidden folder of one domain; only one process may have it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self._journal = folder / "journal.jsonl"
        self._stream: IO[str] | None = None

    def start(self, max_side: int) -> dict[str, Result]:
        """What an interrupted run reached with the same size of pictures; ready to go on.

        Raises:
            StorageError: it cannot be written.
        """
        shutil.rmtree(self.spool, ignore_errors=True)
        note = self.folder / "settings.json"
        settings = {"max_side": max_side, "format": 1}
        if note.is_file() and storage.read_json(note) != settings:
            self.clear()
        self.spool.mkdir(parents=True, exist_ok=True)
        storage.write_json(note, settings)
        known = {url: result for url, result in self._lines() if self._is_whole(result)}
        # A killed run may have left half a line: the next one begins on its own.
        torn = self._journal.is_file() and not _ends_a_line(self._journal)
        self._stream = open(self._journal, "a", encoding="utf-8")  # noqa: SIM115
        if torn:
            self._stream.write("\n")
        return known

    def note(self, url: str, result: Result) -> None:
        """Remember what became of one address."""
        assert self._stream is not None
        with writing(self.folder):
            self._stream.write(json.dumps([url, *result], ensure_ascii=True) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Stop writing; everything stays for the next run."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # a full disk: the lines before are there
                self._stream.close()
            self._stream = None

    def clear(self) -> None:
        """Remove everything but the lock."""
        self.close()
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != "lock":
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything: its content is part of the domain now."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lines(self) -> Iterator[tuple[str, Result]]:
        if not self._journal.is_file():
            return
        with open(self._journal, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                try:
                    url, *values = json.loads(line)
                    result = Result(*values)
                except (ValueError, TypeError):
                    continue  # half a line
                if isinstance(url, str) and result.outcome in MEANINGS:
                    yield url, result

    def _is_whole(self, result: Result) -> bool:
        """Whether the picture of a result is there; one that a power cut emptied is not."""
        if result.path is None:
            return True
        path = self.folder / result.path
        return path.is_file() and storage.hash_file(path) == result.digest


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"


@contextlib.contextmanager
def open_workspace(domain: Path) -> Iterator[Workspace]:
    """The workspace of a domain, for this process alone.

    Raises:
        StorageError: another process fetches pictures for the same domain.
    """
    folder = domain.parent / f".{domain.name}.images"
    folder.mkdir(parents=True, exist_ok=True)
    busy = StorageError(
        f"another process is fetching pictures for {domain} (it holds {folder}); "
        "wait until it is done, or stop it"
    )
    with (
        storage.only_one(folder / "lock", busy),
        contextlib.closing(Workspace(folder)) as workspace,
    ):
        yield workspace
