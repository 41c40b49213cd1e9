"""`utgrec images`: fetch the pictures that items name, and put them into the domain.

What is known from earlier runs (the domain's table of outcomes, the journal of an interrupted run)
is not fetched again. The domain itself is touched once, at the end, as a whole.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST
from utgrec.data.pictures.addresses import choose_address, read_target
from utgrec.data.pictures.attach import OUTCOMES, attach, outcomes_table, read_outcomes
from utgrec.data.pictures.crawl import Crawl, Pace
from utgrec.data.pictures.decoders import Decoders
from utgrec.data.pictures.hosts import Job
from utgrec.data.pictures.journal import Workspace, open_workspace, writing
from utgrec.data.pictures.network import Edge
from utgrec.data.pictures.options import ImageOptions
from utgrec.data.pictures.outcomes import LOCAL, NO_ADDRESS, STORED, Result
from utgrec.errors import BadTable, SettingsMismatch
from utgrec.progress import Progress, silent

WORK = "fetch pictures"
TELL_EVERY_S = 0.25
SPARE_FILES = 128  # of the system's limit, for all that is no connection


class Wanted(NamedTuple):
    """What a domain asks for."""

    item_ids: list[str]  # (N,)
    urls: list[str | None]  # (N,), as the items name them
    images: list[str | None]  # (N,), the pictures that are there
    local: list[bool]  # (N,), whether that picture came with the domain


def fetch_images(
    folder: Path,
    options: ImageOptions | None = None,
    progress: Progress | None = None,
    *,
    edge: Edge | None = None,
) -> storage.Manifest:
    """Fetch the pictures of a domain's items; run again to continue or to repair.

    Returns:
        The domain's manifest, with what became of the pictures in `facts["images"]`. The one that
        was there if there was nothing to do.

    Raises:
        MissingStage: no domain there.
        BadTable: the items have no column with addresses.
        SettingsMismatch: pictures of another size are there, or the domain changed meanwhile.
        StorageError: the disk is full, or another process fetches for the same domain.
    """
    folder, options, tell = Path(folder), options or ImageOptions(), progress or silent
    storage.recover(folder)
    manifest = storage.read_manifest(folder, "domain", DOMAIN_MANIFEST)
    _require_same_size(folder, manifest, options)
    with open_workspace(folder) as workspace:
        storage.tidy(folder)
        known, fetched = ({}, set[str]()) if options.refetch else read_outcomes(folder, manifest)
        wanted = _read_wanted(folder, manifest, options, fetched)
        if options.refetch:
            workspace.clear()
        with writing(workspace.folder):
            known = {**_still_there(folder, known), **workspace.start(options.max_side)}
        urls = [u for u, here in zip(wanted.urls, wanted.local, strict=True) if u and not here]
        to_do = [
            url
            for url in dict.fromkeys(urls)
            if url not in known or options.tries_again(known[url].outcome)
        ]
        if not to_do and OUTCOMES in manifest.files and not _is_stale(wanted, known):
            workspace.remove()
            return manifest
        started = time.monotonic()
        pace = _crawl(to_do, known, workspace, options, tell, edge or Edge())
        took = time.monotonic() - started
        results = [_result(wanted, place, known) for place in range(len(wanted.item_ids))]
        tell("put pictures into the domain", 0, 1)
        with writing(folder.parent):
            changed = attach(
                folder,
                manifest,
                images=[
                    image if here else result.path
                    for image, here, result in zip(
                        wanted.images, wanted.local, results, strict=True
                    )
                ],
                table=outcomes_table(wanted.item_ids, wanted.urls, results),
                fetched=workspace.folder,
                facts={
                    "column": options.column,
                    "max_side": options.max_side,
                    "max_bytes": options.max_bytes,
                    "max_pixels": options.max_pixels,
                },
                measured={
                    "images_asked": len(to_do),
                    "images_stored": pace.stored,
                    "images_bytes": pace.bytes,
                    "images_wall_s": round(took, 3),
                },
            )
        tell("put pictures into the domain", 1, 1)
        workspace.remove()
        return changed


def _crawl(
    urls: Sequence[str],
    known: dict[str, Result],
    workspace: Workspace,
    options: ImageOptions,
    tell: Progress,
    edge: Edge,
) -> Pace:
    """Fetch `urls`; every result goes to the journal and to `known`."""
    pace, spoke, done = Pace(), 0.0, 0

    def record(url: str, result: Result) -> None:
        nonlocal spoke, done
        workspace.note(url, result)
        known[url] = result
        pace.add(result)
        done += 1
        now = time.monotonic()
        if now - spoke >= TELL_EVERY_S or done == len(urls):
            spoke = now
            tell(WORK, done, len(urls), pace.note())

    jobs = []
    for url in urls:
        target = read_target(url)
        if isinstance(target, Result):
            record(url, target)
        else:
            jobs.append(Job(url, target, 1))
    if jobs:
        asyncio.run(_fetch(jobs, record, workspace, options, edge))
    return pace


async def _fetch(
    jobs: list[Job], record: Any, workspace: Workspace, options: ImageOptions, edge: Edge
) -> None:
    with (
        Decoders(
            workspace.folder,
            workers=options.workers,
            max_pixels=options.max_pixels,
            max_side=options.max_side,
        ) as decoders,
        _open_files(min(options.connections, len(jobs))) as connections,
    ):
        options = dataclasses.replace(options, connections=connections)
        await Crawl(options, decoders, workspace.spool, record, edge).run(jobs)


def _read_wanted(
    folder: Path, manifest: storage.Manifest, options: ImageOptions, fetched: set[str]
) -> Wanted:
    path = storage.check_file(folder, manifest, "items.parquet")
    names = pq.read_schema(path).names
    if options.column not in names:
        raise BadTable(
            f"the items of {folder} have no column {options.column!r} with addresses of pictures; "
            f"they have {', '.join(names)}; name another one with --column"
        )
    table = pq.read_table(path, columns=["item_id", "image", options.column])
    ids, images = table.column("item_id").to_pylist(), table.column("image").to_pylist()
    local = [i is not None and item not in fetched for i, item in zip(images, ids, strict=True)]
    if options.refetch:  # what an earlier run stored says so in its table
        _, before = read_outcomes(folder, manifest)
        local = [here and item not in before for here, item in zip(local, ids, strict=True)]
    urls = [choose_address(value) for value in table.column(options.column).to_pylist()]
    return Wanted(ids, urls, images, local)


def _still_there(folder: Path, known: dict[str, Result]) -> dict[str, Result]:
    """Without stored pictures whose file is gone or has another length."""

    def is_there(result: Result) -> bool:
        if result.path is None:
            return result.outcome != STORED
        path = folder / result.path
        return path.is_file() and path.stat().st_size == result.size

    return {url: result for url, result in known.items() if is_there(result)}


def _is_stale(wanted: Wanted, known: dict[str, Result]) -> bool:
    """Whether the domain shows anything else than what is known."""
    return any(
        not here and image != (known[url].path if url else None)
        for url, image, here in zip(wanted.urls, wanted.images, wanted.local, strict=True)
    )


def _result(wanted: Wanted, place: int, known: dict[str, Result]) -> Result:
    if wanted.local[place]:
        return Result(LOCAL)
    url = wanted.urls[place]
    return Result(NO_ADDRESS) if url is None else known[url]


def _require_same_size(folder: Path, manifest: storage.Manifest, options: ImageOptions) -> None:
    before = manifest.facts.get("images", {}).get("max_side", options.max_side)
    if before != options.max_side and not options.refetch:
        raise SettingsMismatch(
            f"{folder} holds pictures of at most {before} pixels, {options.max_side} are asked; "
            f"give --max-side {before}, or fetch all of them anew with --refetch"
        )


@contextlib.contextmanager
def _open_files(connections: int) -> Iterator[int]:
    """Let this process have so many connections, for the block; as many as the system allows."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield connections
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    try:
        yield max(1, min(connections, allowed - SPARE_FILES))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
