"""Domains made from another domain: find the one that is there already, share its pictures."""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST, Domain
from utgrec.errors import SettingsMismatch, StorageError


def find_derived(
    source: Path, out: Path, config: dict[str, Any], inputs: dict[str, str]
) -> storage.Manifest | None:
    """The derived domain that is already at `out`; None if there is none."""
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


def link_pictures(domain: Domain, folder: Path) -> None:
    """The catalogue's picture files under the same relative names."""
    names = {name for name in domain.catalog.table.column("image").to_pylist() if name}
    for name in sorted(names):
        relative = PurePosixPath(name)
        if relative.is_absolute() or domain.folder is None:
            continue  # it is found from anywhere
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(domain.folder / relative, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(domain.folder / relative, target)
