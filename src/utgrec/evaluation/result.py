"""What an evaluation leaves behind: one rank per user, from which every figure can be computed.

Shapes: U users.
"""

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from utgrec.errors import CorruptFile, InputError
from utgrec.evaluation.intervals import mean_intervals
from utgrec.evaluation.metrics import MetricTable, metric_table, to_json_float

_SETTINGS = b"utgrec.evaluation"
_COLUMNS = {
    "user": "users",
    "target": "targets",
    "rank": "ranks",
    "history_length": "history_lengths",
    "repeat": "repeats",
    "given": "given",
}


class Measured(Protocol):
    """What can stand in a table: an `Evaluation`, or the average of several seeds."""

    @property
    def system(self) -> str:
        """Name of the system."""
        ...

    @property
    def part(self) -> str:
        """valid or test."""
        ...

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the user's own history could not be recommended."""
        ...

    @property
    def ks(self) -> tuple[int, ...]:
        """Cuts of the metrics, ascending."""
        ...

    @property
    def item_count(self) -> int:
        """Items of the catalogue, all of them candidates."""
        ...

    @property
    def users(self) -> npt.NDArray[np.int64]:
        """(U,) indices in the domain."""
        ...

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """(U,) the held-out items."""
        ...

    @property
    def metrics(self) -> MetricTable:
        """Recall, NDCG and MRR of every user. Shapes: (U, M)."""
        ...

    @property
    def coverage(self) -> tuple[float, ...]:
        """For each k, share of the catalogue that was recommended to somebody."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The ranks of one system on one part of one domain."""

    system: str
    """Name of the system."""
    part: str
    """valid or test."""
    exclude_seen: bool
    """Whether items of the user's own history could not be recommended."""
    ks: tuple[int, ...]
    """Cuts of the metrics, ascending."""
    item_count: int
    """Items of the catalogue, all of them candidates."""
    users: npt.NDArray[np.int64]
    """(U,) indices in the domain."""
    targets: npt.NDArray[np.int64]
    """(U,) the held-out items."""
    ranks: npt.NDArray[np.int32]
    """(U,) 0-based place of the target among the first max(ks), or -1."""
    history_lengths: npt.NDArray[np.int32]
    """(U,) items known of the user, not cut."""
    repeats: npt.NDArray[np.bool_]
    """(U,) whether the target is in the user's own history."""
    given: npt.NDArray[np.int32]
    """(U,) items that the system gave, at most max(ks)."""
    coverage: tuple[float, ...]
    """For each k, share of the catalogue that was recommended to somebody."""
    seconds: float = 0.0
    """Wall time inside the system, all users together (s). It differs from run to run, so it is
    not part of what is written; 0 when read back."""

    @cached_property
    def metrics(self) -> MetricTable:
        """Recall, NDCG and MRR of every user. Shapes: (U, M)."""
        return metric_table(self.ranks, self.ks)

    def mean(self, metric: str) -> float:
        """The mean of one metric over all users, such as "ndcg@10"."""
        return float(self.metrics.column(metric).mean())

    def summary(self, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Figures and settings as JSON values; intervals are 95 % bootstrap over users."""
        intervals = mean_intervals(self.metrics.values, resamples=resamples, seed=seed)
        return {
            "system": self.system,
            "part": self.part,
            "exclude_seen": self.exclude_seen,
            "users": len(self.users),
            "items": self.item_count,
            "ks": list(self.ks),
            "metrics": {
                name: interval.rounded()
                for name, interval in zip(self.metrics.names, intervals, strict=True)
            },
            "coverage": {
                str(k): to_json_float(share)
                for k, share in zip(self.ks, self.coverage, strict=True)
            },
            "targets_in_history": int(self.repeats.sum()),
            "users_with_fewer_items": int((self.given < max(self.ks)).sum()),
            "resamples": resamples,
            "seed": seed,
        }

    def to_table(self) -> pa.Table:
        """One row per user; the settings travel in the table's metadata (also in Parquet)."""
        settings = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _COLUMNS.values() and field.name != "seconds"
        }
        table = pa.table({column: getattr(self, name) for column, name in _COLUMNS.items()})
        return table.replace_schema_metadata({_SETTINGS: json.dumps(settings)})

    @classmethod
    def from_table(cls, table: pa.Table) -> "Evaluation":
        """The inverse of `to_table`.

        Raises:
            CorruptFile: not a table that `to_table` made.
        """
        metadata = table.schema.metadata or {}
        missing = [name for name in _COLUMNS if name not in table.column_names]
        if _SETTINGS not in metadata or missing:
            raise CorruptFile(
                f"a table with columns {', '.join(table.column_names)} is not an evaluation; "
                "evaluate again"
            )
        settings = json.loads(metadata[_SETTINGS])
        settings["ks"], settings["coverage"] = tuple(settings["ks"]), tuple(settings["coverage"])
        columns = {name: table.column(column).to_numpy() for column, name in _COLUMNS.items()}
        return cls(**settings, **columns)


def check_comparable(measured: Sequence[Measured]) -> None:
    """Refuse to put things side by side that were not measured in the same way.

    Raises:
        InputError: other users, targets, cuts, catalogue, part or rule for seen items.
    """
    first = measured[0]
    for other in measured[1:]:
        for what in ("part", "exclude_seen", "ks", "item_count"):
            if getattr(first, what) != getattr(other, what):
                raise InputError(
                    f"{first.system} has {what} {getattr(first, what)}, {other.system} has "
                    f"{getattr(other, what)}; evaluate both in the same way"
                )
        for what in ("users", "targets"):
            if not np.array_equal(getattr(first, what), getattr(other, what)):
                raise InputError(
                    f"{first.system} and {other.system} were evaluated on different {what}; "
                    "use the same split and sample"
                )
