"""Work through a large file part by part: on this machine, or wherever somebody else does it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import polars as pl

from utgrec.data.blocks import BLOCK_BYTES, Block, BlockReader, Told


class Part(NamedTuple):
    """What a block of lines became."""

    rows: pl.DataFrame  # events or items, in the order of their lines
    rejected: pl.DataFrame  # as `rejects.SCHEMA`
    lines: int


Work = Callable[[Block], Part]
"""What is made of one block; must not depend on any other block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """What a file was like that was worked through."""

    lines: int
    """Lines of the file."""
    digest: str
    """SHA-256 (hex) of its bytes."""
    before: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """Part → lines before the place from which its line numbers count; none = the file's start."""


class Pieces(Protocol):
    """The parts of one file, in any order, and then what the file was like."""

    def __iter__(self) -> Iterator[tuple[int, Part]]:
        """Each part with a number that grows along the file."""

    def done(self) -> Done:
        """Once all parts were taken."""


class Machine(Protocol):
    """Whoever works through files."""

    def over(self, path: Path, work: Work, told: Told) -> Pieces:
        """Do `work` on every block of a file."""


class ThisMachine:
    """One process; polars uses the cores."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        """Blocks have about so many bytes."""
        self._block_bytes = block_bytes

    def over(self, path: Path, work: Work, told: Told) -> Pieces:
        """Block after block."""
        return _Local(BlockReader(path, block_bytes=self._block_bytes, told=told), work)


class _Local(Pieces):
    def __init__(self, reader: BlockReader, work: Work) -> None:
        self._reader, self._work = reader, work

    def __iter__(self) -> Iterator[tuple[int, Part]]:
        for number, block in enumerate(self._reader):
            yield number, self._work(block)

    def done(self) -> Done:
        return Done(lines=self._reader.lines, digest=self._reader.digest)
