"""Groups are partitions with the borders that they claim."""

import numpy as np
import pytest

from utgrec.errors import InputError
from utgrec.evaluation.groups import (
    by_history_length,
    by_popularity,
    group_figures,
    group_sheet,
    groups_to_json,
    standard_groupings,
)
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import evaluate

ITEMS = 40


def test_head_middle_and_tail_by_hand():
    # 12 interactions: item 1 has 4 (the head), items 3 and 0 start within the second third.
    counts = np.array([2, 4, 1, 3, 1, 1, 0])
    grouping = by_popularity(np.arange(7), counts)
    labels = [grouping.labels[place] for place in grouping.members]
    assert labels == ["middle", "head", "tail", "middle", "tail", "tail", "tail"]


def test_thirds_of_a_smooth_catalogue_are_equal():
    counts = np.random.default_rng(0).integers(0, 50, size=2000)
    grouping = by_popularity(np.arange(2000), counts)
    shares = np.bincount(grouping.members, weights=counts) / counts.sum()
    np.testing.assert_allclose(shares, 1 / 3, atol=0.002)


def test_history_lengths_on_the_borders():
    members = by_history_length(np.array([1, 5, 6, 20, 21, 500])).members
    np.testing.assert_array_equal(members, [0, 0, 1, 1, 2, 2])


def test_a_log_without_interactions_has_only_a_tail():
    grouping = by_popularity(np.array([0, 1]), np.zeros(2, dtype=np.int64))
    np.testing.assert_array_equal(grouping.members, [2, 2])


def test_groups_partition_the_users_and_add_up_to_the_mean(make_split, random_histories):
    split = make_split(random_histories)
    result = evaluate(
        Popularity.fit(split, ITEMS), split, part="test", item_count=ITEMS, exclude_seen=False
    )
    has_image = np.arange(ITEMS) % 3 > 0
    groupings = standard_groupings(result, split, has_image)
    assert len(groupings) == 4
    for grouping in groupings:
        figures = group_figures(result, grouping, "recall@10")
        assert sum(entry.users for entry in figures) == len(result.users)
        total = sum(entry.users * entry.interval.value for entry in figures if entry.interval)
        assert total / len(result.users) == pytest.approx(result.mean("recall@10"))
        assert [entry["group"] for entry in groups_to_json(figures)] == list(grouping.labels)
    images = dict(zip(groupings[3].labels, np.bincount(groupings[3].members), strict=True))
    assert images["with"] == has_image[result.targets].sum()
    seen = set(split.train.tolist())
    cold = [target not in seen for target in result.targets.tolist()]
    np.testing.assert_array_equal(groupings[2].members, np.array(cold, dtype=int))


def test_the_sheet_has_a_line_per_group(make_split, random_histories):
    split = make_split(random_histories)
    result = evaluate(
        Popularity.fit(split, ITEMS), split, part="test", item_count=ITEMS, exclude_seen=False
    )
    sheet = group_sheet([result], standard_groupings(result, split))
    assert sheet.header == ["group", "users", "Popularity"]
    assert len(sheet.lines) == 3 + 3 + 2
    assert sheet.lines[5] == ["history length: > 20", "0", ""]  # empty, not 0 and not NaN


def test_a_grouping_of_other_users_is_refused(make_split, random_histories):
    split = make_split(random_histories)
    result = evaluate(
        Popularity.fit(split, ITEMS), split, part="test", item_count=ITEMS, exclude_seen=False
    )
    with pytest.raises(InputError, match="has 3 users"):
        group_figures(result, by_history_length(np.array([1, 2, 3])))
