"""A domain that is already there: reuse it if it was made from the same, else refuse or replace."""

from pathlib import Path
from typing import Any

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST
from utgrec.errors import SettingsMismatch, StorageError


def finished_domain(sources: list[Path], out: Path, overwrite: bool) -> storage.Manifest | None:
    """The domain that is already at `out` and may be reused; None if there is nothing to reuse.

    Raises:
        StorageError: `out` is something else, or holds a source.
    """
    for source in sources:
        if source.resolve().is_relative_to(out.resolve()):
            raise StorageError(
                f"{out} holds the source {source}; write the domain to another folder"
            )
    if not out.exists():
        return None
    if not out.is_dir() or (any(out.iterdir()) and not (out / DOMAIN_MANIFEST).exists()):
        raise StorageError(f"{out} exists and is no domain folder; choose another one for --out")
    return None if overwrite else storage.find_manifest(out, "domain", DOMAIN_MANIFEST)


def require_equal(
    out: Path,
    finished: storage.Manifest,
    config: dict[str, Any],
    inputs: dict[str, str],
    earlier: dict[str, Any] | None = None,
) -> None:
    """A finished domain is only reused for the settings and the input it was made from.

    `earlier` holds the defaults of all settings: one that did not exist when the domain was made
    had the value that it has by default.

    Raises:
        SettingsMismatch: something differs; the message names it.
    """
    made_with = {**(earlier or {}), **finished.config}
    changed = [f"setting {key}" for key in config if made_with.get(key) != config[key]]
    changed += [f"input {key}" for key in inputs if finished.inputs.get(key) != inputs[key]]
    if changed:
        raise SettingsMismatch(
            f"{out} was made otherwise ({', '.join(changed)} differ); "
            "choose another --out, or replace it with --overwrite (options.overwrite)"
        )
