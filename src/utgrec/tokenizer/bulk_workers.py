"""Who encodes which shard: this process, several processes of this machine, or a Ray cluster.

Every worker opens the tokenizer once and writes whole shards. Nothing else passes between them, so
any number of them, in any order, writes the same files.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utgrec import processes, storage
from utgrec.config import require
from utgrec.errors import MissingDependency
from utgrec.progress import Progress, quiet_transformers, silent
from utgrec.tokenizer.bulk import (
    PLAN,
    STAGE,
    BulkPlan,
    Shard,
    ShardEncoder,
    finish,
    make_plan,
    missing,
    open_output,
)

TITLE = "Encoding items"


class BulkSettings(NamedTuple):
    """How a bulk encoding is done; none of it changes a code."""

    shard_rows: int = 20_000  # items of an output file; a killed run does at most these again
    at_once: int = 1024  # items read and encoded together
    workers: int = 1  # processes, or Ray actors
    ray: bool = False  # whether a Ray cluster does the work
    gpus: float = 0.0  # GPUs of a Ray actor
    backbone: str | None = None  # where the base model is, if it is not where it was
    images: Path | None = None  # where relative picture paths start; None is beside the items


def encode_items(
    tokenizer: Path,
    items: Path,
    out: Path,
    settings: BulkSettings | None = None,
    progress: Progress = silent,
) -> storage.Manifest:
    """Write the nearest codes of all items of a Parquet file or of a folder of them.

    What an interrupted run has finished is kept. Started by `accelerate launch` or `torchrun`, the
    processes divide the shards.

    Raises:
        InputError, BadTable, MissingStage: tokenizer or items cannot be read.
        SettingsMismatch: `out` holds codes of something else.
    """
    settings = settings or BulkSettings()
    require(settings.at_once >= 1, f"at_once must be at least 1, got {settings.at_once}")
    require(settings.workers >= 1, f"workers must be at least 1, got {settings.workers}")
    plan = make_plan(tokenizer, items, settings.shard_rows)._replace(backbone=settings.backbone)
    if processes.is_first():
        open_output(plan, out)
    else:
        processes.wait_for(lambda: (out / PLAN).is_file() or None, str(out / PLAN))
        open_output(plan, out)
    found = storage.find_manifest(out, STAGE)
    if found is not None:
        return found
    for stale in out.glob(".*.partial") if processes.count() == 1 else ():
        stale.unlink(missing_ok=True)  # a killed run left it behind
    left = missing(plan, out)[processes.number() :: processes.count()]
    done = plan.rows - sum(shard.rows for shard in missing(plan, out))
    for shard in _work(plan, left, out, settings):
        done += shard.rows
        progress(TITLE, done, plan.rows)
    if not processes.is_first():
        return processes.wait_for(lambda: storage.find_manifest(out, STAGE), f"the codes in {out}")
    processes.wait_for(lambda: not missing(plan, out) or None, f"all shards in {out}")
    return finish(plan, out)


def _work(
    plan: BulkPlan, shards: list[Shard], out: Path, settings: BulkSettings
) -> Iterator[Shard]:
    """Write shards, and tell of each when it is there."""
    if not shards:
        return
    if settings.ray:
        yield from _in_ray(plan, shards, out, settings)
    elif settings.workers == 1:
        encoder = ShardEncoder(plan, out, settings.images, settings.at_once)
        for shard in shards:
            encoder.encode(shard)
            yield shard
    else:
        yield from _in_processes(plan, shards, out, settings)


_encoder: list[ShardEncoder] = []  # of a worker process, opened once


def _open(plan: BulkPlan, out: Path, settings: BulkSettings, threads: int) -> None:
    torch.set_num_threads(threads)
    quiet_transformers()
    _encoder[:] = [ShardEncoder(plan, out, settings.images, settings.at_once)]


def _encode(shard: Shard) -> Shard:
    _encoder[0].encode(shard)
    return shard


def _in_processes(
    plan: BulkPlan, shards: list[Shard], out: Path, settings: BulkSettings
) -> Iterator[Shard]:
    threads = max(1, torch.get_num_threads() // settings.workers)
    with ProcessPoolExecutor(
        settings.workers,
        # A forked child of a process whose torch has threads may hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open,
        initargs=(plan, out, settings, threads),
    ) as pool:
        waiting = [pool.submit(_encode, shard) for shard in shards]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _in_ray(
    plan: BulkPlan, shards: list[Shard], out: Path, settings: BulkSettings
) -> Iterator[Shard]:
    try:
        import ray
        from ray.data import ActorPoolStrategy
    except ImportError as error:
        raise MissingDependency(
            f"encoding on a Ray cluster needs Ray ({error}); install it with "
            "pip install 'utgrec[ray]', or leave --ray out"
        ) from error
    # Paths are looked up by actors whose working folder is another one.
    base = plan.backbone
    plan = plan._replace(
        backbone=str(Path(base).resolve()) if base and Path(base).exists() else base,
        tokenizer=str(Path(plan.tokenizer).resolve()),
        shards=[shard._replace(source=str(Path(shard.source).resolve())) for shard in plan.shards],
    )
    images = None if settings.images is None else settings.images.resolve()
    arguments = (plan, out.resolve(), images, settings.at_once)
    # A block for each shard from the start: to repartition takes processors that actors hold.
    numbers = ray.data.from_items(
        [{"number": shard.number} for shard in shards], override_num_blocks=len(shards)
    )
    written = numbers.map_batches(
        _ray_actor(),
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ActorPoolStrategy(size=settings.workers),
        num_gpus=settings.gpus or None,
    )
    by_number = {shard.number: shard for shard in shards}
    for row in written.iter_rows():
        yield by_number[int(row["number"])]


def _ray_actor() -> Callable[..., Any]:
    """The class whose copies Ray keeps alive, one tokenizer each."""

    class Actor:
        def __init__(self, plan: BulkPlan, out: Path, images: Path | None, at_once: int) -> None:
            quiet_transformers()
            self.shards = {shard.number: shard for shard in plan.shards}
            self.encoder = ShardEncoder(plan, out, images, at_once)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            for number in batch["number"]:
                self.encoder.encode(self.shards[int(number)])
            return batch

    return Actor
