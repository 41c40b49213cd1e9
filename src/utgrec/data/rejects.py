"""Rows that cannot be used: collected with their reason, then reported as an error or set aside."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import polars as pl

from utgrec.errors import InputError

BadRows = Literal["error", "reject"]

MOST_LISTED = 100_000  # rows of rejected.parquet; the others are only counted
TOGETHER = 4096  # single rows that wait for being put into a table

SCHEMA = pl.Schema(
    {
        "file": pl.String,
        "row": pl.Int64,
        "reason": pl.String,
        "item_id": pl.String,
        "user_id": pl.String,
        "detail": pl.String,
    }
)


class Rejects:
    """All bad rows of one import.

    A row is a line number in text files (the header of a CSV file is line 1) and a row number,
    counted from 1, in Parquet files.
    """

    def __init__(self, bad_rows: BadRows, most: int | None = None) -> None:
        """Only the first `most` rows are listed, the others counted; None = all are listed."""
        self.bad_rows = bad_rows
        self._most = most
        self._listed = 0
        self._counts: Counter[str] = Counter()
        self._frames: list[pl.DataFrame] = []
        self._entries: list[dict[str, Any]] = []

    def add(
        self,
        file: str,
        row: int,
        reason: str,
        *,
        item_id: str | None = None,
        user_id: str | None = None,
        detail: str = "",
    ) -> None:
        """Note one bad row."""
        entry = {"file": file, "row": row, "reason": reason, "detail": _storable(detail)}
        entry |= {"item_id": _storable(item_id), "user_id": _storable(user_id)}
        self._entries.append(entry)
        if len(self._entries) >= TOGETHER:
            self._flush()

    def add_frame(self, frame: pl.DataFrame) -> None:
        """Note many bad rows; `frame` has the columns of SCHEMA."""
        self._flush()
        self._keep(frame.select(list(SCHEMA)).cast(SCHEMA))

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Note bad rows by reason that are only counted, because very many came before them."""
        self._flush()
        self._counts.update(counts)

    def table(self) -> pl.DataFrame:
        """All rows noted so far, in the order they were noted."""
        self._flush()
        return pl.concat(self._frames) if self._frames else pl.DataFrame(schema=SCHEMA)

    def counts(self) -> dict[str, int]:
        """Rows per reason, in alphabetical order."""
        self._flush()
        return dict(sorted(self._counts.items()))

    def in_words(self) -> str:
        """How many rows cannot be used, by reason."""
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in self.counts().items())
        return f"Rows that cannot be used: {self._counts.total():,}" + (counts and f" ({counts})")

    def settle(self, error: type[InputError]) -> None:
        """End of one step: with bad_rows="error", anything noted so far stops the import.

        Raises:
            InputError: of the class `error`; names the first bad row and counts all of them.
        """
        table = self.table()
        if self.bad_rows == "reject" or not table.height:
            return
        first = table.row(0, named=True)
        who = [f"{name[:-3]} {first[name]!r}" for name in ("item_id", "user_id") if first[name]]
        raise error(
            f"{place(first['file'], first['row'])}: {first['reason']}"
            + (f" ({', '.join(who)})" if who else "")
            + (f": {first['detail']}" if first["detail"] else "")
            + f". {self.in_words()}. "
            "Correct them, or set them aside with --bad-rows reject (options.bad_rows)"
        )

    def _flush(self) -> None:
        if self._entries:
            frame, self._entries = pl.DataFrame(self._entries, schema=SCHEMA), []
            self._keep(frame)

    def _keep(self, frame: pl.DataFrame) -> None:
        if not frame.height:
            return
        counted = frame.group_by("reason").len()
        self._counts.update(dict(counted.iter_rows()))
        if self._most is not None:
            frame = frame.head(max(self._most - self._listed, 0))
        self._listed += frame.height
        self._frames.append(frame)


def place(file: str, row: int) -> str:
    """Where a row is, in words."""
    return f"{file}, {'row' if file.lower().endswith('.parquet') else 'line'} {row}"


def _storable(text: str | None) -> str | None:
    """Text without the lone surrogates that UTF-8 cannot hold, cut to what a person reads."""
    return None if text is None else text[:500].encode("utf-8", "backslashreplace").decode()
