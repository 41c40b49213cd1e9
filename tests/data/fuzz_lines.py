"""Random bytes for the readers of lines, guided by coverage: an error of ours, or right values.

python tests/data/fuzz_lines.py -runs=20000
"""

import sys

import atheris

with atheris.instrument_imports(include=["utgrec.data"]):
    import polars as pl

    from utgrec.data.amazon2023 import metadata, reviews
    from utgrec.data.blocks import Block
    from utgrec.data.lines import CsvLines, JsonLines
    from utgrec.errors import UTGRecError

KEPT = pl.Series(["B1", "B2"])
JSON = JsonLines(reviews.COLUMNS, reviews.IDS)
CSV = CsvLines(("user_id", "parent_asin", "rating", "timestamp"), reviews.COLUMNS, reviews.IDS)


def one(data: bytes) -> None:
    """Read the bytes as reviews, as CSV and as metadata."""
    data = data or b"\n"
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    block = Block(1, data, lines, False, not data.endswith(b"\n"))
    for read in (
        lambda: reviews.read_reviews(block, JSON, "x"),
        lambda: reviews.read_reviews(block, CSV, "x"),
        lambda: metadata.read_metadata(block, KEPT, "x"),
    ):
        try:
            part = read()
        except UTGRecError:
            continue
        assert part.lines == lines
        assert part.rows.height + part.rejected.height <= lines


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
