"""Write what `utgrec export` needs: separated text, typed fields, TOML."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utgrec.catalog import Domain
from utgrec.errors import InputError

Columns = dict[str, list[str]]

LONGEST = 131_072  # characters of a field that readers of CSV take
NO_BREAK = "\u00a0"


def plain_name(name: str) -> str:
    """A domain's name as a file name."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "domain"


def check_names(names: Iterable[str]) -> None:
    """Refuse columns that a header line cannot name.

    Raises:
        InputError: names the column.
    """
    for name in names:
        if name != name.strip() or not name or re.search(r"[\r\n\x00]", name):
            raise InputError(
                f"the attribute {name!r} cannot stand in a header line; export as parquet, or "
                "prepare the domain without it (--skip-column)"
            )


def text_of(value: Any, kind: str) -> str:
    """One value as a field; nothing for none."""
    if value is None:
        return ""
    if kind == "list":
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)  # reads back as the same number
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return str(value)


def sequence_field(name: str, value: Sequence[str] | None) -> str:
    """A list as entries between spaces; a space within an entry becomes a no-break space.

    Raises:
        InputError: an entry that would not come back.
    """
    for entry in value or ():
        if not entry or NO_BREAK in entry:
            raise InputError(
                f"the entry {entry!r} of {name!r} cannot stand in a token_seq; export as csv or "
                "parquet"
            )
    return " ".join(entry.replace(" ", NO_BREAK) for entry in value or ())


def write_separated(path: Path, separator: str, columns: Columns) -> None:
    """A table with a header line.

    Raises:
        InputError: a field that is longer than readers take.
    """
    for name, values in columns.items():
        longest = max(map(len, values), default=0)
        if longest >= LONGEST:
            raise InputError(
                f"a value of {name!r} has {longest:,} characters, text tables take {LONGEST:,}; "
                "export as parquet"
            )
    with open(path, "w", encoding="utf-8", newline="") as stream:
        # A line end of two characters makes the writer quote fields that hold either of them.
        writer = csv.writer(stream, delimiter=separator, lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def mapping_of(domain: Domain, **files: Any) -> dict[str, Any]:
    """The settings that make the same domain from its export again."""
    facts = domain.manifest.facts if domain.manifest is not None else {}
    split: dict[str, Any] = {"kind": domain.split.kind}
    if domain.split.kind == "global-time":
        split |= {"valid_from": f"ms:{domain.split.valid_from}"}
        split |= {"test_from": f"ms:{domain.split.test_from}"}
    return {
        "name": domain.name,
        "source": str(facts.get("source", "")),
        "licence": str(facts.get("licence", "")),
        "k_core": 1,
        "keep_untaken_items": True,
        "exact": True,
        **files,
        "split": split,
    }


def toml_of(settings: Mapping[str, Any]) -> str:
    """Settings as TOML: plain values first, then tables."""
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    lines = ["# How `utgrec prepare` makes this domain again."]
    lines += [f"{_key(key)} = {_toml(value)}" for key, value in plain.items()]
    for name, table in settings.items():
        if isinstance(table, dict) and table:
            lines += ["", f"[{_key(name)}]"]
            lines += [f"{_key(key)} = {_toml(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        # JSON's escapes are TOML's; JSON leaves the control character DEL as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
