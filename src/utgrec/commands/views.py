"""What a person reads on stdout: tables, each made from the values that --json prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from utgrec.console import clock_text

Values = Mapping[str, Any]
TOO_MANY_CONFLICTS = 0.5  # share of items that a tokenizer could not tell from others


def comparison_table(domain: str, compared: Values) -> Table:
    """The systems of one domain side by side, from its comparison.json."""
    rows = compared["rows"]
    depth = max(rows[0]["coverage"], key=int)
    with_oracle = any(row["oracle_share"] is not None for row in rows)
    names = [name for name in ("recall@10", "ndcg@10") if name in rows[0]["metrics"]]
    seen = "left out" if compared["exclude_seen"] else "kept"
    table = _table(
        f"{domain}, {compared['part']}: {compared['users']:,} users, "
        f"{compared['items']:,} items, seen items {seen}",
        ["system", *names, f"coverage@{depth}", *(["of oracle"] if with_oracle else [])],
    )
    for row in rows:
        cells = [row["system"], *(_with_interval(row["metrics"][name]) for name in names)]
        cells.append(f"{row['coverage'][depth]:.1%}")
        if with_oracle:
            share = row["oracle_share"]
            cells.append("" if share is None else f"{share['value']:.1%}")
        table.add_row(*(Text(cell) for cell in cells))
    notes = [f"Split: {compared['split']}."] if "split" in compared else []
    notes.append("± is half of the 95 % interval over users.")
    notes += (
        ["The oracle is the best that anybody can do in this simulation."] if with_oracle else []
    )
    table.caption = Text(" ".join([*notes, *_test_against_best(compared)]))
    table.caption_justify = "left"
    return table


def codes_table(facts: Values) -> Table:
    """The report on the codes of one domain."""
    table = _pairs(f"codes of {facts['domain']}")
    levels = facts["levels"]
    agreement = zip(facts["neighbour_agreement"], facts["chance_agreement"], strict=True)
    lines = {
        "items": f"{facts['items']:,}, each with its own {len(levels)} codes",
        "conflicts": f"{facts['conflict_rate']:.1%} of the items shared their nearest codes; "
        f"{facts['moved_rate']:.1%} were moved",
        **{
            f"code {place}": f"{level['used']:.0%} of {level['size']} entries used, "
            f"perplexity {level['perplexity']:.0f}, Gini {level['gini']:.2f}"
            for place, level in enumerate(levels, start=1)
        },
        **{
            f"co-taken items, {place} equal": f"{share:.2%} (by chance {chance:.2%})"
            for place, (share, chance) in enumerate(agreement, start=1)
        },
    }
    for name, text in lines.items():
        table.add_row(name, text)
    return table


def codes_warning(facts: Values) -> str | None:
    """A sentence if the codes of a domain say little about its items; None if they are fine."""
    if facts["conflict_rate"] <= TOO_MANY_CONFLICTS:
        return None
    return (
        f"warning: {facts['conflict_rate']:.0%} of the items of {facts['domain']} shared their "
        "nearest codes with another item, so the codes say little about them; train the "
        "tokenizer for more steps, or look at its losses.jsonl"
    )


def stages_table(stages: Mapping[str, Values]) -> Table:
    """What each stage took and gave. `stages` is path → {"facts", "measured"}."""
    table = _table("stages", ["stage", "time", "memory", "facts"], right=("time", "memory"))
    for path, stage in stages.items():
        measured = stage["measured"]
        table.add_row(
            path,
            clock_text(measured["wall_s"]),
            f"{measured['peak_memory_mib']:,.0f} MiB",
            Text(_short(stage["facts"])),
        )
    return table


def facts_table(title: str, facts: Values) -> Table:
    """Names and values, one per row."""
    table = _pairs(title)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(_show(value)))
    return table


def prepared_table(facts: Values) -> Table:
    """What came out of a preparation, and what was left out and why."""
    table = _pairs(f"domain {facts['name']}")
    read, counts = facts["read"], facts["counts"]
    removed = {name: n for name, n in facts["filter"].items() if name.endswith("_removed") and n}
    lines = {
        "read": f"{read['items']:,} items, {read['interactions']:,} interactions",
        "rejected": _listed(facts["rejected"], "no row"),
        f"removed by {facts['filter']['k_core']}-core": _listed(removed, "nothing"),
        **_notes(facts),
        "left": f"{counts['items']:,} items, {counts['users']:,} users, "
        f"{counts['interactions']:,} interactions",
        "with words": f"{counts['items_with_text']:,} items",
        "with a picture": f"{counts['items_with_image']:,} items",
    }
    for name, text in lines.items():
        table.add_row(name, Text(text))
    return table


def _notes(facts: Values) -> dict[str, str]:
    """What a preparation found that may not be meant, and what was chosen."""
    notes = {}
    if "events" in facts:
        events = facts["events"]
        notes["events that do not count"] = f"{events['left_out']:,}"
    alike = {name: found["ids"] for name, found in facts.get("look_alike_ids", {}).items()}
    if any(alike.values()):
        shown = ", ".join(f"{count:,} {name}" for name, count in alike.items() if count)
        notes["ids alike but for case or space"] = shown
    if facts.get("split", {}).get("kind", "leave-one-out") != "leave-one-out":
        notes["split"] = facts["split"]["words"]
    return notes


def recommendations_table(title: str, found: Sequence[Values]) -> Table:
    """Recommended items, best first."""
    table = _table(title, ["", "item", "title", "category", "score"], right=("", "score"))
    for place, row in enumerate(found, start=1):
        category = row["attributes"].get("category") or row["attributes"].get("categories")
        cells = [str(place), row["item_id"], row["title"], _show(category or "")]
        table.add_row(*(Text(cell) for cell in cells), f"{row['score']:.3f}")
    table.caption = "score: log-probability of the item"
    table.caption_justify = "left"
    return table


def domains_table(title: str, rows: Sequence[Values]) -> Table:
    """Domain folders and their counts."""
    table = _table(title, ["domain", "items", "users", "interactions", "folder"], right=())
    for row in rows:
        counts = (f"{row['counts'][name]:,}" for name in ("items", "users", "interactions"))
        table.add_row(Text(row["name"]), *counts, Text(row["folder"]))
    return table


def _table(title: str, header: Sequence[str], right: Sequence[str] | None = None) -> Table:
    """All columns but the first are figures on the right, unless `right` names those."""
    table = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(header):
        figures = place > 0 if right is None else name in right
        table.add_column(Text(name), justify="right" if figures else "left", overflow="fold")
    return table


def _pairs(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", show_header=False)


def _with_interval(interval: Values) -> str:
    return f"{interval['value']:.4f} ± {(interval['high'] - interval['low']) / 2:.4f}"


def _test_against_best(compared: Values) -> list[str]:
    """One sentence: the tested system against the best of the others."""
    metric = compared["metric"]
    tested = [row for row in compared["rows"] if row["reference_minus_system"] is not None]
    if not tested:
        return []
    best = max(tested, key=lambda row: float(row["metrics"][metric]["value"]))
    test = best["reference_minus_system"]
    difference = test["difference"]
    return [
        f"{compared['reference']} − {best['system']}: {difference['value']:+.4f} {metric} "
        f"({difference['low']:+.4f} to {difference['high']:+.4f}), p {test['p_corrected']:.4f}."
    ]


def _short(facts: Values) -> str:
    """The facts that fit on a line."""
    plain = {k: v for k, v in facts.items() if isinstance(v, (int, float)) and v is not True}
    return ", ".join(f"{name.replace('_', ' ')} {_show(v)}" for name, v in plain.items())


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_show(entry) for entry in value) or "none"
    return str(value)


def _listed(counts: Values, none: str) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {n:,}" for name, n in counts.items()) or none
