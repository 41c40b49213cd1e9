"""What domains that are made from another domain share: reuse of finished work, linked pictures."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST, Domain
from utgrec.config import require
from utgrec.errors import SettingsMismatch, StorageError

if TYPE_CHECKING:
    import polars as pl


def find_derived(
    source: Path, out: Path, config: dict[str, Any], inputs: dict[str, str]
) -> storage.Manifest | None:
    """The derived domain that is already at `out`; None if there is none.

    Raises:
        SettingsMismatch: `out` was made with other settings or from another domain.
        StorageError: `out` holds something else, or is the domain itself.
    """
    if source.resolve() == out.resolve():
        raise StorageError(f"{out} is the domain itself; write the derived one to another folder")
    found = storage.find_manifest(out, "domain", DOMAIN_MANIFEST)
    if found is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise StorageError(f"{out} exists and is no domain folder; choose another folder")
        return None
    if found.config != config or found.inputs != inputs:
        raise SettingsMismatch(
            f"{out} was derived otherwise (from {', '.join(found.inputs)}, {found.config}; asked "
            f"for {', '.join(inputs)}, {config}); choose another folder, or remove this one"
        )
    return found


def derived_from(domain: Domain) -> dict[str, str]:
    """The inputs of a domain that is derived from this one: it, and all that it comes from."""
    inputs = {} if domain.manifest is None else domain.manifest.inputs
    # Versions of a shop may have one name, so earlier ones are told apart by their fingerprints.
    earlier = {
        f"domain {mark[:16]}": mark for name, mark in inputs.items() if name.startswith("domain ")
    }
    return {f"domain {domain.name}": domain.fingerprint, **earlier}


def sources(domain: Domain) -> set[str]:
    """Fingerprints of the domains that a domain was derived from, one from the other; empty for an
    original one."""
    inputs = {} if domain.manifest is None else domain.manifest.inputs
    return {mark for name, mark in inputs.items() if name.startswith("domain ")}


def check_unrelated(domains: Sequence[Domain]) -> None:
    """Refuse to learn together what holds the same log twice.

    What one version of a shop holds out, such as cold items, is training in the other.

    Raises:
        BadConfig: names two domains of which one is derived from the other, or both from a third.
    """
    owners: dict[str, str] = {}
    for domain in domains:
        for mark in {domain.fingerprint, *sources(domain)}:
            other = owners.setdefault(mark, domain.name)
            require(
                other == domain.name,
                f"{other} and {domain.name} are made from the same log, so what one of them holds "
                "out is training in the other; learn them apart, or leave one of them out",
            )


def link_pictures(domain: Domain, folder: Path, names: Iterable[str | None] | None = None) -> None:
    """The catalogue's picture files, or some of them, under the same relative names."""
    names = domain.catalog.table.column("image").to_pylist() if names is None else names
    for name in sorted({name for name in names if name}):
        relative = PurePosixPath(name)
        if relative.is_absolute() or domain.folder is None:
            continue  # it is found from anywhere
        link(domain.folder / relative, folder / relative)


def link(source: Path, target: Path) -> None:
    """The same file at another place; a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def further_columns(domain_folder: Path, rows: npt.NDArray[np.int64]) -> "pl.DataFrame":
    """The columns of a log beside user, item and time, for some of its rows (n,)."""
    import polars as pl

    stored = pq.read_table(domain_folder / "interactions.parquet")
    further = stored.column_names[3:]
    return pl.DataFrame(pl.from_arrow(stored.select(further)))[rows] if further else pl.DataFrame()
