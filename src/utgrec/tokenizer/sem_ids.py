"""Codes as `*.sem_ids` files, the authors' form: item id → token numbers.

Their token numbers have the offset of the codebook added: 0 for the root, the root's size for every
leaf position, since leaves share one codebook (0, 256, 256 in the paper). Codes here are counted
within their own codebook.

Shapes: N items · L codes per item.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import require
from utgrec.data.split import split_domain
from utgrec.errors import InputError, SettingsMismatch
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.assignment import Assignment
from utgrec.tokenizer.codes import STAGE, read_codes, write_codes

PAPER_SIZES = (256, 512, 512)


def sem_ids_of(codes: Path, domain: Domain) -> dict[str, list[int]]:
    """Token numbers of a domain's items from a codes stage.

    Raises:
        MissingStage, CorruptFile: the stage cannot be used.
        SettingsMismatch: the codes are of another domain.
    """
    manifest = storage.read_manifest(codes, STAGE)
    if manifest.inputs.get(f"domain {domain.name}") != domain.fingerprint:
        raise SettingsMismatch(
            f"{codes} holds codes of another domain ({manifest.facts.get('domain')}) than "
            f"{domain.name} or of another version of it; assign codes to this one"
        )
    found = read_codes(codes)
    tokens = found.codes.astype(np.int64) + _offsets(manifest.facts["sizes"])  # (N, L)
    return dict(zip(found.catalog.item_ids, tokens.tolist(), strict=True))


def import_sem_ids(
    path: Path, domain: Domain, out: Path, sizes: Sequence[int] = PAPER_SIZES
) -> storage.Manifest:
    """Make a codes stage for a domain from a sem_ids file, for a recommender to learn.

    Args:
        sizes: entries of the codebook of each position, (L,).

    Raises:
        InputError: no such file, items without codes, codes outside their codebooks, or items that
            share theirs.
        SettingsMismatch: `out` was made from other things.
    """
    require(
        len(sizes) > 0 and min(sizes) > 0 and len(set(sizes[1:])) <= 1 and max(sizes) <= 2**15,
        f"code sizes are a root and equal leaves, 1 to 32,768 entries each, got {tuple(sizes)}",
    )
    codes = read_sem_ids(path, domain.catalog.item_ids, sizes)
    inputs = {f"domain {domain.name}": domain.fingerprint, "sem_ids": storage.hash_file(path)}

    def make(work: Workspace) -> StageResult:
        count = len(codes)
        zeros = np.zeros(count, dtype=np.float32)
        assignment = Assignment(codes, codes, np.zeros(count, dtype=np.bool_), zeros)
        return write_codes(work.folder, domain, split_domain(domain), assignment, tuple(sizes))

    return run_stage(out, stage=STAGE, config={"sizes": list(sizes)}, inputs=inputs, make=make)


def read_sem_ids(
    path: Path, item_ids: Sequence[str], sizes: Sequence[int]
) -> npt.NDArray[np.int16]:
    """The codes of given items from a file. Shapes: → (N, L).

    Raises:
        InputError: as `import_sem_ids`.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; give a *.sem_ids file")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is not valid JSON in UTF-8 ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path.name} is a JSON {type(found).__name__}, not item id → numbers")
    missing = [item for item in item_ids if item not in found]
    if missing:
        raise InputError(
            f"{path.name} has no codes for {len(missing)} of {len(item_ids)} items, {missing[0]!r} "
            "first; every item needs codes"
        )
    rows = [found[item] for item in item_ids]
    for item, row in zip(item_ids, rows, strict=True):
        whole = isinstance(row, list) and all(type(token) is int for token in row)
        if not whole or len(row) != len(sizes):
            raise InputError(
                f"{path.name}: the codes of {item!r} are {row!r}, not {len(sizes)} numbers; "
                "check the code sizes"
            )
    try:
        codes = np.array(rows, dtype=np.int64).reshape(-1, len(sizes)) - _offsets(sizes)  # (N, L)
    except OverflowError as error:
        raise InputError(f"{path.name} has a number that is no code ({error})") from error
    wrong = ((codes < 0) | (codes >= np.array(sizes))).any(axis=1)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"{path.name}: the codes of {item_ids[first]!r} are {rows[first]}, outside codebooks "
            f"of {', '.join(map(str, sizes))} entries with the offsets "
            f"{', '.join(map(str, _offsets(sizes).tolist()))}; give their sizes"
        )
    shared = len(codes) - len(np.unique(codes, axis=0))
    if shared:
        raise InputError(
            f"{path.name}: {shared} of {len(codes)} items have codes that another one has too; a "
            "recommender cannot tell them apart: assign codes with a tokenizer instead"
        )
    return codes.astype(np.int16)


def _offsets(sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    """What is added to the codes of each position, (L,)."""
    return np.array([0] + [sizes[0]] * (len(sizes) - 1), dtype=np.int64)
