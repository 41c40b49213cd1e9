"""Very many bad lines: the first are listed whatever the order of the parts, all are counted."""

import random

import polars as pl
import pytest

from utgrec.data.amazon2023.bad_lines import BadLines
from utgrec.data.rejects import SCHEMA, Rejects


@pytest.mark.parametrize("seed", range(6))
def test_the_first_are_listed_and_all_are_counted(seed):
    rng = random.Random(seed)
    sizes = [rng.randint(0, 9) for _ in range(20)]
    before = {part: sum(sizes[:part]) for part in range(20)}
    order = list(range(20))
    rng.shuffle(order)
    bad, rejects = BadLines(15), Rejects("reject", most=15)
    for part in order:
        rows = [{"file": "f", "row": n + 1, "reason": f"r{n % 2}"} for n in range(sizes[part])]
        bad.add(part, pl.DataFrame(rows, schema=SCHEMA))
    bad.hand_over(rejects, before)
    assert rejects.table()["row"].to_list() == list(range(1, 16))
    odd = sum(size // 2 for size in sizes)
    assert rejects.counts() == {"r0": sum(sizes) - odd, "r1": odd}


def test_no_more_is_kept_than_can_be_listed():
    bad = BadLines(10)
    for part in range(500):
        rows = [{"file": "f", "row": n, "reason": "r"} for n in range(7)]
        bad.add(part, pl.DataFrame(rows, schema=SCHEMA))
        assert sum(frame.height for frame in bad._listed.values()) <= 20
