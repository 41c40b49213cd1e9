"""Finished runs in seconds: the tokenizer and its codes are made up, all later stages are real."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import Catalog, Domain, write_domain
from utgrec.config import to_dict
from utgrec.data.neighbours import find_neighbours
from utgrec.data.split import leave_one_out
from utgrec.evaluation.generative import DecodingConfig, ValidationConfig, make_validator
from utgrec.recipes import Recipe, tiny
from utgrec.recommender.t5 import T5Sizes
from utgrec.recommender.train import train_recommender
from utgrec.runs import RunFolder, RunPlan, evaluate_run_domain, write_plan
from utgrec.tokenizer.assignment import Assignment
from utgrec.tokenizer.report import report_codes

SIZES = (8, 16, 16)
HOSTILE = (
    "<script>alert('title')</script>",
    '"><img src="http://evil.example/x.png" onerror="alert(1)">',
    "</style></svg></title><iframe src=//evil.example></iframe>",
    "{{ 7 * 191 }} {% raw %} ]]> --> &amp;",
    "Tea 🫖 für Zwölf – \u202eright to left\u202c",
    "long " * 1000,
    "",
)


def mini_recipe(*, steps: int = 8, validate_every: int = 4) -> Recipe:
    """The tiny recipe with a recommender that trains in a second."""
    base = tiny()
    tokenizer = dataclasses.replace(
        base.tokenizer,
        quantizer=dataclasses.replace(
            base.tokenizer.quantizer, root_size=SIZES[0], leaf_size=SIZES[1], warmup_steps=20
        ),
    )
    recommender = dataclasses.replace(
        base.recommender,
        sizes=T5Sizes(
            width=16, feed_forward=32, heads=2, head_width=8, encoder_layers=1, decoder_layers=1
        ),
        trainer=dataclasses.replace(
            base.recommender.trainer, steps=steps, log_every=2, validate_every=validate_every
        ),
        batch_size=32,
    )
    return dataclasses.replace(
        base,
        name="mini",
        tokenizer=tokenizer,
        recommender=recommender,
        validation=ValidationConfig(users=20, beam=5),
        decoding=DecodingConfig(beam=20, precision="fp32"),
    )


def write_hostile_domain(folder: Path, *, items: int = 40, users: int = 60) -> Path:
    """A domain without pictures and oracle, with ids and titles made to break a page."""
    rng = np.random.default_rng(3)
    titles = [*HOSTILE, *(f"Item {number}" for number in range(items - len(HOSTILE)))]
    ids = [f"""id-{number}"'<b>&""" for number in range(items)]
    table = pa.table(
        {
            "item_id": ids,
            "title": titles,
            "text": titles,
            "image": pa.array([None] * items, pa.string()),
        }
    )
    lengths = rng.integers(4, 14, users)
    taken = [rng.choice(items, length, replace=False) for length in lengths]
    interactions = pa.table(
        {
            "user": pa.array(np.repeat(np.arange(users), lengths), pa.int32()),
            "item": pa.array(np.concatenate(taken), pa.int32()),
            "timestamp": pa.array(np.concatenate([np.arange(n) for n in lengths]), pa.int64()),
        }
    )
    with storage.new_folder(folder) as partial:
        write_domain(
            partial,
            name=folder.name,
            items=table,
            user_ids=[f"user <{number}>" for number in range(users)],
            interactions=interactions,
            config={},
            inputs={},
            facts={"source": "<i>made up</i>", "time": {"real": False}},
        )
    return folder


def fabricate_run(
    out: Path, folders: Sequence[Path], recipe: Recipe, *, with_losses: bool = True
) -> Path:
    """A finished run on some domains."""
    folder = RunFolder(out)
    domains = [Domain.open(path) for path in folders]
    write_plan(
        folder, RunPlan(recipe, {d.name: path for d, path in zip(domains, folders, strict=True)})
    )
    tokenizer = _write_tokenizer(folder.tokenizer, recipe, with_losses)
    for domain in domains:
        _write_codes(folder.codes(domain.name), domain, tokenizer)
    train_recommender(
        domains,
        [folder.codes(domain.name) for domain in domains],
        recipe.recommender,
        folder.recommender,
        validator=make_validator(recipe.validation, max_items=20, exclude_seen=True),
    )
    for domain in domains:
        evaluate_run_domain(folder, recipe, domain)
    return out


def _write_tokenizer(folder: Path, recipe: Recipe, with_losses: bool) -> storage.Manifest:
    names = ("loss", "text", "image", "code", "alignment", "unheard_of <loss>")
    with storage.new_folder(folder) as partial:
        if with_losses:
            rows = [
                {"kind": "loss", "step": step, **{name: 9 / step + len(name) for name in names}}
                for step in range(10, 101, 10)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            storage.write_text(partial / "losses.jsonl", text)
        return storage.write_manifest(
            partial,
            stage="tokenizer",
            config=to_dict(recipe.tokenizer),
            inputs={},
            facts={"steps": 100, "epochs": 2.5, "parameters_trained": 1234567},
            measured={"wall_s": 3700.0, "peak_memory_mib": 512.0},
        )


def _write_codes(folder: Path, domain: Domain, tokenizer: storage.Manifest) -> None:
    """Items of one kind of title get one root; the other codes count up, so all are unique."""
    roots = _kinds(domain.catalog) % SIZES[0]
    codes = np.zeros((len(domain.catalog), len(SIZES)), dtype=np.int16)
    codes[:, 0] = roots
    for root in range(SIZES[0]):
        members = np.flatnonzero(roots == root)
        codes[members, 1], codes[members, 2] = np.divmod(np.arange(len(members)), SIZES[2])
    nearest = codes.copy()
    nearest[:, 2] //= 2
    moved = (nearest != codes).any(axis=1)
    distance = np.ones(len(codes), dtype=np.float32)
    report = report_codes(
        Assignment(codes, nearest, moved, distance),
        find_neighbours(leave_one_out(domain), len(codes)),
        SIZES,
    )
    table = pa.table(
        {
            "item_id": domain.catalog.item_ids,
            "codes": pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), len(SIZES)),
            "conflict": moved,
            "distance": distance,
        }
    )
    with storage.new_folder(folder) as partial:
        pq.write_table(table, partial / "codes.parquet")
        pq.write_table(domain.catalog.table, partial / "items.parquet")
        storage.write_manifest(
            partial,
            stage="codes",
            config={},
            inputs={
                "tokenizer": tokenizer.fingerprint,
                f"domain {domain.name}": domain.fingerprint,
            },
            facts={
                "domain": domain.name,
                "sizes": list(SIZES),
                **to_dict(report),
                "agreement_lift": report.agreement_lift,
            },
        )


def _kinds(catalog: Catalog) -> np.ndarray:
    """A number per item that is equal for like titles: their last word's letters, added up."""
    words = [(title.split() or ["x"])[-1] for title in catalog.titles]
    return np.array([sum(map(ord, word)) for word in words])
