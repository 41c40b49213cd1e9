"""A comparison as data: domains × systems × seeds, and how they are measured. Read from TOML.

Every value is checked when the plan is made, before any work starts. Paths in a file are relative
to that file.
"""

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utgrec.config import from_dict, require, require_types
from utgrec.errors import BadConfig, InputError

# What a plan may ask for, and the grouping of `evaluation.groups` that it means.
GROUPINGS = {
    "popularity": "popularity of the target",
    "history": "history length",
    "cold": "target in training",
    "image": "image of the target",
}
SEEDS = 2**32  # what every library takes
NAME = re.compile(r"\w[\w .+-]{0,59}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DomainPlan:
    """One domain of a comparison."""

    folder: str
    """The domain folder."""
    cold_share: float = 0.0
    """Share of the items to be held out of training, in a derived domain NAME-cold; 0 takes the
    domain as it is."""

    def __post_init__(self) -> None:
        require_types(self)
        require(
            0 <= self.cold_share < 1,
            f"cold_share of {self.folder} must be in [0, 1), got {self.cold_share}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemPlan:
    """One system of a comparison: exactly one of `family`, `recipe` and `runs` says what it is."""

    name: str
    """What the tables call it; also the name of its folders."""
    family: str | None = None
    """A baseline family, such as "itemknn"."""
    tuned: bool = True
    """Families: choose the settings on the validation items; false takes the family's defaults."""
    recipe: str | None = None
    """UTGRec, trained here with this recipe, once for each seed."""
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Dotted names of settings → values that differ from the recipe's, whatever the plan says."""
    together: bool = False
    """Recipes: one run learns all domains of the plan; false makes a run for each domain."""
    runs: tuple[str, ...] = ()
    """UTGRec, trained before: finished run folders. Every domain takes those that learned it."""

    def __post_init__(self) -> None:
        require_types(self)
        require(
            NAME.fullmatch(self.name) is not None and self.name == self.name.strip(),
            f"the name of a system is 1 to 60 letters, digits, spaces, '.', '_', '+' or '-' and "
            f"starts with a letter or digit, got {self.name!r}",
        )
        given = [what for what in ("family", "recipe", "runs") if getattr(self, what)]
        require(
            len(given) == 1,
            f"system {self.name!r} must have exactly one of family, recipe and runs, got "
            f"{' and '.join(given) or 'none'}",
        )
        for what, needs in (("overrides", "recipe"), ("together", "recipe")):
            require(
                not getattr(self, what) or getattr(self, needs) is not None,
                f"system {self.name!r} has {what}, which only a system with a {needs} can have",
            )
        require(
            self.tuned or self.family is not None,
            f"system {self.name!r} has tuned = false, which only a system with a family can have",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """Everything that a comparison does."""

    title: str = "Comparison"
    """Heading of the tables."""
    domains: tuple[DomainPlan, ...]
    """At least one."""
    systems: tuple[SystemPlan, ...]
    """At least one; the tables show them in this order."""
    reference: str
    """Name of the system that is tested against every other one."""
    seeds: tuple[int, ...] = (0,)
    """Every system is trained once with each."""
    budget: int = 8
    """Settings that are tried for each family on each domain."""
    budgets: dict[str, int] = dataclasses.field(default_factory=dict)
    """Families with a budget of their own, such as cheap ones whose whole grid can be tried."""
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings that differ from the recipe's in every system with a recipe."""
    exclude_seen: bool = True
    """Whether items of a user's own history cannot be recommended; the same for all systems."""
    metric: str = "ndcg@10"
    """The metric of the paired tests, of the groups and of the plots."""
    groups: tuple[str, ...] = ()
    """Of popularity, history, image and cold: what must be shown for every domain. By default each
    domain shows what it can."""
    group_users: int = 30
    """A group with fewer users is not shown (users)."""
    resamples: int = 1000
    """Resamples of the bootstrap over users."""
    cold_seed: int = 0
    """Draws the cold items of the derived domains."""

    def __post_init__(self) -> None:
        require_types(self)
        require(len(self.domains) > 0, "a plan needs at least one domain, got none")
        require(len(self.systems) > 0, "a plan needs at least one system, got none")
        _require_different("systems", [system.name for system in self.systems])
        # Names that differ in case alone are the same folder on some file systems.
        _require_different("systems", [system.name.casefold() for system in self.systems])
        _require_different("seeds", self.seeds)
        _require_different("groups", self.groups)
        require(
            len(self.seeds) > 0 and all(0 <= seed < SEEDS for seed in self.seeds),
            f"seeds must be at least one number from 0 to {SEEDS - 1}, got {list(self.seeds)}",
        )
        require(
            0 <= self.cold_seed < SEEDS,
            f"cold_seed must be a number from 0 to {SEEDS - 1}, got {self.cold_seed}",
        )
        for family, budget in [("", self.budget), *self.budgets.items()]:
            require(
                isinstance(budget, int) and budget >= 1,
                f"the budget{family and f' of {family!r}'} must be at least 1, got {budget!r}",
            )
        families = {system.family for system in self.systems}
        for family in self.budgets:
            require(
                family in families,
                f"budgets names the family {family!r}, which no system of the plan has",
            )
        require(
            not self.overrides or any(system.recipe is not None for system in self.systems),
            f"the plan overrides {', '.join(self.overrides)}, but no system of it has a recipe",
        )
        require(self.group_users >= 1, f"group_users must be at least 1, got {self.group_users}")
        require(self.resamples >= 100, f"resamples must be at least 100, got {self.resamples}")
        names = [system.name for system in self.systems]
        require(
            self.reference in names,
            f"the reference {self.reference!r} is none of the systems {', '.join(names)}",
        )
        unknown = [group for group in self.groups if group not in GROUPINGS]
        require(
            not unknown, f"there is no group {', '.join(unknown)}; there are {', '.join(GROUPINGS)}"
        )

    def budget_of(self, family: str) -> int:
        """Settings that are tried for a family."""
        return self.budgets.get(family, self.budget)


def read_plan(path: Path) -> ComparisonPlan:
    """Read a plan from a TOML file; folders in it become absolute.

    Raises:
        BadConfig: not TOML, an unknown or missing key, or a value outside its range.
        InputError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is no file; give a plan in TOML, see docs/comparison.md")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not valid TOML: {error}") from error
    plan = from_dict(ComparisonPlan, values)

    def absolute(folder: str) -> str:
        return str((path.parent / Path(folder).expanduser()).resolve())

    return dataclasses.replace(
        plan,
        domains=tuple(
            dataclasses.replace(domain, folder=absolute(domain.folder)) for domain in plan.domains
        ),
        systems=tuple(
            dataclasses.replace(system, runs=tuple(map(absolute, system.runs)))
            for system in plan.systems
        ),
    )


def _require_different(what: str, values: Sequence[Any]) -> None:
    repeated = sorted({value for value in values if list(values).count(value) > 1})
    require(
        not repeated,
        f"{what} must all be different, got {', '.join(map(str, repeated))} more than once",
    )
