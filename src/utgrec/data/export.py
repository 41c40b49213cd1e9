"""Write a domain for other programs: CSV, Parquet, RecBole's atomic files, the authors' folder.

Every export holds `utgrec.toml`, a mapping with which `utgrec prepare` makes the same domain again.
What a format cannot say is left out and stated: the authors' folder has neither titles nor times.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import CORE_COLUMNS, Domain
from utgrec.config import require
from utgrec.data.columns import EVENT_ROLES
from utgrec.data.derived import link_pictures
from utgrec.data.export_authors import write_authors
from utgrec.data.export_files import (
    Columns,
    check_names,
    mapping_of,
    plain_name,
    sequence_field,
    text_of,
    toml_of,
    write_separated,
)
from utgrec.data.options import MAPPING
from utgrec.errors import InputError
from utgrec.stages import StageResult, Workspace, run_stage

Format = Literal["csv", "parquet", "recbole", "authors"]
STAGE = "export"

ATOMIC = {"bool": "token", "int": "float", "float": "float", "text": "token", "list": "token_seq"}


def export_domain(
    domain_folder: Path,
    out: Path,
    form: Format,
    *,
    sem_ids: Mapping[str, Sequence[int]] | None = None,
    codes: str = "",
) -> storage.Manifest:
    """Write a domain folder in another format; a finished export is left as it is.

    Args:
        sem_ids: item id → token numbers, written as NAME.sem_ids.
        codes: identifies what `sem_ids` were made from, for the manifest.

    Raises:
        BadConfig: no such format.
        InputError: something that the format cannot hold.
        SettingsMismatch: `out` holds an export of something else.
    """
    known = get_args(Format)
    require(form in known, f"format {form!r} is unknown; it is one of {', '.join(known)}")
    domain = Domain.open(domain_folder)
    inputs = {f"domain {domain.name}": domain.fingerprint}
    inputs |= {"codes": codes} if sem_ids is not None else {}

    def make(work: Workspace) -> StageResult:
        folder = work.folder
        if form == "authors":
            left_out = write_authors(domain, folder)
        else:
            left_out = _write_tables(domain, Path(domain_folder), folder, form)
        if sem_ids is not None:
            storage.write_text(
                folder / f"{plain_name(domain.name)}.sem_ids",
                json.dumps({item: list(codes) for item, codes in sem_ids.items()}),
            )
        return StageResult(
            {
                "domain": domain.name,
                "format": form,
                "users": domain.user_count,
                "items": len(domain.catalog),
                "interactions": domain.interaction_count,
                "left_out": left_out,
                "sem_ids": sem_ids is not None,
                "split": domain.split.words,
            }
        )

    return run_stage(out, stage=STAGE, config={"format": form}, inputs=inputs, make=make)


def attribute_types(table: pa.Table) -> dict[str, str]:
    """Attribute → its type in a mapping.

    Raises:
        InputError: a type that domains do not have.
    """
    tests = {
        "bool": pa.types.is_boolean,
        "int": pa.types.is_integer,
        "float": pa.types.is_floating,
        "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "list": lambda kind: pa.types.is_list(kind) and pa.types.is_string(kind.value_type),
    }
    types = {}
    for field in table.schema:
        if field.name in CORE_COLUMNS:
            continue
        fitting = [name for name, test in tests.items() if test(field.type)]
        if not fitting:
            raise InputError(
                f"the attribute {field.name!r} has the type {field.type}, which exports do not know"
                f" (they know {', '.join(tests)}); prepare the domain without it (--skip-column)"
            )
        types[field.name] = fitting[0]
    return types


def _write_tables(domain: Domain, source: Path, folder: Path, form: Format) -> list[str]:
    """Items and interactions as two tables, and the pictures; what the format leaves out."""
    link_pictures(domain, folder)
    items = domain.catalog.table
    types = attribute_types(items)
    log = _log_table(domain, source)
    extra = log.column_names[3:]
    real = (domain.manifest.facts if domain.manifest else {}).get("time", {}).get("real", True)
    settings = mapping_of(
        domain,
        time_unit="ms" if real else "position",
        columns={
            "user": "user_id",
            "item": "item_id",
            "timestamp": "timestamp",
            **{name: name for name in extra},
        },
        exact_types=types,
    )
    if form == "parquet":
        pq.write_table(items, folder / "items.parquet", compression="zstd")
        pq.write_table(log, folder / "interactions.parquet", compression="zstd")
    else:
        kinds = {**dict.fromkeys(CORE_COLUMNS, "text"), **types}
        check_names(kinds)
        name = plain_name(domain.name)
        if form == "csv":
            write_separated(folder / "items.csv", ",", _fields(items, kinds))
            write_separated(folder / "interactions.csv", ",", _fields(log, {}))
        else:
            _write_atomic(folder / name, items, log, kinds)
            settings |= {"items_file": f"{name}.item", "interactions_file": f"{name}.inter"}
    storage.write_text(folder / MAPPING, toml_of(settings))
    idle = int((np.diff(domain.offsets) == 0).sum())
    return [f"{idle} users without interactions"] if idle else []


def _log_table(domain: Domain, source: Path) -> pa.Table:
    """The interactions with ids in place of numbers, and further columns as they are."""
    stored = pq.read_table(source / "interactions.parquet")
    users = pa.array(domain.user_ids, pa.string()).take(stored.column("user").combine_chunks())
    items = domain.catalog.table.column("item_id").take(stored.column("item"))
    table = pa.table({"user_id": users, "item_id": items, "timestamp": stored.column("timestamp")})
    for name in [name for name in stored.column_names if name in EVENT_ROLES]:
        table = table.append_column(name, stored.column(name))
    return table


def _fields(table: pa.Table, kinds: Mapping[str, str]) -> Columns:
    return {
        name: [text_of(value, kinds.get(name, "")) for value in table.column(name).to_pylist()]
        for name in table.column_names
    }


def _write_atomic(path: Path, items: pa.Table, log: pa.Table, kinds: Mapping[str, str]) -> None:
    """NAME.inter and NAME.item."""
    fields: Columns = {}
    for name in items.column_names:
        values = items.column(name).to_pylist()
        prose = name in ("title", "text")
        header = f"{name}:{'token_seq' if prose else ATOMIC[kinds[name]]}"
        listed = kinds[name] == "list"
        fields[header] = [
            sequence_field(name, value) if listed else text_of(value, kinds[name])
            for value in values
        ]
    write_separated(path.with_name(f"{path.name}.item"), "\t", fields)
    types = {"timestamp": "float", "weight": "float"}
    plain = _fields(log, {})
    write_separated(
        path.with_name(f"{path.name}.inter"),
        "\t",
        {f"{name}:{types.get(name, 'token')}": values for name, values in plain.items()},
    )
