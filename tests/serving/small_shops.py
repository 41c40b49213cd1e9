"""A catalogue with codes, but without any trained model: what generations need, in milliseconds."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mini_run import mini_recipe
from utgrec import storage
from utgrec.runs import RunFolder, RunPlan, write_plan
from utgrec.tokenizer.assignment import assign_codes
from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer

ROOT, LEAF, LENGTH = 3, 3, 3


class FakeCoder:
    """States that depend on the words alone; it counts what it encodes."""

    def __init__(self, root: int = ROOT, leaf: int = LEAF) -> None:
        torch.manual_seed(0)
        config = QuantizerConfig(
            kind="vq", root_size=root, leaf_size=leaf, code_length=LENGTH, dim=2, warmup_steps=0
        )
        self.quantizer = TreeQuantizer(config).eval()
        self.encoded: list[str] = []

    def states(self, texts: Sequence[str], pictures: Sequence[Path | None]) -> Tensor:
        """States of n items, (n, L, 2)."""
        self.encoded += texts
        rows = []
        for text, picture in zip(texts, pictures, strict=True):
            content = text.encode() + (b"" if picture is None else picture.read_bytes())
            seed = int.from_bytes(hashlib.sha256(content).digest()[:4], "big")
            generator = torch.Generator().manual_seed(seed)
            rows.append(torch.randn(LENGTH, 2, generator=generator))
        return torch.stack(rows) if rows else torch.zeros(0, LENGTH, 2)


def make_run(folder: Path, names: Sequence[str], coder: FakeCoder | None = None) -> Path:
    """A run folder with the codes of one domain, `shop`, and nothing else."""
    coder = coder or FakeCoder()
    run = RunFolder(folder)
    write_plan(run, RunPlan(mini_recipe(), {"shop": folder / "no domain"}))
    texts = [f"{name}." for name in names]
    made = assign_codes(coder.states(texts, [None] * len(texts)), names, coder.quantizer)
    coder.encoded.clear()
    with storage.new_folder(run.codes("shop")) as out:
        items = {
            "item_id": pa.array(names, pa.string()),
            "title": pa.array(names, pa.string()),
            "text": pa.array(texts, pa.string()),
            "image": pa.nulls(len(names), pa.string()),
            "category": pa.array([["all", name[:1]] for name in names], pa.list_(pa.string())),
            "price": pa.array([float(place) for place in range(len(names))], pa.float64()),
            "stock": pa.array([place % 2 == 0 for place in range(len(names))], pa.bool_()),
            "year": pa.array([1990 + place for place in range(len(names))], pa.int64()),
        }
        pq.write_table(pa.table(items), out / "items.parquet")
        codes = pa.FixedSizeListArray.from_arrays(pa.array(made.codes.ravel()), LENGTH)
        coded = {
            "item_id": names,
            "codes": codes,
            "conflict": made.conflict,
            "distance": made.distance,
        }
        pq.write_table(pa.table(coded), out / "codes.parquet")
        config = coder.quantizer.config
        sizes = [config.root_size, *[config.leaf_size] * (LENGTH - 1)]
        storage.write_manifest(
            out,
            stage="codes",
            config={},
            inputs={"tokenizer": "none"},
            facts={"domain": "shop", "sizes": sizes},
        )
    return folder


def png(path: Path, colour: str = "red") -> bytes:
    """Write a small picture and return its bytes."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)
    return path.read_bytes()


def jsonl(path: Path, items: Sequence[dict[str, object]]) -> Path:
    """Write one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path
