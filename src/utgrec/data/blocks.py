"""Read a text file of any size as blocks of whole lines, in memory that does not grow with it.

A thread reads ahead, unzips and hashes while the caller works on the block before.
"""

import hashlib
import io
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from utgrec.data.table_files import BOM, PACKED, unpacked, unpacking
from utgrec.errors import BadTable

BLOCK_BYTES = 32 * 2**20
LONGEST_LINE = 64 * 2**20  # bytes; nothing that belongs into a table is longer
AHEAD = 1  # blocks that wait for the caller

Told = Callable[[int], None]
"""Called with the number of bytes that were read from the file so far."""


class Block(NamedTuple):
    """Some whole lines of a file."""

    first_line: int  # number of its first line in the file (or in its range), from 1
    data: bytes
    lines: int
    begins: bool  # the file begins with this block
    ends_open: bool  # the file ends in this block, without the end of its last line


class Range(NamedTuple):
    """The lines of a file that begin at a byte of [start, end); one machine's share of it."""

    start: int
    end: int


class BlockReader:
    """The blocks of one file, and what was found out on the way: iterate it once, to its end."""

    def __init__(
        self,
        path: Path,
        *,
        block_bytes: int = BLOCK_BYTES,
        part: Range | None = None,
        told: Told | None = None,
    ) -> None:
        """`part` takes some lines of a file that is not zipped; None = all of it."""
        self.path = path
        self.lines = 0
        self._block_bytes = block_bytes
        self._part = part
        self._told = told
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the file's bytes, once all blocks were read."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Block]:
        """Read ahead in a thread.

        Raises:
            BadTable: no whole gzip or zstd file, UTF-16, or a line without end.
        """
        waiting: queue.Queue[Block | BaseException | None] = queue.Queue(AHEAD)
        stopped = threading.Event()

        def put(value: Block | BaseException | None) -> bool:
            while not stopped.is_set():
                try:
                    waiting.put(value, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for block in self._blocks():
                    if not put(block):
                        return
                put(None)
            except BaseException as error:  # handed to the caller
                put(error)

        thread = threading.Thread(target=work, name=f"read {self.path.name}", daemon=True)
        thread.start()
        try:
            while (found := waiting.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                self.lines = found.first_line - 1 + found.lines
                yield found
        finally:
            stopped.set()
            thread.join()

    def _blocks(self) -> Iterator[Block]:
        with open(self.path, "rb", buffering=0) as file:
            raw = _Watched(file, self._hash.update, self._told)
            if self._part is not None:
                yield from self._cut(_of_part(file, self._part, self._block_bytes))
                return
            plain = not self.path.name.lower().endswith(PACKED)
            stream = raw if plain else unpacking(raw, self.path.name)
            yield from self._cut(self._pieces(stream))
            while raw.read(self._block_bytes):
                pass  # what follows the last member belongs to the hash

    def _pieces(self, stream: io.RawIOBase | io.BufferedIOBase) -> Iterator[bytes]:
        while piece := unpacked(self.path, lambda: stream.read(self._block_bytes)):
            yield piece

    def _cut(self, pieces: Iterator[bytes]) -> Iterator[Block]:
        line, begun = 1, list[bytes]()
        begins = self._part is None or self._part.start == 0
        for number, piece in enumerate(pieces):
            if begins and not number:
                if piece.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise BadTable(f"{self.path.name} is UTF-16; save it as UTF-8")
                piece = piece.removeprefix(BOM)
            end = piece.rfind(b"\n") + 1
            if not end:
                begun.append(piece)
                if sum(map(len, begun)) > LONGEST_LINE:
                    raise BadTable(
                        f"{self.path.name}, line {line} has more than {LONGEST_LINE:,} bytes; "
                        "this is no table with one row a line"
                    )
                continue
            whole = b"".join([*begun, memoryview(piece)[:end]])  # one copy, not two
            begun = [piece[end:]] if end < len(piece) else []
            count = whole.count(b"\n")
            yield Block(line, whole, count, begins and line == 1, False)
            line += count
        if begun:
            yield Block(line, b"".join(begun), 1, begins and line == 1, True)


def ranges(path: Path, size: int) -> list[Range]:
    """Shares of about `size` bytes that together hold every line once; one share if zipped."""
    total = os.path.getsize(path)
    if path.name.lower().endswith(PACKED) or total <= size:
        return [Range(0, total)]
    starts = list(range(0, total, size))
    return [Range(a, b) for a, b in zip(starts, [*starts[1:], total], strict=True)]


def _of_part(file: io.FileIO, part: Range, size: int) -> Iterator[bytes]:
    """The bytes of all lines that begin within `part`."""
    place = part.start
    if part.start > 0:
        file.seek(part.start - 1)
        skipped = b""
        while True:  # to the end of the line that the part before has
            skipped = file.read(min(size, 2**16))
            if not skipped:
                return
            found = skipped.find(b"\n")
            if found >= 0:
                place = file.tell() - len(skipped) + found + 1
                break
        if place >= part.end:
            return
    file.seek(place)
    while place < part.end:
        piece = file.read(min(size, part.end - place))
        if not piece:
            return
        place += len(piece)
        yield piece
    if piece.endswith(b"\n"):
        return
    while rest := file.read(2**16):  # the last line goes on into the next part
        end = rest.find(b"\n") + 1
        yield rest[:end] if end else rest
        if end:
            return


class _Watched(io.RawIOBase):
    """A file whose bytes are hashed and counted as they are read."""

    def __init__(self, file: io.FileIO, seen: Callable[[bytes], None], told: Told | None) -> None:
        self._file, self._seen, self._told = file, seen, told
        self._count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._seen(data)
        self._count += len(data)
        if self._told is not None:
            self._told(self._count)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
