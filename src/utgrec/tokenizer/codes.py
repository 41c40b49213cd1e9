"""The codes stage: a tokenizer and a domain in, a table of unique codes and its report out.

The folder also keeps the items' table, so that recommendations can be named without the domain.

Shapes: N items · L codes per item.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import Catalog, Domain
from utgrec.config import to_dict
from utgrec.data.neighbours import find_neighbours
from utgrec.data.split import Split, split_domain, split_words
from utgrec.precision import own_device
from utgrec.progress import Progress, silent
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.assignment import Assignment, assign_codes
from utgrec.tokenizer.pretrained import STAGE as TOKENIZER
from utgrec.tokenizer.pretrained import ItemTokenizer
from utgrec.tokenizer.report import report_codes

STAGE = "codes"


class CodedCatalog(NamedTuple):
    """A catalogue and the codes of its items."""

    catalog: Catalog
    codes: npt.NDArray[np.int16]  # (N, L)
    domain: str  # name of the domain
    fingerprint: str  # identifies the content of the stage


def assign_domain(
    tokenizer: Path,
    domain: Domain,
    out: Path,
    progress: Progress = silent,
    *,
    backbone: str | None = None,
) -> storage.Manifest:
    """Encode every item of a domain, give each unique codes, and report on them.

    Args:
        backbone: where the tokenizer's base model is, if it is not where it was.
    """
    made_by = storage.read_manifest(tokenizer, TOKENIZER)
    inputs = {"tokenizer": made_by.fingerprint, f"domain {domain.name}": domain.fingerprint}

    def make(work: Workspace) -> StageResult:
        item_tokenizer = ItemTokenizer.from_pretrained(
            tokenizer, backbone=backbone, device=own_device()
        )
        catalog = domain.catalog
        split = split_domain(domain)
        items = item_tokenizer.read(catalog.texts, catalog.images, progress)
        states = item_tokenizer.states(item_tokenizer.add_company(items, split), progress)
        quantizer = item_tokenizer.model.quantizer.cpu()  # where states are
        assignment = assign_codes(states, catalog.item_ids, quantizer)
        return write_codes(work.folder, domain, split, assignment, quantizer.config.code_sizes)

    return run_stage(out, stage=STAGE, config={}, inputs=inputs, make=make)


def write_codes(
    folder: Path,
    domain: Domain,
    split: Split,
    assignment: Assignment,
    sizes: tuple[int, ...],
) -> StageResult:
    """Write a domain's codes, its items and the report; `sizes` (L,) are entries per position."""
    report = report_codes(assignment, find_neighbours(split, len(domain.catalog)), sizes)
    pq.write_table(_table(domain.catalog, assignment), folder / "codes.parquet")
    pq.write_table(domain.catalog.table, folder / "items.parquet", compression="zstd")
    measured = {**to_dict(report), "agreement_lift": report.agreement_lift}
    storage.write_json(folder / "report.json", measured)
    return StageResult(
        {"domain": domain.name, **split_words(domain), "sizes": list(sizes), **measured}
    )


def read_codes(folder: Path, images: Path | None = None) -> CodedCatalog:
    """Open a codes stage; `images` is the domain folder, where relative picture paths start.

    Raises:
        MissingStage, FormatVersionError, CorruptFile: the folder cannot be used.
    """
    manifest = storage.read_manifest(folder, STAGE)
    table = pq.read_table(storage.check_file(folder, manifest, "codes.parquet"))
    items = pq.read_table(storage.check_file(folder, manifest, "items.parquet"))
    column = table.column("codes").combine_chunks()
    codes = column.flatten().to_numpy().reshape(len(column), -1)
    return CodedCatalog(
        Catalog(items, images), codes, manifest.facts["domain"], manifest.fingerprint
    )


def _table(catalog: Catalog, assignment: Assignment) -> pa.Table:
    length = assignment.codes.shape[1]
    flat = pa.array(assignment.codes.ravel(), pa.int16())
    return pa.table(
        {
            "item_id": catalog.item_ids,
            "codes": pa.FixedSizeListArray.from_arrays(flat, length),
            "conflict": assignment.conflict,
            "distance": assignment.distance,
        }
    )
