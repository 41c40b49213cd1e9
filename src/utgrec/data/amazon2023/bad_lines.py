"""Bad lines of parts that come in any order: the first ones are listed, all are counted."""

from collections import Counter
from collections.abc import Mapping

import polars as pl

from utgrec.data.rejects import Rejects


class BadLines:
    """Keeps what can still be among the first `most` lines of a file, and counts the rest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._listed: dict[int, pl.DataFrame] = {}
        self._counted: Counter[str] = Counter()
        self._rows = 0

    def add(self, part: int, rejected: pl.DataFrame) -> None:
        """The bad lines of one part, as `rejects.SCHEMA`."""
        if rejected.height:
            self._listed[part] = rejected
            self._rows += rejected.height
            if self._rows > 2 * self._most:
                self._shrink()

    def hand_over(self, rejects: Rejects, before: Mapping[int, int]) -> None:
        """All of them, in the order of the file; `before` is added to the lines of each part."""
        for part in sorted(self._listed):
            frame = self._listed[part]
            rejects.add_frame(frame.with_columns(pl.col("row") + before.get(part, 0)))
        rejects.add_counts(self._counted)

    def _shrink(self) -> None:
        """Only count the lines of parts behind the first `most` lines known so far."""
        rows = 0
        for part in sorted(self._listed):
            frame = self._listed[part]
            room = max(self._most - rows, 0)
            rows += frame.height
            if frame.height > room:
                self._counted.update(frame["reason"][room:].to_list())
                self._listed[part] = frame.head(room)
        self._listed = {part: frame for part, frame in self._listed.items() if frame.height}
        self._rows = sum(frame.height for frame in self._listed.values())
