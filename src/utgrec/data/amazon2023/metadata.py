"""Lines of metadata to items: only those that are kept are cleaned and held.

The sentence is the paper's: title, features, categories, description. The brand ("store"), the
categories, the price, the main category and the address of the main picture become attributes.
Ratings are left out: they sum up reviews that a model must not see.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from utgrec.data.amazon2023.parts import Part
from utgrec.data.blocks import Block
from utgrec.data.clean import clean_lists, clean_texts, render_sentences
from utgrec.data.cleaning.texts import MARKUP
from utgrec.data.images import is_url
from utgrec.data.lines import LINE, JsonLines, Rows
from utgrec.data.rejects import SCHEMA
from utgrec.data.table_parts import column_names
from utgrec.data.values import read_price
from utgrec.errors import BadTable

TEXTS = ("title", "store", "main_category")
LISTS = ("features", "categories", "description")
SIZES = ("large", "hi_res", "thumb")
LIST = pl.List(pl.String)
PICTURE = pl.Struct(dict.fromkeys((*SIZES, "variant"), pl.String))
COLUMNS = pl.Schema(
    [
        ("parent_asin", pl.String),
        *((name, pl.String) for name in TEXTS),
        *((name, LIST) for name in LISTS),
        ("price", pl.String),
        ("images", pl.List(PICTURE)),
    ]
)
LAYOUT = JsonLines(COLUMNS, ("parent_asin",))
# Most items are not kept: finding that out takes a seventh of the time of reading them.
ONLY_IDS = JsonLines(pl.Schema({"parent_asin": pl.String}), ("parent_asin",))
ITEM_SCHEMA = pl.Schema(
    [
        ("item_id", pl.String),
        ("title", pl.String),
        ("text", pl.String),
        ("brand", pl.String),
        ("category", LIST),
        ("price", pl.Float64),
        ("main_category", pl.String),
        ("image_url", pl.String),
        ("unreadable_price", pl.Boolean),
        ("odd_image", pl.Boolean),
        ("markup", pl.Boolean),
    ]
)
NO_PRICE = frozenset({"", "none", "null", "nan", "—", "-"})
SENTENCE = ("title", "features", "categories", "description")


def check_columns(path: Path) -> None:
    """Whether a file looks like metadata.

    Raises:
        BadTable: it has no parent_asin, or is no table.
    """
    seen = column_names(path)
    if "parent_asin" not in seen:
        raise BadTable(
            f"{path.name} has no column parent_asin; its columns are {', '.join(seen) or 'none'}. "
            "Is it a file of metadata of Amazon Reviews 2023 (meta_….jsonl)?"
        )


def read_metadata(block: Block, kept: pl.Series, file: str) -> Part:
    """The items of a block whose id is in `kept`, and the lines that cannot be used.

    The rows have the columns of ITEM_SCHEMA and "line".
    """
    rows = Rows(block, ONLY_IDS, file)
    named = rows.mend(rows.frame, ["parent_asin"])
    nameless = named.filter(pl.col("parent_asin").str.strip_chars().fill_null("") == "")
    lines = named.filter(pl.col("parent_asin").is_in(kept.implode()))[LINE]
    chosen = rows.reread(lines, LAYOUT)
    frame = chosen.mend(chosen.frame, ["parent_asin", *TEXTS, *LISTS])
    odd_price = pl.col("price").str.contains(r"^(?:true|false|\[.*|\{.*)$").fill_null(False)
    unnamed = pl.all_horizontal(pl.element().struct.field(size).is_null() for size in SIZES)
    images = pl.col("images")
    odd_image = images.is_null() | images.list.eval(unnamed).list.any()
    frame = chosen.read_again(frame, odd_price | odd_image)
    frame = frame.with_columns(lines.gather(frame[LINE] - 1))
    entries = [
        {"file": file, "row": line, "reason": reason, "detail": detail}
        for line, reason, detail in rows.bad
    ]
    for line in nameless[LINE]:
        shown = rows.unusable.get((line, "parent_asin"), "")
        detail = f"{shown} cannot be an id" if shown else ""
        entries.append({"file": file, "row": line, "reason": "missing item id", "detail": detail})
    rejected = pl.DataFrame(entries, schema=SCHEMA).sort("row", maintain_order=True)
    return Part(_items(frame), rejected, block.lines)


def _items(frame: pl.DataFrame) -> pl.DataFrame:
    """Cleaned columns of kept items."""
    texts = {name: _none_if_empty(clean_texts(frame[name])) for name in TEXTS}
    lists = {name: clean_lists(frame[name]) for name in LISTS}
    # A description is a list of paragraphs: joined by ", " like every list.
    parts = [texts[name] if name in texts else lists[name] for name in SENTENCE]
    given = frame["price"].str.strip_chars()
    given = given.set(given.str.to_lowercase().is_in(list(NO_PRICE)).fill_null(False), None)
    prices = _prices(given)
    pictures = _main_pictures(frame)
    addresses = pl.Series([url is not None and is_url(url) for url in pictures], dtype=pl.Boolean)
    return pl.DataFrame(
        {
            "item_id": frame["parent_asin"],
            "title": texts["title"],
            "text": render_sentences(parts),
            "brand": texts["store"],
            "category": lists["categories"],
            "price": prices,
            "main_category": texts["main_category"],
            "image_url": pictures.set(~addresses, None),
            "unreadable_price": given.is_not_null() & prices.is_null(),
            "odd_image": pictures.is_not_null() & ~addresses,
            "markup": frame.select(pl.any_horizontal(*map(_words, SENTENCE)))[:, 0],
            LINE: frame[LINE],
        },
        schema={**ITEM_SCHEMA, LINE: pl.Int64},
    )


def _words(name: str) -> pl.Expr:
    """Whether a column of words holds HTML."""
    column = pl.col(name) if name in TEXTS else pl.col(name).list.join(" ", ignore_nulls=True)
    return column.str.contains(MARKUP).fill_null(False).alias(name)


def _none_if_empty(texts: pl.Series) -> pl.Series:
    return texts.set((texts == "").fill_null(False), None)


def _prices(raw: pl.Series) -> pl.Series:
    """Numbers as they are; "from 14.99" and the like by `read_price`; never negative."""
    plain = raw.str.contains(r"^[0-9]+(\.[0-9]+)?$").fill_null(False)
    prices = raw.set(~plain, None).cast(pl.Float64)
    odd = (~plain & raw.is_not_null()).arg_true()
    read = [read_price(text) for text in raw.gather(odd)]
    return prices.scatter(odd, pl.Series(read, dtype=pl.Float64))


def _main_pictures(frame: pl.DataFrame) -> pl.Series:
    """The address of the MAIN variant's picture, else of the first; in its usual size."""
    entry = pl.element().struct
    with_address = pl.coalesce(
        *(
            pl.when(entry.field(size).str.strip_chars() != "").then(entry.field(size))
            for size in SIZES
        )
    )
    # One address for each picture, with a mark before those of the main one.
    is_main = (entry.field("variant") == "MAIN").fill_null(False)
    listed = frame.select(
        every=pl.col("images").list.eval(with_address).list.drop_nulls(),
        main=pl.col("images").list.eval(pl.when(is_main).then(with_address)).list.drop_nulls(),
    )
    first = pl.coalesce(pl.col("main").list.first(), pl.col("every").list.first()).str.strip_chars()
    return listed.select(url=first)["url"]


def facts_of(items: pl.DataFrame, kept: pl.Series) -> dict[str, Any]:
    """What the manifest of a domain records about its items; `items` are the ones found."""
    return {
        "sentence": list(SENTENCE),
        "attributes": ["brand", "category", "price", "main_category", "image_url"],
        "without_metadata": len(kept) - items.height,
        "with_image_url": items.height - items["image_url"].null_count(),
        "images_without_address": int(items["odd_image"].sum()),
        "unreadable_prices": int(items["unreadable_price"].sum()),
        "texts_with_markup": int(items["markup"].sum()),
    }


def items_table(items: pl.DataFrame, kept: pl.Series) -> pa.Table:
    """The items table of a domain: one row for every kept id, in its order."""
    rows = pl.DataFrame({"item_id": kept}).join(
        items, on="item_id", how="left", maintain_order="left"
    )
    table = rows.select(
        "item_id",
        "title",
        pl.col("text").fill_null(""),
        pl.lit(None, dtype=pl.String).alias("image"),
        *("brand", "category", "price", "main_category", "image_url"),
    ).to_arrow(compat_level=pl.CompatLevel.oldest())
    return _plain_types(table)


def _plain_types(table: pa.Table) -> pa.Table:
    """The types that other sources write: string rather than large_string."""
    kinds = {
        pa.large_string(): pa.string(),
        pa.large_list(pa.large_string()): pa.list_(pa.string()),
    }
    return table.cast(
        pa.schema([(field.name, kinds.get(field.type, field.type)) for field in table.schema])
    )
