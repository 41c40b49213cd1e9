"""What does pre-training on other shops give a shop? Adapted, zero-shot and from scratch.

    python benchmarks/transfer.py office --others beauty movies industrial \
        --domains /tmp/domains --work runs/transfer

Pre-trains once on the other domains. Then, for every seed, adapts to the domain, trains the same
recipe from scratch on it, and takes the pre-trained run as it is (zero-shot). `utgrec compare` puts
them beside popularity and ItemKNN; its tables are kept under benchmarks/results. Finished stages
are reused, so an interrupted benchmark goes on. The domains are research data outside the project.
"""

import argparse
import dataclasses
import shutil
from pathlib import Path

from utgrec.adaptation import adapt_run
from utgrec.comparison import compare
from utgrec.comparison.plan import ComparisonPlan, DomainPlan, SystemPlan
from utgrec.recipes import find_recipe
from utgrec.runs import run_recipe

RESULTS = Path(__file__).parent / "results"


def make_runs(
    recipe: str, base: Path, domain: Path, seeds: int, regimes: list[str], work: Path
) -> tuple[SystemPlan, ...]:
    """Train everything that is compared on one domain."""
    made: dict[str, list[str]] = {}
    for seed in range(seeds):
        plain = find_recipe(recipe, seed)
        scratch = work / f"scratch-{seed}"
        run_recipe(plain, [domain], scratch)
        made.setdefault("from scratch", []).append(str(scratch))
        for regime in regimes:
            adapted = work / f"{regime}-{seed}"
            config = dataclasses.replace(plain.adapt, regime=regime, seed=seed)
            adapt_run(base, domain, adapted, config)
            made.setdefault(f"adapted {regime}", []).append(str(adapted))
    return tuple(SystemPlan(name=name, runs=tuple(runs)) for name, runs in made.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain")
    parser.add_argument("--others", nargs="+", required=True)
    parser.add_argument("--domains", type=Path, required=True, help="folder of prepared domains")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--regimes", nargs="+", default=["full", "zero-shot"])
    arguments = parser.parse_args()
    work = arguments.work / arguments.domain
    base = arguments.work / f"base-{'-'.join(arguments.others)}"
    others = [arguments.domains / name for name in arguments.others]
    run_recipe(find_recipe(arguments.recipe), others, base)
    domain = arguments.domains / arguments.domain
    trained = make_runs(arguments.recipe, base, domain, arguments.seeds, arguments.regimes, work)
    plan = ComparisonPlan(
        title=f"Transfer to {arguments.domain} from {', '.join(arguments.others)}",
        domains=(DomainPlan(folder=str(domain)),),
        systems=(
            SystemPlan(name="Popularity", family="popularity", tuned=False),
            SystemPlan(name="ItemKNN", family="itemknn"),
            *trained,
        ),
        reference=f"adapted {arguments.regimes[0]}",
        seeds=tuple(range(arguments.seeds)),
    )
    out = work / "comparison"
    compare(plan, out)
    for kind in ("md", "json"):
        name = f"transfer_{arguments.domain}.{kind}"
        shutil.copy(out / f"comparison.{kind}", RESULTS / name)


if __name__ == "__main__":
    main()
