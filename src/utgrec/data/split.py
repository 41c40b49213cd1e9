"""Divide the interactions of a domain into training, validation and test, as its split says.

Leave-one-out: a user's last item is test, the one before is validation, the rest is training. A
user with fewer than 3 interactions is training only.

Global time: what comes before one point in time trains, whoever did it; nothing that trains is
later than anything that is guessed. Of the window after it, each user's first item is the
validation item; of the time after a second point, each user's first item is the test item. All
that came before that second point is known when the test item is to be guessed.

Everything that learns (neighbours, popularity, baselines, tokenizer, recommender) sees `train` and
nothing else. Use `split_domain`: which rule holds is a property of the domain, so that one run
never mixes two.

Shapes: U users · I interactions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Domain, SplitRule
from utgrec.config import require

NOBODY = -1

Items = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


class Split(NamedTuple):
    """The parts of a log of U users; users are those of the domain, in its order."""

    offsets: Offsets  # (U + 1,), into train
    train: Items  # training items of all users, one user after the other
    valid: Items  # (U,), the validation item, or -1
    test: Items  # (U,), the test item, or -1
    # What is known beside training when the test item is to be guessed; None = the validation item.
    between_offsets: Offsets | None = None  # (U + 1,), into between
    between: Items | None = None  # between training and test, one user after the other

    def train_history(self, user: int) -> Items:
        """What the models may learn from."""
        return self.train[self.offsets[user] : self.offsets[user + 1]]

    def test_history(self, user: int) -> Items:
        """What is known when the test item is to be guessed, oldest first."""
        history = self.train_history(user)
        if self.between is not None and self.between_offsets is not None:
            start, end = self.between_offsets[user : user + 2]
            return np.concatenate([history, self.between[start:end]])
        return history if self.valid[user] < 0 else np.append(history, self.valid[user])

    @property
    def known_lengths(self) -> npt.NDArray[np.int64]:
        """How long each user's test history is. Shapes: (U,)."""
        if self.between_offsets is not None:
            return np.diff(self.offsets) + np.diff(self.between_offsets)
        return np.diff(self.offsets) + (self.valid >= 0)

    @property
    def evaluated(self) -> npt.NDArray[np.int64]:
        """The users that have a test item."""
        return np.flatnonzero(self.test >= 0)

    @property
    def validated(self) -> npt.NDArray[np.int64]:
        """The users that have a validation item; by leave-one-out the same."""
        return np.flatnonzero(self.valid >= 0)


def split_domain(domain: Domain) -> Split:
    """Split a domain as its own rule says; nothing is used twice."""
    return divide(domain.offsets, domain.items, domain.timestamps, domain.split)


def divide(
    offsets: Offsets, items: Items, timestamps: npt.NDArray[np.int64], rule: SplitRule
) -> Split:
    """Split a log as a rule says. Shapes: offsets (U + 1,); items, timestamps (I,)."""
    if rule.kind == "leave-one-out":
        return _last_two(offsets, items)
    return _global_time(offsets, items, timestamps, rule)


def split_words(*domains: Domain) -> dict[str, str]:
    """The split of domains in words, as a fact for the manifest of what was made from them."""
    return {"split": "; ".join(dict.fromkeys(domain.split.words for domain in domains))}


def trained_facts(*domains: Domain) -> dict[str, Any]:
    """`split_words`, and the time (ms) that all training came before; None if there is none."""
    cuts = [domain.split.valid_from for domain in domains]
    known = [cut for cut in cuts if cut is not None]
    return {
        **split_words(*domains),
        "trained_before": max(known) if len(known) == len(cuts) else None,
    }


def check_one_split(domains: Sequence[Domain]) -> None:
    """Refuse to learn several domains together that are split in different ways.

    With dates that differ, one domain would train on what is the future of another.

    Raises:
        BadConfig: names the domains and their splits.
    """
    told = "; ".join(f"{domain.name}: {domain.split.words}" for domain in domains)
    require(
        len({domain.split for domain in domains}) <= 1,
        f"domains that are learned together need the same split, got {told}; derive them with "
        "`utgrec prepare split` at the same --valid-from and --test-from",
    )


def leave_one_out(domain: Domain) -> Split:
    """Leave-one-out of a domain whatever its own rule is; nothing is lost or used twice."""
    return _last_two(domain.offsets, domain.items)


def _last_two(offsets: Offsets, items: Items) -> Split:
    lengths = np.diff(offsets)
    held = lengths >= 3
    valid = np.full(len(lengths), NOBODY, dtype=np.int32)
    test = np.full(len(lengths), NOBODY, dtype=np.int32)
    ends = offsets[1:]
    valid[held] = items[ends[held] - 2]
    test[held] = items[ends[held] - 1]
    keep = np.ones(len(items), dtype=bool)
    keep[ends[held] - 1] = False
    keep[ends[held] - 2] = False
    train_lengths = np.where(held, lengths - 2, lengths)
    return Split(offsets=_offsets(train_lengths), train=items[keep], valid=valid, test=test)


def _global_time(
    offsets: Offsets, items: Items, timestamps: npt.NDArray[np.int64], rule: SplitRule
) -> Split:
    """Split a log at two points in time.

    A user without training items has no validation item, one without anything before the test
    window no test item: there would be no history to guess from.

    Shapes: offsets (U + 1,) into items and timestamps (I,), in time order within each user.
    """
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))  # (I,)
    trains = timestamps < (rule.valid_from or 0)
    known = timestamps < (rule.test_from or 0)
    train_lengths = np.bincount(user[trains], minlength=len(offsets) - 1)
    known_lengths = np.bincount(user[known], minlength=len(offsets) - 1)

    def first_after(lengths: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Items:
        target = np.full(len(lengths), NOBODY, dtype=np.int32)
        there = (lengths > 0) & (lengths < ends)
        target[there] = items[offsets[:-1][there] + lengths[there]]
        return target

    return Split(
        offsets=_offsets(train_lengths),
        train=items[trains],
        valid=first_after(train_lengths, known_lengths),
        test=first_after(known_lengths, np.diff(offsets)),
        between_offsets=_offsets(known_lengths - train_lengths),
        between=items[known & ~trains],
    )


def _offsets(lengths: npt.NDArray[np.integer]) -> Offsets:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
