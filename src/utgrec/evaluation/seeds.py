"""One system trained with several seeds, as one: each user's metrics are averaged over the seeds.

The average of a user is what intervals and paired tests are made from: users are the sample, seeds
are repeated measurements of the same users. How far the seeds lie apart is told beside it; it is no
part of the interval.

Shapes: U users · M metrics · S seeds.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from utgrec.errors import InputError
from utgrec.evaluation.metrics import Floats, MetricTable
from utgrec.evaluation.result import Evaluation, check_comparable


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SeedAverage:
    """The evaluations of one system with S ≥ 1 seeds; `comparison` takes it like an Evaluation."""

    evaluations: tuple[Evaluation, ...]
    """(S,) of the same users, in the order of the seeds."""
    system: str
    """Name of the system."""

    @property
    def part(self) -> str:
        """valid or test."""
        return self.evaluations[0].part

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the user's own history could not be recommended."""
        return self.evaluations[0].exclude_seen

    @property
    def ks(self) -> tuple[int, ...]:
        """Cuts of the metrics, ascending."""
        return self.evaluations[0].ks

    @property
    def item_count(self) -> int:
        """Items of the catalogue."""
        return self.evaluations[0].item_count

    @property
    def users(self) -> npt.NDArray[np.int64]:
        """(U,) indices in the domain."""
        return self.evaluations[0].users

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """(U,) the held-out items."""
        return self.evaluations[0].targets

    @cached_property
    def metrics(self) -> MetricTable:
        """Every user's metrics, averaged over the seeds. Shapes: (U, M)."""
        tables = [evaluation.metrics for evaluation in self.evaluations]
        return MetricTable(tables[0].names, np.mean([table.values for table in tables], axis=0))

    @cached_property
    def seed_means(self) -> Floats:
        """The mean over users of every seed. Shapes: (S, M)."""
        return np.stack([evaluation.metrics.values.mean(axis=0) for evaluation in self.evaluations])

    @cached_property
    def coverage(self) -> tuple[float, ...]:
        """For each k, the mean over seeds of the share of the catalogue that was recommended."""
        shares = np.mean([evaluation.coverage for evaluation in self.evaluations], axis=0)
        return tuple(float(share) for share in shares)

    @property
    def spread(self) -> dict[str, float] | None:
        """Metric → standard deviation over the seeds (n − 1); None with a single seed."""
        if len(self.evaluations) < 2:
            return None
        deviations = self.seed_means.std(axis=0, ddof=1)  # (M,)
        return dict(zip(self.metrics.names, map(float, deviations), strict=True))


def average_seeds(evaluations: Sequence[Evaluation], *, system: str) -> SeedAverage:
    """One system's evaluations with different seeds, as one.

    Raises:
        InputError: none, or not the same users, targets and settings.
    """
    if not evaluations:
        raise InputError(f"{system} has no evaluation; give at least that of one seed")
    check_comparable(evaluations)
    return SeedAverage(evaluations=tuple(evaluations), system=system)
