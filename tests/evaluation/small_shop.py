"""Small shops on disk for the tests of baselines."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from utgrec.catalog import Domain, write_domain
from utgrec.data.split import leave_one_out
from utgrec.evaluation.baselines import FitInput

ITEMS = 30
KINDS = ("red apple", "green pear", "blue plum", "ripe fig", "dry nut")


def write_shop(folder: Path, histories: Sequence[Sequence[int]], items: int = ITEMS) -> Domain:
    """A domain of plain histories; the text of item i names its kind, i modulo 5, and its tray."""
    folder.mkdir(parents=True)
    texts = [f"{KINDS[item % 5]} on tray {item // 10}" for item in range(items)]
    table = pa.table(
        {
            "item_id": [f"item {item}" for item in range(items)],
            "title": texts,
            "text": texts,
            "image": pa.nulls(items, pa.string()),
        }
    )
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    taken = np.concatenate([np.asarray(history, np.int64) for history in histories])
    log = pa.table(
        {
            "user": pa.array(users, pa.int32()),
            "item": pa.array(taken, pa.int32()),
            "timestamp": pa.array(np.arange(len(users)), pa.int64()),
        }
    )
    write_domain(
        folder,
        name="fruit",
        items=table,
        user_ids=[f"user {user}" for user in range(len(histories))],
        interactions=log,
        config={},
        inputs={},
        facts={},
    )
    return Domain.open(folder)


def fit_input(domain: Domain, work: Path, *, seed: int = 0, exclude_seen: bool = True) -> FitInput:
    """What a family is given."""
    return FitInput(domain, leave_one_out(domain), exclude_seen, seed, work)


def noisy_histories(users: int = 60, seed: int = 0) -> list[list[int]]:
    """3 to 14 of 30 items, low indices more often, with repeats."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(2, ITEMS + 2)
    chances /= chances.sum()
    return [rng.choice(ITEMS, size=rng.integers(3, 15), p=chances).tolist() for _ in range(users)]


def ring_histories(users: int = 150, seed: int = 0) -> list[list[int]]:
    """Walks round a ring: item i is always followed by item i + 1, so the next item is known."""
    rng = np.random.default_rng(seed)
    return [
        ((rng.integers(ITEMS) + np.arange(rng.integers(4, 13))) % ITEMS).tolist()
        for _ in range(users)
    ]


def replace_ends(histories: Sequence[Sequence[int]], count: int, seed: int = 1) -> list[list[int]]:
    """The same histories with other items in the last `count` places of each."""
    rng = np.random.default_rng(seed)
    changed = []
    for history in histories:
        ends = [(item + int(rng.integers(1, ITEMS))) % ITEMS for item in history[-count:]]
        changed.append([*history[:-count], *ends])
    return changed
