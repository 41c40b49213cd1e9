"""TIGER's codes as a codes stage, which the project's recommender reads like its own.

Collisions are resolved as TIGER does, by a further code that counts the items of equal codes, and
not by the project's assignment: that one moves items to free leaves by their distance to the
codebook, which is a part of what UTGRec adds.

Shapes: N items · L codes per item, the last one numbers collisions.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utgrec.catalog import Ints
from utgrec.config import fingerprint, require
from utgrec.data.split import split_domain
from utgrec.errors import InputError
from utgrec.evaluation.baselines.family import FitInput
from utgrec.evaluation.baselines.residual_codes import Codes, number_collisions
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.assignment import Assignment
from utgrec.tokenizer.codes import STAGE, write_codes


class UniqueCodes(NamedTuple):
    """Codes of a catalogue, laid out for the recommender."""

    assignment: Assignment  # (N, L)
    sizes: tuple[int, ...]  # (L,), entries of each position


def write_tiger_codes(
    out: Path,
    given: FitInput,
    config: dict[str, Any],
    size: int,
    quantize: Callable[[Ints, Path], Codes],
) -> None:
    """Write the codes stage of a domain, unless it is there.

    Args:
        config: everything that the codes are made from, as JSON values.
        size: entries of each codebook.
        quantize: called with the items that occur in training and a folder for checkpoints; codes
            of all items, not yet unique, (N, L - 1).
    """
    domain = given.domain

    def make(work: Workspace) -> StageResult:
        short = quantize(np.unique(given.split.train), work.checkpoints)
        unique = make_unique(short, size)
        return write_codes(work.folder, given.domain, given.split, unique.assignment, unique.sizes)

    inputs = {"tokenizer": fingerprint(config), f"domain {domain.name}": domain.fingerprint}
    run_stage(out, stage=STAGE, config=config, inputs=inputs, make=make)


def make_unique(short: Codes, size: int) -> UniqueCodes:
    """Number collisions, and give each position tokens of its own. Shapes: (N, L - 1) → (N, L).

    The recommender shares one range of tokens among positions 2 … L, as UTGRec shares one codebook.
    TIGER does not share, so each position gets a part of that range for itself.

    Raises:
        BadConfig: the codes do not fit into 16 bits.
    """
    codes = number_collisions(short)  # (N, L)
    length = codes.shape[1]
    collisions = int(codes[:, -1].max(initial=0)) + 1
    later = size * (length - 2) + collisions
    require(
        later <= np.iinfo(np.int16).max,
        f"{later} codes (the most equal ones are those of {collisions} items) do not fit into 16 "
        "bits; take larger codebooks, or texts that differ",
    )
    codes[:, 2:] += size * np.arange(1, length - 1)
    first = codes.copy()
    first[:, -1] = size * (length - 2)
    assignment = Assignment(
        codes=codes.astype(np.int16),
        nearest=first.astype(np.int16),
        conflict=(codes != first).any(axis=1),
        distance=np.zeros(len(codes), np.float32),
    )
    return UniqueCodes(assignment, (size, *[later] * (length - 1)))


def check_domain(given: FitInput) -> None:
    """Stages name the folder they were made from, and split the domain themselves.

    Raises:
        InputError: the domain was not read from a folder, or the split is not its own.
    """
    if given.domain.manifest is None:
        raise InputError(
            f"domain {given.domain.name!r} was not read from a folder; TIGER writes stages that "
            "name the folder they were made from: prepare the domain and open it"
        )
    own = split_domain(given.domain)
    same = [
        np.array_equal(own.offsets, given.split.offsets),
        np.array_equal(own.train, given.split.train),
        np.array_equal(own.valid, given.split.valid),
        np.array_equal(own.test, given.split.test),
        np.array_equal(own.known_lengths, given.split.known_lengths),
    ]
    if not all(same):
        raise InputError(
            f"the split is not that of domain {given.domain.name!r} ({given.domain.split.words}), "
            "which is what the recommender is trained on; pass split_domain(domain)"
        )
