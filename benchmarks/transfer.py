"""What does pre-training on other shops give a shop? Adapted, zero-shot and from scratch.

    python benchmarks/transfer.py office --others beauty movies industrial \
        --domains /tmp/domains --work runs/transfer [--codes-alone] [--users 0.25]

Pre-trains once on the other domains. Then, for every seed, adapts to the domain, trains the same
recipe from scratch on it, and takes the pre-trained run as it is (zero-shot), also with a ranker of
the shop's own in place of the lent one. `utgrec compare` puts them beside popularity and ItemKNN;
its tables are kept under benchmarks/results. Finished stages are reused, so an interrupted
benchmark goes on. With --codes-alone the recommender writes codes and nothing else, as the paper's
does: no item vectors, words, companions or contents, which learn or know a shop by themselves. With
--users a share of the shop's users is drawn and all others are
forgotten: a shop with a thin log. The domains are research data outside the project.
"""

import argparse
import dataclasses
import shutil
from pathlib import Path

import polars as pl

from real_domains import SHARED
from utgrec.adaptation import adapt_run
from utgrec.catalog import Domain
from utgrec.comparison import compare
from utgrec.comparison.plan import ComparisonPlan, DomainPlan, SystemPlan
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.recipes import Recipe, find_recipe
from utgrec.recommender.train import codes_alone
from utgrec.runs import RunFolder, read_plan, run_recipe, train_run, train_run_ranker
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig

RESULTS = Path(__file__).parent / "results"


def chosen_recipe(
    name: str, seed: int = 0, *, only_codes: bool = False, backbone: str | None = None
) -> Recipe:
    """The recipe of a name, on a language model, or what is left of it where codes speak alone."""
    recipe, change = find_recipe(name, seed), dataclasses.replace
    if backbone is not None:
        reads = PretrainedBackboneConfig(name=backbone, pictures=False)
        recipe = change(recipe, tokenizer=change(recipe.tokenizer, backbone=reads))
    if not only_codes:
        return recipe
    return change(recipe, name=f"{name}, codes alone", recommender=codes_alone(recipe.recommender))


def thin_shop(tables: Path, share: float, work: Path) -> Path:
    """The domain of a share of a shop's users, with the whole catalogue."""
    source, out = work / "tables" / tables.name, work / "domain" / tables.name
    source.mkdir(parents=True, exist_ok=True)
    log = pl.read_csv(tables / "interactions.csv.gz")
    users = log.select(pl.col("user_id").unique(maintain_order=True)).sample(fraction=share, seed=0)
    log.join(users, on="user_id", how="semi", maintain_order="left").write_csv(
        source / "interactions.csv"
    )
    shutil.copyfile(tables / "items.jsonl", source / "items.jsonl")
    out.parent.mkdir(exist_ok=True)
    prepare_table(source, out, TableOptions(k_core=1))
    return out


def make_runs(
    options: argparse.Namespace, base: Path, domain: Path, work: Path
) -> tuple[SystemPlan, ...]:
    """Train everything that is compared on one domain."""
    made: dict[str, list[str]] = {}
    for seed in range(options.seeds):
        plain = chosen_recipe(
            options.recipe, seed, only_codes=options.codes_alone, backbone=options.backbone
        )
        scratch = work / f"scratch-{seed}"
        run_recipe(plain, [domain], scratch)
        made.setdefault("from scratch", []).append(str(scratch))
        for regime in options.regimes:
            adapted = work / f"{regime}-{seed}"
            config = dataclasses.replace(plain.adapt, regime=regime, seed=seed)
            adapt_run(base, domain, adapted, config)
            made.setdefault(f"adapted {regime}", []).append(str(adapted))
            if regime == "zero-shot" and not options.codes_alone:
                ranked = with_own_ranker(adapted, domain)
                made.setdefault("zero-shot + own ranker", []).append(str(ranked))
    return tuple(SystemPlan(name=name, runs=tuple(runs)) for name, runs in made.items())


def with_own_ranker(adapted: Path, domain: Path) -> Path:
    """A zero-shot run whose ranker learned from the shop's validation items."""
    out = adapted.with_name(f"{adapted.name}-ranked")
    if not out.is_dir():
        part = out.with_name(f".{out.name}")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(adapted, part, ignore=shutil.ignore_patterns("ranker", "evaluation"))
        part.rename(out)
    folder = RunFolder(out)
    train_run_ranker(folder, read_plan(folder).recipe, [Domain.open(domain)])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain")
    parser.add_argument("--others", nargs="+", required=True)
    parser.add_argument("--domains", type=Path, required=True, help="folder of prepared domains")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--regimes", nargs="+", default=["full", "zero-shot"])
    parser.add_argument("--codes-alone", action="store_true")
    parser.add_argument("--backbone", help="hub name or folder of a language model: words alone")
    parser.add_argument("--users", type=float, default=1.0, help="share of the shop's users")
    parser.add_argument("--shared", type=Path, default=SHARED, help="tables of the shops")
    arguments = parser.parse_args()
    thin = f"_{100 * arguments.users:.0f}" if arguments.users < 1 else ""
    work = arguments.work / f"{arguments.domain}{thin}"
    base = arguments.work / f"base-{'-'.join(arguments.others)}"
    others = [arguments.domains / name for name in arguments.others]
    recipe = chosen_recipe(
        arguments.recipe, only_codes=arguments.codes_alone, backbone=arguments.backbone
    )
    train_run(recipe, others, base)
    domain = arguments.domains / arguments.domain
    if thin:
        domain = thin_shop(arguments.shared / arguments.domain, arguments.users, work)
    trained = make_runs(arguments, base, domain, work)
    what = ", codes alone" if arguments.codes_alone else ""
    what += f", {100 * arguments.users:.0f} % of users" if thin else ""
    what += f", read by {Path(arguments.backbone).name}" if arguments.backbone else ""
    plan = ComparisonPlan(
        title=f"Transfer to {arguments.domain} from {', '.join(arguments.others)}{what}",
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
    name = f"transfer_{work.name}{'_codes' if arguments.codes_alone else ''}"
    name += f"_{Path(arguments.backbone).name}" if arguments.backbone else ""
    for kind in ("md", "json"):
        shutil.copy(out / f"comparison.{kind}", RESULTS / f"{name}.{kind}")


if __name__ == "__main__":
    main()
