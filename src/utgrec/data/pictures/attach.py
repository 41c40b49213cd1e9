"""Put fetched pictures into a domain: a new folder beside it, complete, then swapped with it.

Files that stay are linked, not copied. `config` and `inputs` of the manifest stay those of the
preparation, so that preparing again still knows its own work; `files`, and with them the domain's
fingerprint, become those of the new content.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST
from utgrec.data.derived import link
from utgrec.data.pictures.outcomes import TEMPORARY, Result
from utgrec.errors import SettingsMismatch

OUTCOMES = "image_outcomes.parquet"
REWRITTEN = ("items.parquet", OUTCOMES, DOMAIN_MANIFEST)


def outcomes_table(
    item_ids: Sequence[str], urls: Sequence[str | None], results: Sequence[Result]
) -> pa.Table:
    """A row for every item: what became of its picture."""
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "item_id": (pa.string(), list(item_ids)),
        "url": (pa.string(), list(urls)),
        "outcome": (pa.string(), [result.outcome for result in results]),
        "temporary": (pa.bool_(), [result.outcome in TEMPORARY for result in results]),
        "detail": (pa.string(), [result.detail for result in results]),
        "final_url": (pa.string(), [result.final_url for result in results]),
        "sha256": (pa.string(), [result.digest for result in results]),
        "bytes": (pa.int64(), [result.size for result in results]),
        "width": (pa.int32(), [result.width for result in results]),
        "height": (pa.int32(), [result.height for result in results]),
        "source_format": (pa.string(), [result.source_format for result in results]),
        "source_width": (pa.int32(), [result.source_width for result in results]),
        "source_height": (pa.int32(), [result.source_height for result in results]),
        "source_bytes": (pa.int64(), [result.source_size for result in results]),
    }
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})


def read_outcomes(folder: Path, manifest: storage.Manifest) -> tuple[dict[str, Result], set[str]]:
    """Results by address, and the ids of items whose picture was fetched; empty before any run."""
    if OUTCOMES not in manifest.files:
        return {}, set()
    rows = pq.read_table(storage.check_file(folder, manifest, OUTCOMES)).to_pylist()
    known = {
        row["url"]: Result(
            outcome=row["outcome"],
            detail=row["detail"],
            final_url=row["final_url"],
            digest=row["sha256"],
            size=row["bytes"],
            width=row["width"],
            height=row["height"],
            source_format=row["source_format"],
            source_width=row["source_width"],
            source_height=row["source_height"],
            source_size=row["source_bytes"],
        )
        for row in rows
        if row["url"] is not None
    }
    return known, {row["item_id"] for row in rows if row["sha256"]}


def attach(
    folder: Path,
    manifest: storage.Manifest,
    *,
    images: Sequence[str | None],
    table: pa.Table,
    fetched: Path,
    facts: dict[str, Any],
    measured: Mapping[str, float],
) -> storage.Manifest:
    """Replace the domain `folder` by itself with these pictures.

    Args:
        images: the picture of every item, a path relative to the domain.
        table: what became of every item's address.
        fetched: folder that holds the pictures that the domain does not hold yet.

    Raises:
        SettingsMismatch: the domain is not the one that `manifest` describes any more.
    """
    if storage.read_manifest(folder, "domain", DOMAIN_MANIFEST) != manifest:
        raise SettingsMismatch(
            f"{folder} was changed while its pictures were fetched; run the same command again"
        )
    items = pq.read_table(storage.check_file(folder, manifest, "items.parquet"))
    place = items.column_names.index("image")
    items = items.set_column(place, "image", pa.array(images, pa.string()))
    wanted = {image for image in images if image is not None}
    hashes = {
        name: digest
        for name, digest in manifest.files.items()
        if name not in REWRITTEN and (not name.startswith("images/") or name in wanted)
    }
    with storage.new_folder(folder) as new:
        for name in hashes:
            link(_newer(fetched / name, folder / name), new / name)
        for image in sorted(wanted - set(hashes)):
            link(fetched / image, new / image)
            hashes[image] = Path(image).stem
        pq.write_table(items, new / "items.parquet", compression="zstd")
        pq.write_table(table, new / OUTCOMES, compression="zstd")
        counts = {
            **manifest.facts["counts"],
            "items_with_image": len(images) - list(images).count(None),
        }
        outcomes = Counter(table.column("outcome").to_pylist())
        changed = storage.write_manifest(
            new,
            stage="domain",
            config=manifest.config,
            inputs=manifest.inputs,
            facts={
                **manifest.facts,
                "counts": counts,
                "images": {**facts, "outcomes": dict(sorted(outcomes.items()))},
            },
            measured={**manifest.measured, **measured},
            name=DOMAIN_MANIFEST,
            known={name: digest for name, digest in hashes.items() if name.startswith("images/")},
        )
        _keep_extras(folder, new)
    return changed


def _newer(fetched: Path, there: Path) -> Path:
    """A picture that was fetched again because the one that is there was damaged."""
    return fetched if fetched.is_file() else there


def _keep_extras(old: Path, new: Path) -> None:
    """What others keep in a domain folder and its manifest does not name, such as oracle/."""
    for extra in old.iterdir():
        if extra.name.startswith(".") or extra.name == "images" or (new / extra.name).exists():
            continue
        if extra.is_dir():
            shutil.copytree(extra, new / extra.name, copy_function=link_as_copy)
        else:
            link(extra, new / extra.name)


def link_as_copy(source: str, target: str) -> str:
    """`link` in the form that `shutil.copytree` calls."""
    link(Path(source), Path(target))
    return target
