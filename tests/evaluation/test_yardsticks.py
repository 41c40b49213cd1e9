"""The baselines reach what public libraries measured on real shops (research data, not shipped).

The yardsticks are implicit's TFIDFRecommender with K = 100 and popularity by number of users, both
fitted on training and validation items. What differs by a few users are ties.
"""

import csv
import gzip
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from utgrec.catalog import Catalog, Domain
from utgrec.data.split import leave_one_out
from utgrec.evaluation.itemknn import ItemKNN
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import evaluate

DATA = Path(
    os.environ.get("UTGREC_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)


def keep_core(rows: list, least: int) -> list:
    """Drop users and items with fewer than `least` rows until none is left."""
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[3] for row in rows)
        kept = [row for row in rows if users[row[0]] >= least and items[row[3]] >= least]
        if len(kept) == len(rows):
            return kept
        rows = kept


def read_split(name: str, core: int):
    path = DATA / name / "interactions.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent: the real domains are not part of the project")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        rows = [
            (row["user_id"], int(row["timestamp"]), place, row["item_id"])
            for place, row in enumerate(csv.DictReader(stream))
        ]
    rows = keep_core(rows, core)
    rows.sort(key=lambda row: row[:3])
    users, user = np.unique([row[0] for row in rows], return_inverse=True)
    items, item = np.unique([row[3] for row in rows], return_inverse=True)
    blank = pa.array([""] * len(items))
    table = pa.table({"item_id": items, "title": blank, "text": blank, "image": blank})
    domain = Domain(
        name=name,
        catalog=Catalog(table),
        user_ids=users.tolist(),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user))]),
        items=item.astype(np.int32),
        timestamps=np.array([row[1] for row in rows]),
    )
    return leave_one_out(domain), len(items)


@pytest.mark.parametrize(
    ("name", "core", "popular", "knn_kept", "knn_removed"),
    [
        ("beauty", 0, (0.0135, 0.0061), (0.0377, 0.0127), (0.0658, 0.0382)),
        ("office", 0, (0.0235, 0.0090), (0.1238, 0.0500), (0.1185, 0.0934)),
        ("industrial", 0, (0.0396, 0.0299), (0.0919, 0.0403), (0.0883, 0.0675)),
        ("movies", 5, (0.0443, 0.0212), (0.0222, 0.0091), (0.0727, 0.0391)),
    ],
)
def test_yardsticks(name, core, popular, knn_kept, knn_removed):
    split, count = read_split(name, core)
    knn = ItemKNN.fit(split, count, with_validation=True)
    popularity = Popularity.fit(split, count, with_validation=True)
    for system, exclude_seen, expected in (
        (popularity, True, popular),
        (knn, False, knn_kept),
        (knn, True, knn_removed),
    ):
        result = evaluate(system, split, part="test", item_count=count, exclude_seen=exclude_seen)
        found = (result.mean("recall@10"), result.mean("ndcg@10"))
        assert found == pytest.approx(expected, abs=0.001), (system.name, exclude_seen)
