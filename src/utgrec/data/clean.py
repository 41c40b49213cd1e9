"""Clean whole columns of texts at once: what `utgrec.data.sentence` does to one text, in polars.

Only texts with tags or entities in them go through Python, one by one; all others are cleaned by
a few passes over the column. The results are equal, and a test holds them to it.
"""

import polars as pl

from utgrec.data.sentence import clean_text

# Where there is none of these, no tag is taken out and no entity resolved.
MARKUP = r"<[A-Za-z/!]|&[^\t\n\x0c <&;]"
INVISIBLE = (
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffc\ufffe\uffff\ufdd0-\ufdef]"
)
# Anything that the passes would change, so that most columns take none of them.
UNTIDY = r"^\s|\s$|\s\s|[\t-\r\x00-\x1f\x7f-\u00a0]|[^\x00-\x7f]"


def clean_texts(texts: pl.Series) -> pl.Series:
    """`clean_text` of every value; null stays null."""
    marked = texts.str.contains(MARKUP).fill_null(False)
    if marked.any():
        cleaned = pl.Series([clean_text(text) for text in texts.filter(marked)], dtype=pl.String)
        places = marked.arg_true()
        texts = texts.scatter(places, cleaned)
    untidy = texts.str.contains(UNTIDY).fill_null(False)
    if not untidy.any():
        return texts
    tidied = (
        texts.filter(untidy)
        .str.replace_all(INVISIBLE, "")
        .str.replace_all(r"[\x00-\x1f\x7f-\x9f]", " ")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
    )
    return texts.scatter(untidy.arg_true(), tidied)


def clean_lists(lists: pl.Series) -> pl.Series:
    """`clean_list` of every list of texts; null where nothing is left."""
    flat = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "text": lists}).explode(
        "text", empty_as_null=True
    )
    cleaned = flat.with_columns(clean_texts(flat["text"]).alias("text")).filter(
        pl.col("text").is_not_null() & (pl.col("text") != "")
    )
    kept = (
        cleaned.unique(["row", "text"], keep="first", maintain_order=True)
        .group_by("row", maintain_order=True)
        .agg("text")
    )
    rows = pl.DataFrame({"row": flat["row"].unique(maintain_order=True)})
    return rows.join(kept, on="row", how="left", maintain_order="left")["text"]


def render_sentences(parts: list[pl.Series]) -> pl.Series:
    """`render_sentence` of every row; `parts` are cleaned texts or lists of texts."""
    if not parts:
        return pl.Series([], dtype=pl.String)
    frame = pl.DataFrame(
        {
            str(place): part.list.join(", ") if isinstance(part.dtype, pl.List) else part
            for place, part in enumerate(parts)
        }
    )
    ended = []
    for name in frame.columns:
        stripped = pl.col(name).str.strip_chars().str.strip_chars_end(" .")
        ended.append(pl.when(stripped != "").then(stripped + "."))
    return frame.select(
        pl.concat_str(ended, separator=" ", ignore_nulls=True).fill_null("").alias("text")
    )["text"]
