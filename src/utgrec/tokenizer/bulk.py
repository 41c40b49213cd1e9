"""Codes of millions of items: Parquet in, Parquet out, shard by shard, in bounded memory.

A shard is a range of rows of one input file and becomes one output file, written under a temporary
name and renamed: what a killed run has finished is kept. Codes are an item's nearest codes, from
its contents alone; `utgrec tokenizer assign` makes the codes of a domain unique.

An item's codes do not depend on the items beside it. Floating-point sums do, in their last digits,
so an item that lies nearly half-way between two codes is encoded once more, by itself.

Shapes: N items of a shard · L codes per item · D code dimension · K entries of a codebook.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from utgrec import storage
from utgrec.config import require
from utgrec.errors import BadTable, InputError, SettingsMismatch, StorageError
from utgrec.precision import own_device
from utgrec.tokenizer.cache import RowCache
from utgrec.tokenizer.items import ItemInputs
from utgrec.tokenizer.picture_reading import feature_cache
from utgrec.tokenizer.pretrained import STAGE as TOKENIZER
from utgrec.tokenizer.pretrained import ItemTokenizer
from utgrec.tokenizer.quantizer import TreeQuantizer, squared_distances

log = logging.getLogger(__name__)
STAGE = "encoded"
PLAN = "plan.json"
COLUMNS = ("item_id", "text", "image")
# Items whose states are measured together and alone, to know how much the last digits differ.
PROBE = 16
# Times that difference: nearer to the border of two codes, an item is encoded by itself.
SAFETY = 16.0


class Shard(NamedTuple):
    """Some rows of an input file, and the file that their codes go to."""

    number: int
    source: str  # path of the input file
    first: int  # row of the input file
    rows: int

    @property
    def name(self) -> str:
        """Name of the output file."""
        return f"part-{self.number:06d}.parquet"


class BulkPlan(NamedTuple):
    """What is to be encoded with what."""

    tokenizer: str  # folder
    fingerprint: str  # of the tokenizer
    shards: list[Shard]
    inputs: dict[str, str]  # input file → what identifies its content
    backbone: str | None = None  # where the base model is, if not where it was

    @property
    def rows(self) -> int:
        """Items in all shards."""
        return sum(shard.rows for shard in self.shards)


def make_plan(tokenizer: Path, items: Path, shard_rows: int = 20_000) -> BulkPlan:
    """Cut the items of a Parquet file, or of all Parquet files of a folder, into shards.

    Raises:
        InputError: there are no such files.
        BadTable: a file is no Parquet file, or a column is missing.
        MissingStage: there is no tokenizer.
    """
    require(shard_rows >= 1, f"a shard holds at least 1 item, got {shard_rows}")
    fingerprint = storage.read_manifest(tokenizer, TOKENIZER).fingerprint
    sources = sorted(items.glob("**/*.parquet")) if items.is_dir() else [items]
    if not sources or not all(source.is_file() for source in sources):
        raise InputError(f"{items} is no Parquet file and no folder of them; check the path")
    shards: list[Shard] = []
    inputs: dict[str, str] = {}
    for source in sources:
        try:
            with pq.ParquetFile(source) as file:
                names, rows = file.schema_arrow.names, file.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            raise BadTable(
                f"{source} cannot be read as Parquet ({error}); write it again, or leave it out"
            ) from error
        missing = [name for name in COLUMNS[:2] if name not in names]
        if missing:
            raise BadTable(
                f"{source} has no column {' and no column '.join(missing)} (it has "
                f"{', '.join(names)}); rename or add it: item_id and text are read, image if there"
            )
        inputs[str(source)] = _mark(source)
        shards += [
            Shard(len(shards) + place, str(source), first, min(shard_rows, rows - first))
            for place, first in enumerate(range(0, rows, shard_rows))
        ]
    return BulkPlan(str(tokenizer), fingerprint, shards, inputs)


def open_output(plan: BulkPlan, out: Path) -> None:
    """Make the output folder, or check that what is in it belongs to the plan.

    Raises:
        SettingsMismatch: it holds codes of other items, of another tokenizer or in other shards.
        InputError: it holds something else.
    """
    values: dict[str, Any] = {
        "tokenizer": plan.fingerprint,
        "inputs": plan.inputs,
        "shards": [list(shard) for shard in plan.shards],
    }
    path = out / PLAN
    if path.is_file():
        found = storage.read_json(path)
        if differs := [name for name, value in values.items() if found.get(name) != value]:
            raise SettingsMismatch(
                f"{out} holds codes made from other {' and '.join(differs)}; choose another output "
                "folder, or remove this one to make it anew"
            )
        return
    if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise InputError(
            f"{out} is not empty and holds no codes ({PLAN} is missing); choose a new folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    storage.write_json(path, values)


class ShardEncoder:
    """Writes the codes of one shard after the other."""

    def __init__(self, plan: BulkPlan, out: Path, images: Path | None, at_once: int) -> None:
        """`at_once` items are read together; `images` is where relative picture paths start."""
        self.tokenizer = ItemTokenizer.from_pretrained(
            plan.tokenizer, backbone=plan.backbone, device=own_device()
        )
        self.out = out
        self.images = images
        self.at_once = at_once
        self._slack: float | None = None
        self._kept = self._find_kept()

    def encode(self, shard: Shard) -> Path:
        """Write a shard, unless it is there."""
        path = self.out / shard.name
        if path.is_file():
            return path
        pieces = [self._piece(table, shard) for table in read_rows(shard, self.at_once)]
        with storage.new_file(path) as partial:
            pq.write_table(pa.concat_tables(pieces), partial, compression="zstd")
        return path

    def _find_kept(self) -> RowCache | None:
        """Picture features that trainings have kept; millions more would not fit beside them."""
        if self.tokenizer.cache is None:
            return None
        try:
            return feature_cache(self.tokenizer.model.backbone, self.tokenizer.cache)
        except StorageError as error:
            log.warning("picture features are all computed: %s", error)
            return None

    def _piece(self, table: pa.Table, shard: Shard) -> pa.Table:
        texts = [text or "" for text in table.column("text").to_pylist()]
        folder = self.images or Path(shard.source).parent
        given = (
            table.column("image").to_pylist()
            if "image" in table.column_names
            else [None] * len(texts)
        )
        problems: list[str | None] = [None if text else "no text" for text in texts]
        pictures: list[Path | None] = []
        for row, name in enumerate(given):
            path = None if not name else inside(folder, name)
            if name and path is None:
                problems[row] = f"picture {name!r} is no path inside {folder}"
            pictures.append(path)
        items = self.tokenizer.read(texts, pictures, kept=self._kept)
        for row in items.unreadable:
            problems[row] = f"picture {given[row]!r} cannot be read"
        codes, distance = self._codes(items)
        flat = pa.array(codes.astype(np.int16).ravel(), pa.int16())
        return pa.table(
            {
                "item_id": table.column("item_id").cast(pa.string()).combine_chunks(),
                "codes": pa.FixedSizeListArray.from_arrays(flat, codes.shape[1]),
                "distance": pa.array(distance.astype(np.float32)),
                "problem": pa.array(problems, pa.string()),
            }
        )

    def _codes(self, items: ItemInputs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        quantizer = self.tokenizer.model.quantizer
        states = self.tokenizer.states(items)  # (N, L, D)
        if self._slack is None:
            self._slack = self._measure(items, states)
        device = self.tokenizer.model.queries.device
        unsure = margins(quantizer, states.to(device)).cpu() < self._slack
        for row in np.flatnonzero(unsure.numpy()).tolist():
            states[row] = self._alone(items, row)
        with torch.no_grad():
            codes = quantizer.nearest(states.to(device))
            rebuilt = quantizer.embed(codes).cumsum(dim=1).cpu()
        distance = (states - rebuilt).double().square().sum(dim=(1, 2))
        return codes.cpu().numpy(), distance.numpy()

    def _alone(self, items: ItemInputs, row: int) -> Tensor:
        """The states of an item that is encoded by itself: (L, D)."""
        return self.tokenizer.states(items, rows=np.array([row]))[row]

    def _measure(self, items: ItemInputs, states: Tensor) -> float:
        """By how much states may differ for the company that items are encoded in."""
        alone = [self._alone(items, row) for row in range(min(PROBE, len(items)))]
        gaps = (torch.stack(alone) - states[: len(alone)]).square().sum(dim=-1).sqrt()
        return SAFETY * max(float(gaps.max()), 1e-5)


def margins(quantizer: TreeQuantizer, states: Tensor) -> Tensor:
    """How far every item is from having another code somewhere: (N, L, D) → (N,).

    At each position that is the distance to the plane half-way between the two nearest codes.
    """
    least = states.new_full((len(states),), torch.inf)
    rebuilt = torch.zeros_like(states[:, 0])
    with torch.no_grad():
        for place in range(states.shape[1]):
            vectors = (quantizer.leaf if place else quantizer.root).vectors.float()
            near = squared_distances(states[:, place] - rebuilt, vectors).topk(2, largest=False)
            first, second = vectors[near.indices[:, 0]], vectors[near.indices[:, 1]]
            apart = (first - second).square().sum(dim=-1).sqrt().clamp(min=1e-12)
            least = least.minimum((near.values[:, 1] - near.values[:, 0]) / (2 * apart))
            rebuilt = rebuilt + first
    return least


def read_rows(shard: Shard, at_once: int) -> Iterator[pa.Table]:
    """The rows of a shard, a few at a time, from the row groups that hold them alone."""
    passed = 0
    last = shard.first + shard.rows
    with pq.ParquetFile(shard.source) as file:
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if passed + size > shard.first and passed < last:
                at = passed
                for batch in file.iter_batches(at_once, row_groups=[group], columns=names):
                    low, high = max(shard.first - at, 0), min(last - at, len(batch))
                    if low < high:
                        yield pa.Table.from_batches([batch.slice(low, high - low)])
                    at += len(batch)
            passed += size


def finish(plan: BulkPlan, out: Path) -> storage.Manifest:
    """Once all shards are there: count them, list what went wrong, and write the manifest."""
    schema = pa.schema({"item_id": pa.string(), "problem": pa.string(), "shard": pa.string()})
    kinds = {"no text": 0, "picture": 0}
    with (
        storage.new_file(out / "problems.parquet") as problems,
        pq.ParquetWriter(problems, schema) as writer,
    ):
        for shard in plan.shards:
            table = pq.read_table(out / shard.name, columns=["item_id", "problem"])
            told = table.filter(pc.is_valid(table.column("problem")))
            for problem in told.column("problem").to_pylist():
                kinds["picture" if problem.startswith("picture") else "no text"] += 1
            names = pa.array([shard.name] * len(told), pa.string())
            writer.write_table(told.append_column("shard", names).cast(schema))
    facts = {
        "items": plan.rows,
        "shards": len(plan.shards),
        "pictures_not_read": kinds["picture"],
        "items_without_text": kinds["no text"],
    }
    inputs = {"tokenizer": plan.fingerprint, **plan.inputs}
    return storage.write_manifest(out, stage=STAGE, config={}, inputs=inputs, facts=facts)


def inside(folder: Path, name: str) -> Path | None:
    """A picture's path, or None if it leads out of the folder or is none at all."""
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a null byte; links that go in a circle
        return None
    return path if path.is_relative_to(folder.resolve()) else None


def missing(plan: BulkPlan, out: Path) -> list[Shard]:
    """The shards that are not there yet."""
    return [shard for shard in plan.shards if not (out / shard.name).is_file()]


def _mark(source: Path) -> str:
    """Identifies a file by its size and its last bytes, where Parquet lists all pieces of it."""
    size = source.stat().st_size
    with open(source, "rb") as stream:
        stream.seek(max(0, size - 65_536))
        return f"{size}-{hashlib.sha256(stream.read()).hexdigest()}"
