"""Prepare real domains, run a recipe on each, and collect the figures beside the baselines.

    python benchmarks/real_domains.py beauty movies --work runs/real

Finished stages are reused, so an interrupted benchmark goes on and a finished one only collects.
The domains are research data that stay outside the project (see their README).
"""

import argparse
from pathlib import Path
from typing import Any

from machine_facts import machine
from utgrec import storage
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.recipes import find_recipe
from utgrec.runs import run_recipe

SHARED = Path(__file__).parents[2] / "shared" / "data"
K_CORE = {"beauty": 5, "movies": 5, "office": 1, "industrial": 1}


def measure(name: str, recipe: str, seed: int, work: Path, shared: Path) -> dict[str, Any]:
    """Everything about one domain: figures, code report, time and memory of every stage."""
    domain = work / "domains" / name
    prepare_table(shared / name, domain, TableOptions(k_core=K_CORE[name]))
    done = run_recipe(find_recipe(recipe, seed), [domain], work / name)
    codes = {k: v for k, v in done[f"codes/{name}"].facts.items() if k != "levels"}
    return {
        "domain": name,
        "recipe": recipe,
        "seed": seed,
        "systems": done[f"evaluation/{name}"].facts["systems"],
        "users": done[f"evaluation/{name}"].facts["users"],
        "beam": done[f"evaluation/{name}"].facts["beam"],
        "comparison": storage.read_json(work / name / "evaluation" / name / "comparison.json")[
            "rows"
        ],
        "codes": codes,
        "stages": {stage: manifest.measured for stage, manifest in done.items()},
        "wall_s": round(sum(manifest.measured["wall_s"] for manifest in done.values()), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domains", nargs="+", choices=sorted(K_CORE))
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/real"))
    parser.add_argument("--shared", type=Path, default=SHARED)
    arguments = parser.parse_args()
    for name in arguments.domains:
        result = measure(name, arguments.recipe, arguments.seed, arguments.work, arguments.shared)
        out = Path(__file__).parent / "results" / f"{arguments.recipe}_{name}.json"
        storage.write_json(out, {"machine": machine(), **result})
        print(name, result["systems"], f"{result['wall_s']} s")


if __name__ == "__main__":
    main()
