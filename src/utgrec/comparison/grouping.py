"""Which groups of users a domain can show, and which are too small to say anything."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Domain
from utgrec.comparison.plan import GROUPINGS, ComparisonPlan
from utgrec.data.split import Split
from utgrec.errors import InputError
from utgrec.evaluation.groups import (
    Grouping,
    by_history_length,
    by_image,
    by_popularity,
    by_training,
)


class Shown(NamedTuple):
    """One grouping of a domain's users; at least two of its groups are large enough."""

    key: str  # as the plan calls it
    grouping: Grouping
    large: tuple[bool, ...]  # which groups have enough users to be shown


def shown_groups(plan: ComparisonPlan, domain: Domain, split: Split) -> list[Shown]:
    """The groupings that the plan asks for, or else all that this domain can show."""
    wanted = plan.groups or tuple(GROUPINGS)
    found = _groupings(domain, split)
    shown = []
    for key in wanted:
        sizes = _sizes(found[key])
        large = tuple(bool(size >= plan.group_users) for size in sizes)
        if sum(large) >= 2:
            shown.append(Shown(key, found[key], large))
    return shown


def check_groups(plan: ComparisonPlan, domain: Domain, split: Split) -> None:
    """Refuse a plan that asks for groups which a domain does not have.

    Raises:
        InputError: fewer than two groups of a grouping have enough users.
    """
    found = _groupings(domain, split)
    for key in plan.groups:
        sizes = _sizes(found[key])
        if (sizes >= plan.group_users).sum() < 2:
            told = ", ".join(
                f"{label}: {size:,}" for label, size in zip(found[key].labels, sizes, strict=True)
            )
            raise InputError(
                f"too few users of {domain.name} for the group {key!r}: by {found[key].name} there "
                f"are {told}; two groups need {plan.group_users} each. Remove {key!r} from groups, "
                "lower group_users, or leave the domain out"
            )


def _groupings(domain: Domain, split: Split) -> dict[str, Grouping]:
    """All groupings of the evaluated users, as `evaluate` orders them."""
    users = split.evaluated
    targets = split.test[users]
    counts = np.bincount(split.train, minlength=len(domain.catalog))  # (N,)
    lengths = split.known_lengths[users]
    pictured = np.array([image is not None for image in domain.catalog.images], dtype=np.bool_)
    return {
        "popularity": by_popularity(targets, counts),
        "history": by_history_length(lengths),
        "cold": by_training(targets, counts),
        "image": by_image(targets, pictured),
    }


def _sizes(grouping: Grouping) -> npt.NDArray[np.int64]:
    return np.bincount(grouping.members, minlength=len(grouping.labels))
