"""A run folder that was never trained: random codes and a random T5, to measure a server with.

How good recommendations are does not matter to their speed; sizes do.
"""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from utgrec import storage
from utgrec.config import to_dict
from utgrec.recipes import tiny
from utgrec.recommender.companions import Companions
from utgrec.recommender.contents import Contents
from utgrec.recommender.networks import create_network
from utgrec.recommender.t5 import T5Sizes
from utgrec.recommender.train import Memory, write_recommender
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.runs import RunFolder, RunPlan, write_plan

DOMAIN = "made"
SIZES = T5Sizes(encoder_layers=4, decoder_layers=4)  # width 128, 4 heads × 64, feed-forward 512


def make_run(folder: Path, items: int, beam: int) -> Path:
    """A run with one domain: codes of sizes 256, 512, 512 for so many items, and a recommender."""
    torch.manual_seed(0)
    base = tiny()
    recipe = dataclasses.replace(
        base,
        recommender=dataclasses.replace(base.recommender, sizes=SIZES),
        decoding=dataclasses.replace(base.decoding, beam=beam),
    )
    run = RunFolder(folder)
    write_plan(run, RunPlan(recipe, {DOMAIN: folder / "no domain"}))
    vocabulary = Vocabulary(root_size=256, leaf_size=512, code_length=3, domains=(DOMAIN,))
    sizes = vocabulary.code_sizes
    numbers = torch.randperm(sizes[0] * sizes[1] * sizes[2])[:items]
    codes = torch.stack(torch.unravel_index(numbers, sizes), dim=1).short()
    ids = [f"I{number:07d}" for number in range(items)]
    with storage.new_folder(run.codes(DOMAIN)) as out:
        table = {
            "item_id": pa.array(ids),
            "title": pa.array([f"Item {number}" for number in range(items)]),
            "text": pa.array([f"Item {number}." for number in range(items)]),
            "image": pa.nulls(items, pa.string()),
            "category": pa.array([[f"c{number % 20}"] for number in range(items)]),
            "price": pa.array([float(number % 100) for number in range(items)]),
        }
        pq.write_table(pa.table(table), out / "items.parquet")
        coded = {
            "item_id": pa.array(ids),
            "codes": pa.FixedSizeListArray.from_arrays(pa.array(codes.flatten().numpy()), 3),
            "conflict": pa.array([False] * items),
            "distance": pa.array([0.0] * items, pa.float32()),
        }
        pq.write_table(pa.table(coded), out / "codes.parquet")
        facts = {"domain": DOMAIN, "sizes": list(sizes)}
        storage.write_manifest(
            out, stage="codes", config={}, inputs={"tokenizer": "none"}, facts=facts
        )
    with storage.new_folder(run.recommender) as out:
        nothing = Memory(Companions.nothing(), Contents.nothing(), {})
        write_recommender(out, create_network(SIZES, vocabulary), vocabulary, nothing)
        storage.write_manifest(
            out, stage="recommender", config=to_dict(recipe.recommender), inputs={}
        )
    return folder
