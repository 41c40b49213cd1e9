"""For whom does it work: figures by popularity of the target, history length, image, cold items.

Shapes: U users · G groups · N items.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Ints
from utgrec.data.split import Split
from utgrec.errors import InputError
from utgrec.evaluation.intervals import Interval, mean_intervals
from utgrec.evaluation.result import Evaluation, Measured
from utgrec.evaluation.sheet import Sheet

HISTORY_BOUNDS = (5, 20)


class Grouping(NamedTuple):
    """A partition of the evaluated users: each one is in exactly one group."""

    name: str
    labels: tuple[str, ...]  # (G,)
    members: npt.NDArray[np.int64]  # (U,), which label each user has


class GroupFigures(NamedTuple):
    """One metric of one group; None where the group is empty."""

    label: str
    users: int
    interval: Interval | None


def standard_groupings(
    evaluation: Evaluation, split: Split, has_image: npt.NDArray[np.bool_] | None = None
) -> list[Grouping]:
    """All groupings of the report; `has_image` (N,) adds the one by image."""
    counts = np.bincount(split.train, minlength=evaluation.item_count)  # (N,)
    groupings = [
        by_popularity(evaluation.targets, counts),
        by_history_length(evaluation.history_lengths),
        by_training(evaluation.targets, counts),
    ]
    if has_image is not None:
        groupings.append(by_image(evaluation.targets, has_image))
    return groupings


def by_popularity(targets: Ints, counts: Ints) -> Grouping:
    """Head, middle and tail items hold a third of the training interactions each.

    The item on a border belongs to the more popular side. Shapes: targets (U,), counts (N,).
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]  # interactions of more popular items
    third = np.empty(len(counts), dtype=np.int64)
    third[order] = np.minimum(3 * before // max(int(counts.sum()), 1), 2)
    third[counts == 0] = 2
    return Grouping("popularity of the target", ("head", "middle", "tail"), third[targets])


def by_history_length(lengths: Ints) -> Grouping:
    """Up to 5, 6 to 20, and more than 20 known items. Shapes: (U,)."""
    short, middle = HISTORY_BOUNDS
    labels = (f"≤ {short}", f"{short + 1}-{middle}", f"> {middle}")
    members = np.searchsorted(HISTORY_BOUNDS, lengths, side="left")
    return Grouping("history length", labels, members.astype(np.int64))


def by_training(targets: Ints, counts: Ints) -> Grouping:
    """Warm targets occur in training, cold ones never do. Shapes: targets (U,), counts (N,)."""
    return Grouping("target in training", ("warm", "cold"), (counts[targets] == 0).astype(np.int64))


def by_image(targets: Ints, has_image: npt.NDArray[np.bool_]) -> Grouping:
    """Targets with and without a picture. Shapes: targets (U,), has_image (N,)."""
    return Grouping(
        "image of the target", ("with", "without"), (~has_image[targets]).astype(np.int64)
    )


def group_figures(
    evaluation: Measured,
    grouping: Grouping,
    metric: str = "ndcg@10",
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[GroupFigures]:
    """One metric of every group, with intervals over the users of the group.

    Raises:
        InputError: the grouping belongs to other users.
    """
    values = evaluation.metrics.column(metric)  # (U,)
    if len(grouping.members) != len(values):
        raise InputError(
            f"grouping {grouping.name!r} has {len(grouping.members)} users, the evaluation "
            f"{len(values)}; make the grouping from the same evaluation"
        )
    figures = []
    for place, label in enumerate(grouping.labels):
        chosen = values[grouping.members == place]
        interval = None
        if len(chosen):
            interval = mean_intervals(chosen[:, None], resamples=resamples, seed=seed)[0]
        figures.append(GroupFigures(label, len(chosen), interval))
    return figures


def group_sheet(
    evaluations: Sequence[Measured],
    groupings: Sequence[Grouping],
    metric: str = "ndcg@10",
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Sheet:
    """Groups down, systems across; every evaluation must be of the users of the groupings."""
    lines = []
    for grouping in groupings:
        columns = [
            group_figures(evaluation, grouping, metric, resamples=resamples, seed=seed)
            for evaluation in evaluations
        ]
        for place, label in enumerate(grouping.labels):
            cells = [
                "" if (i := figures[place].interval) is None else i.text for figures in columns
            ]
            lines.append([f"{grouping.name}: {label}", f"{columns[0][place].users:,}", *cells])
    header = ["group", "users", *(evaluation.system for evaluation in evaluations)]
    return Sheet(title=f"{metric} by group", header=header, lines=lines)


def groups_to_json(figures: list[GroupFigures]) -> list[dict[str, Any]]:
    """JSON values of one grouping's figures."""
    return [
        {
            "group": entry.label,
            "users": entry.users,
            **({} if entry.interval is None else entry.interval.rounded()),
        }
        for entry in figures
    ]
