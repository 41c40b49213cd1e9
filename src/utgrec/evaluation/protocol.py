"""The one way in which every system is measured: guess each user's next item, whole catalogue.

A system gets the users' known histories and gives k items each. The rank of the held-out item
among them is all that the metrics need. Recommendations that break the rules (an item twice, an
item outside the catalogue, a seen item where seen items are excluded) would bend the figures, so
they are an error, not a miss.

Shapes: B users of a batch · U users · k recommendations per user.
"""

import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Ints
from utgrec.data.split import Split
from utgrec.errors import InputError
from utgrec.evaluation.metrics import find_ranks
from utgrec.evaluation.result import Evaluation

Part = Literal["valid", "test"]
KS = (5, 10, 20)


class Query(NamedTuple):
    """B users whose next item is to be guessed."""

    users: Ints  # (B,), indices in the domain
    histories: list[Ints]  # B arrays of item indices in time order: everything known, not cut


class Recommendations(NamedTuple):
    """k items for each of B users, best first."""

    items: npt.NDArray[np.int64]  # (B, k), -1 where there are fewer
    scores: npt.NDArray[np.float32]  # (B, k), higher is better


class System(Protocol):
    """Anything that recommends.

    A system that learned from the validation items says so with an attribute `knows_validation`,
    and is then refused where these items are to be guessed.
    """

    @property
    def name(self) -> str:
        """What the comparison calls it."""
        ...

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        """The best k items for each user; without those of the history if `exclude_seen`."""
        ...


def make_query(split: Split, users: Ints, part: Part) -> Query:
    """What may be known of some users when an item of `part` is to be guessed."""
    history = split.train_history if part == "valid" else split.test_history
    return Query(users=users, histories=[history(int(user)) for user in users])


def sample_users(split: Split, most: int, seeds: Sequence[int]) -> npt.NDArray[np.int64]:
    """Validation users to measure on where all would take too long: (≤ `most`,), ascending."""
    users = split.validated
    if len(users) <= most:
        return users
    return np.sort(np.random.default_rng(list(seeds)).choice(users, most, replace=False))


def evaluate(
    system: System,
    split: Split,
    *,
    part: Part,
    item_count: int,
    ks: Sequence[int] = KS,
    exclude_seen: bool,
    users: Ints | None = None,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Rank the whole catalogue for every evaluated user, or for a sample of them.

    Args:
        part: "valid" guesses the validation item from the training items; "test" guesses the test
            item from all that was known before it.
        item_count: items of the catalogue.
        ks: cuts of the metrics; the system is asked for max(ks) items.
        exclude_seen: items of the user's own history cannot be recommended. A target that is in the
            history then counts as a miss; `Evaluation.summary` says how many there are.
        users: distinct indices of users that have a target; all of them by default.
        progress: called with (users done, users in all) after each batch.

    Raises:
        InputError: bad arguments, or a system that breaks the rules of this protocol.
    """
    if users is None:
        users = split.validated if part == "valid" else split.evaluated
    users = np.asarray(users)
    targets = _targets(split, part, users, item_count)
    _check_settings(ks, batch_size, item_count)
    if part == "valid" and getattr(system, "knows_validation", False):
        raise InputError(
            f"{system.name} was fitted with the validation items, so part 'valid' would ask what "
            "it was told; fit it on the training part alone"
        )
    depth = max(ks)
    ranks: list[npt.NDArray[np.int32]] = []
    given: list[npt.NDArray[np.int64]] = []
    lengths: list[int] = []
    repeats: list[bool] = []
    recommended = np.zeros((len(ks), item_count), dtype=bool)
    seconds = 0.0
    for start in range(0, len(users), batch_size):
        query = make_query(split, users[start : start + batch_size], part)
        began = time.perf_counter()
        answer = system.recommend(query, depth, exclude_seen=exclude_seen)
        seconds += time.perf_counter() - began
        check_recommendations(
            answer, query, depth, system.name, item_count=item_count, exclude_seen=exclude_seen
        )
        wanted = targets[start : start + batch_size]
        ranks.append(find_ranks(answer.items, wanted))
        given.append((answer.items >= 0).sum(axis=1))
        lengths.extend(len(history) for history in query.histories)
        repeats.extend(
            bool((history == target).any())
            for history, target in zip(query.histories, wanted, strict=True)
        )
        for place, k in enumerate(ks):
            shown = answer.items[:, :k]
            recommended[place, shown[shown >= 0]] = True
        if progress is not None:
            progress(start + len(query.users), len(users))
    return Evaluation(
        system=system.name,
        part=part,
        exclude_seen=exclude_seen,
        ks=tuple(ks),
        item_count=item_count,
        users=users.astype(np.int64),
        targets=targets.astype(np.int64),
        ranks=np.concatenate(ranks),
        history_lengths=np.array(lengths, dtype=np.int32),
        repeats=np.array(repeats, dtype=np.bool_),
        given=np.concatenate(given).astype(np.int32),
        coverage=tuple(float(row.mean()) for row in recommended),
        seconds=seconds,
    )


def check_recommendations(
    answer: Recommendations,
    query: Query,
    k: int,
    name: str,
    *,
    item_count: int,
    exclude_seen: bool,
) -> None:
    """Refuse recommendations that break the rules.

    Raises:
        InputError: names the system, the user and the item.
    """
    items = np.asarray(answer.items)
    shape = (len(query.users), k)
    if items.shape != shape or answer.scores.shape != shape or items.dtype.kind != "i":
        raise InputError(
            f"{name} gave items {items.shape} {items.dtype} and scores {answer.scores.shape}; "
            f"asked for integers and scores of shape {shape}, with -1 where there are fewer"
        )
    outside = (items < -1) | (items >= item_count)
    gap = np.zeros(shape, dtype=bool)
    gap[:, 1:] = (items[:, 1:] >= 0) & (items[:, :-1] < 0)
    ordered = np.sort(items, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    for wrong, values, rule in (
        (outside, items, f"outside the catalogue of {item_count} items"),
        (gap, items, "after a place without an item; -1 is allowed at the end only"),
        (twice, ordered[:, 1:], "twice"),
    ):
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            raise InputError(
                f"{name} recommended item {values[row, place]} to user {query.users[row]} {rule}; "
                "correct the system: its figures would not be comparable"
            )
    if exclude_seen:
        for user, history, row_items in zip(query.users, query.histories, items, strict=True):
            seen = row_items[np.isin(row_items, history)]
            if len(seen):
                raise InputError(
                    f"{name} recommended item {seen[0]} to user {user}, who has it in their "
                    "history, although seen items are excluded; filter them in the system"
                )


def _targets(split: Split, part: Part, users: Ints, item_count: int) -> npt.NDArray[np.int32]:
    if part not in ("valid", "test"):
        raise InputError(f"part must be 'valid' or 'test', got {part!r}")
    total = len(split.test)
    if len(users) == 0 or len(np.unique(users)) != len(users):
        raise InputError(
            f"got {len(users)} users, {len(np.unique(users))} of them different; evaluation needs "
            "at least 1 user and each only once (users without a held-out item have no target)"
        )
    if users.min() < 0 or users.max() >= total:
        raise InputError(
            f"users {users.min()} to {users.max()} do not fit a domain of {total} users"
        )
    targets = (split.valid if part == "valid" else split.test)[users]
    without = users[targets < 0]
    if len(without):
        raise InputError(
            f"user {without[0]} has no {part} item; choose from "
            f"split.{'validated' if part == 'valid' else 'evaluated'}"
        )
    highest = max(int(row.max(initial=-1)) for row in (split.train, split.valid, split.test))
    if highest >= item_count:
        raise InputError(
            f"item_count is {item_count} but the log names item {highest}; "
            "pass the size of the catalogue of the same domain"
        )
    return targets


def _check_settings(ks: Sequence[int], batch_size: int, item_count: int) -> None:
    if not ks or min(ks) < 1 or list(ks) != sorted(set(ks)):
        raise InputError(f"ks must be ascending, different and at least 1, got {tuple(ks)}")
    if batch_size < 1 or item_count < 1:
        raise InputError(f"batch_size ({batch_size}) and item_count ({item_count}) must be ≥ 1")
