"""Work through a large file part by part: on this machine, or wherever somebody else does it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from utgrec.data.blocks import BLOCK_BYTES, Block, BlockReader, Told

Result = TypeVar("Result")
Work = Callable[[Block], Result]
"""What is made of one block; must not depend on any other block."""


class Done(NamedTuple):
    """The size and hash of a file that was worked through."""

    lines: int
    digest: str  # SHA-256 (hex) of its bytes
    before: tuple[int, ...] = ()  # lines before each part; () = parts know their lines in the file

    def first_line(self, part: int) -> int:
        """What to add to the line numbers of a part."""
        return self.before[part] if self.before else 0


class Pieces(Protocol[Result]):
    """The results of one file, in any order, and then what the file was like."""

    def __iter__(self) -> Iterator[tuple[int, Result]]:
        """Number of the part, in the order of the file, and what was made of it."""

    def done(self) -> Done:
        """Once all results were taken."""


class Machine(Protocol):
    """Whoever works through files."""

    def over(self, path: Path, work: Work[Result], told: Told) -> Pieces[Result]:
        """Do `work` on every block of a file."""


class ThisMachine:
    """One process; polars uses the cores."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes

    def over(self, path: Path, work: Work[Result], told: Told) -> Pieces[Result]:
        return _Local(BlockReader(path, block_bytes=self._block_bytes, told=told), work)


class _Local(Pieces[Result]):
    def __init__(self, reader: BlockReader, work: Work[Result]) -> None:
        self._reader, self._work = reader, work

    def __iter__(self) -> Iterator[tuple[int, Result]]:
        for number, block in enumerate(self._reader):
            yield number, self._work(block)

    def done(self) -> Done:
        return Done(self._reader.lines, self._reader.digest)
