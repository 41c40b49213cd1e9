"""Choose a split for a log: by shares of its interactions, or at dates that somebody names."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from utgrec.catalog import LEAVE_ONE_OUT, SplitKind, SplitRule
from utgrec.config import require
from utgrec.data.split import Split
from utgrec.errors import EmptyDomain, InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Which split a domain gets."""

    kind: SplitKind = "leave-one-out"
    """leave-one-out or global-time (utgrec.data.split)."""
    valid_share: float = 0.1
    """global-time: share of the interactions between training and test."""
    test_share: float = 0.1
    """global-time: share of the interactions that are the latest."""
    valid_from: str = ""
    """global-time: ISO date or time from which nothing trains, instead of the shares; or ms:N,
    milliseconds since 1970."""
    test_from: str = ""
    """global-time: ISO date or time from which everything is test, instead of the shares."""

    def __post_init__(self) -> None:
        SplitRule(**({"kind": self.kind} | self._any_cuts()))
        shares = (self.valid_share, self.test_share)
        require(
            all(isinstance(share, (int, float)) and 0 < share < 1 for share in shares)
            and sum(shares) < 1,
            f"valid_share and test_share are above 0 and together below 1, got {shares}",
        )
        dates = (self.valid_from, self.test_from)
        require(
            bool(dates[0]) == bool(dates[1]),
            f"valid_from and test_from are given both or not at all, got {dates}",
        )
        require(
            not dates[0] or self.kind == "global-time",
            f"valid_from and test_from belong to a global-time split, got {self.kind}",
        )

    def _any_cuts(self) -> dict[str, Any]:
        return {"valid_from": 0, "test_from": 1} if self.kind == "global-time" else {}


def choose_split(
    options: SplitOptions, timestamps: npt.NDArray[np.int64], time: dict[str, Any]
) -> SplitRule:
    """The rule for a log with these times (I,); `time` is the fact that the domain records.

    Interactions of one time stay on one side, so the shares are kept as nearly as that allows.

    Raises:
        InputError: positions instead of times, or times that are no dates.
        EmptyDomain: one of the three parts would be empty.
    """
    if options.kind == "leave-one-out":
        return LEAVE_ONE_OUT
    if not time.get("real", True):
        raise InputError(
            f"a global-time split compares the times of different users, but this log has none "
            f"({time.get('rule', 'positions')}); use leave-one-out"
        )
    if options.valid_from:
        valid_from, test_from = (_ms(text) for text in (options.valid_from, options.test_from))
        require(
            valid_from < test_from,
            f"valid_from must be before test_from, got {options.valid_from}, {options.test_from}",
        )
    else:
        ordered = np.sort(timestamps)
        places = (1 - options.valid_share - options.test_share, 1 - options.test_share)
        valid_from, test_from = (int(ordered[int(len(ordered) * place)]) for place in places)
    counts = np.histogram(timestamps, [-np.inf, valid_from, test_from, np.inf])[0]
    if valid_from >= test_from or (counts == 0).any():
        raise EmptyDomain(
            f"cut at {valid_from} and {test_from} (ms), the log of {len(timestamps)} interactions "
            f"has {counts.tolist()} in training, validation and test; each needs some: name other "
            "dates (--valid-from, --test-from), or other shares"
        )
    return SplitRule(kind="global-time", valid_from=valid_from, test_from=test_from)


def split_counts(split: Split, interactions: int) -> dict[str, int]:
    """What a split makes of a log, for the manifest."""
    later = 0 if split.between is None else interactions - len(split.train) - len(split.between)
    tested = len(split.evaluated)
    return {
        "training_interactions": len(split.train),
        "validation_users": len(split.validated),
        "test_users": tested,
        "later_interactions_unused": max(0, later - tested),
    }


def _ms(text: str) -> int:
    from utgrec.data.times import parse_moment

    exact = text.removeprefix("ms:")
    ms = int(exact) if text != exact and exact.isdecimal() else parse_moment(text)
    require(ms is not None, f"{text!r} is no date or time in ISO 8601, such as 2018-06-30")
    assert ms is not None
    return int(ms)
