"""How sure a mean over users is: bootstrap intervals and a paired test of two systems.

Users are resampled with replacement. What matters of a user is only their row of values, and a
rank metric takes few different ones, so a resample is one multinomial draw over the *distinct* rows
with their counts. That is the ordinary bootstrap, exactly, in milliseconds instead of seconds, and
it does not depend on the order of the users. The same idea makes the sign-flip test fast.

Shapes: U users · M metrics · D distinct rows · R resamples.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from utgrec.errors import InputError
from utgrec.evaluation.metrics import Floats, to_json_float

LEVEL = 0.95
_CHUNK = 2**22  # numbers drawn at a time: 32 MiB


class Interval(NamedTuple):
    """A mean over users and its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The mean and its interval for a table's cell."""
        return f"{self.value:.4f} ({self.low:.4f}-{self.high:.4f})"

    def rounded(self) -> dict[str, float]:
        """JSON values with 6 digits."""
        return {name: to_json_float(value) for name, value in self._asdict().items()}


class PairedTest(NamedTuple):
    """System A against system B on the same users."""

    difference: Interval  # mean of A − B
    p_value: float  # two-sided; under "A and B are exchangeable for every user"
    better: int  # users for whom A is better
    worse: int  # users for whom B is better
    users: int


def resampled_means(values: Floats, *, resamples: int, seed: int) -> Floats:
    """Means over users of R bootstrap resamples. Shapes: (U, M) → (R, M).

    Raises:
        InputError: no users.
    """
    users = len(values)
    if users == 0:
        raise InputError("an interval needs at least 1 user, got 0; choose users with a target")
    rows, counts = np.unique(values, axis=0, return_counts=True)  # (D, M), (D,)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(rows))
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.multinomial(users, counts / users, size=size)  # (size, D)
        means[start : start + size] = drawn @ rows / users
    return means


def mean_intervals(values: Floats, *, resamples: int = 1000, seed: int = 0) -> list[Interval]:
    """The mean of each column with its interval. Shapes: (U, M) → M intervals.

    A column in which every user has the same value, such as no hit at all, gets an interval of
    width 0: the bootstrap knows only what was seen.
    """
    return statistic_intervals(values, lambda means: means, resamples=resamples, seed=seed)


def statistic_intervals(
    values: Floats, statistic: Callable[[Floats], Floats], *, resamples: int = 1000, seed: int = 0
) -> list[Interval]:
    """Like `mean_intervals`, for functions of the means: `statistic` maps (R, M) to (R, S).

    Used for ratios, such as the share of the best possible NDCG that a system reaches.
    """
    drawn = statistic(resampled_means(values, resamples=resamples, seed=seed))  # (R, S)
    centre = statistic(values.mean(axis=0, keepdims=True))[0]  # (S,)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return [
        Interval(float(c), float(a), float(b)) for c, a, b in zip(centre, low, high, strict=True)
    ]


def paired_test(
    first: Floats, second: Floats, *, resamples: int = 1000, flips: int = 9999, seed: int = 0
) -> PairedTest:
    """Compare one metric of two systems on the same users. Shapes: (U,), (U,).

    The p-value is that of the sign-flip test on the mean difference, with `flips` random flips: the
    share of flips with a mean at least as far from 0, the observed one counted among them. It is
    never below 1 / (flips + 1).

    Raises:
        InputError: different numbers of users, or none.
    """
    if first.shape != second.shape:
        raise InputError(
            f"a paired test needs the same users for both systems, got {len(first)} and "
            f"{len(second)} values; evaluate both on the same users"
        )
    differences = first - second  # (U,)
    interval = mean_intervals(differences[:, None], resamples=resamples, seed=seed)[0]
    return PairedTest(
        difference=interval,
        p_value=_sign_flip(differences, flips=flips, seed=seed),
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        users=len(differences),
    )


def holm(p_values: list[float]) -> list[float]:
    """P-values corrected for making several tests (Holm's step-down method), in the same order."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for done, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - done) * p_values[place]))
        corrected[place] = largest
    return corrected


def _sign_flip(differences: Floats, *, flips: int, seed: int) -> float:
    """Flip the sign of every user's difference at random; sizes that are equal flip together.

    Among n users with the same size a, the flipped sum is a · (2 · Binomial(n, ½) − n).
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)  # (D,)
    if len(sizes) == 0:
        return 1.0
    observed = abs(float(differences.sum()))
    slack = 1e-9 * float(sizes @ counts)  # sums in another order differ in their last digits
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(sizes))
    extreme = 0
    for start in range(0, flips, step):
        drawn = rng.binomial(counts, 0.5, size=(min(step, flips - start), len(sizes)))
        sums = (2 * drawn - counts) @ sizes
        extreme += int((np.abs(sums) >= observed - slack).sum())
    return (extreme + 1) / (flips + 1)
