"""Ids that a person would take for one: equal but for case and white space."""

from typing import Any

import polars as pl

EXAMPLES = 3


def count_look_alikes(ids: pl.Series) -> dict[str, Any]:
    """How many of n different ids have a look-alike, and some of them."""
    given = pl.DataFrame({"id": ids})
    shape = pl.col("id").str.to_lowercase().str.replace_all(r"\s+", "")
    groups = (
        given.group_by(shape.alias("shape"))
        .agg(pl.col("id").sort(), pl.len().alias("ids"))
        .filter(pl.col("ids") > 1)
        .sort("shape")
    )
    examples = [group[:2] for group in groups["id"].head(EXAMPLES).to_list()]
    return {"ids": int(groups["ids"].sum()), "examples": examples}
