"""The tables of docs/quality.md: prepare a domain, compare all systems on it, keep the tables.

    python benchmarks/tables.py office industrial --work runs

A name is one of benchmarks/plans/*.toml. Finished cells are reused, so an interrupted benchmark
goes on. The domains are research data that stay outside the project (see their README).
"""

import argparse
import shutil
from pathlib import Path

from machine_facts import machine
from real_domains import K_CORE, SHARED
from utgrec import storage
from utgrec.comparison import compare, read_plan
from utgrec.data.prepare import TableOptions, prepare_table

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    plans = sorted(path.stem for path in (HERE / "plans").glob("*.toml"))
    parser.add_argument("plans", nargs="+", choices=plans)
    parser.add_argument("--work", type=Path, default=HERE.parent / "runs")
    parser.add_argument("--shared", type=Path, default=SHARED)
    arguments = parser.parse_args()
    for name in arguments.plans:
        plan = read_plan(HERE / "plans" / f"{name}.toml")
        for domain in plan.domains:
            source = Path(domain.folder).name
            options = TableOptions(k_core=K_CORE[source])
            prepare_table(arguments.shared / source, Path(domain.folder), options)
        out = arguments.work / "compare" / name
        compare(plan, out)
        found = storage.read_json(out / "comparison.json")
        storage.write_json(
            HERE / "results" / f"compare_{name}.json", {"machine": machine(), **found}
        )
        shutil.copy(out / "comparison.md", HERE / "results" / f"compare_{name}.md")


if __name__ == "__main__":
    main()
