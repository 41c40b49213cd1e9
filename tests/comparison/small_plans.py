"""Plans on tiny domains, and what of a comparison must not differ between equal ones."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mini_run import contents
from utgrec import storage
from utgrec.comparison import ComparisonPlan, DomainPlan, SystemPlan

MEASURED = ("train_s", "peak_memory_mib", "ms_per_user")


def make_plan(domains: list[Path], *systems: SystemPlan, **changes: Any) -> ComparisonPlan:
    """A plan whose reference is the first system."""
    systems = systems or (
        SystemPlan(name="knn", family="itemknn"),
        SystemPlan(name="popular", family="popularity", tuned=False),
    )
    settings: dict[str, Any] = {
        "domains": tuple(
            folder if isinstance(folder, DomainPlan) else DomainPlan(folder=str(folder))
            for folder in domains
        ),
        "reference": systems[0].name,
        "budget": 3,
        "group_users": 5,
        "resamples": 200,
        **changes,
    }
    return ComparisonPlan(systems=systems, **settings)


def essence(out: Path) -> dict[str, Any]:
    """Everything that a comparison found, without seconds and MiB."""
    values = storage.read_json(out / "comparison.json")
    assert values.pop("measured")
    rows = pq.read_table(out / "comparison.parquet").to_pylist()
    return {
        "figures": json.dumps(values),
        "rows": [row for row in rows if row["metric"] not in MEASURED],
        # A run says where its domains are: in this very folder.
        **{
            f"{part}/{name}": digest
            for part in ("cells", "tuning", "runs", "domains")
            if (out / part).is_dir()
            for name, digest in contents(out / part).items()
            if not name.endswith("/run.json")
        },
    }
