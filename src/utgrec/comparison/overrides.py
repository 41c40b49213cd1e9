"""Change single settings of a recipe by their dotted names: {"recommender.trainer.steps": 500}."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from utgrec.config import require
from utgrec.recipes import Recipe

# A comparison sets these itself, the same for all systems.
RESERVED = {
    "name": "the name of the recipe",
    "exclude_seen": "the plan's own exclude_seen",
}


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings changed; every class checks its own again.

    All changes of one class are made at once: each alone may break a rule that they keep together.

    Raises:
        BadConfig: a name that is no setting, a seed, or a value that does not fit.
    """
    for name in changes:
        require(
            name not in RESERVED,
            f"override {name!r} is not possible; it is {RESERVED.get(name, '')}",
        )
        require(
            name.rpartition(".")[2] != "seed",
            f"override {name!r} is not possible; seeds are those of the plan",
        )
    changed: Recipe = _replaced(recipe, "", changes)
    return changed


def _replaced(config: Any, before: str, changes: Mapping[str, Any]) -> Any:
    """A configuration with the changes whose dotted names begin with `before`."""
    known = [field.name for field in dataclasses.fields(config)]
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if not name.startswith(before):
            continue
        first, _, rest = name.removeprefix(before).partition(".")
        require(
            first in known,
            f"override {name!r} names no setting: {type(config).__name__} has no {first!r}; it has "
            f"{', '.join(sorted(known))}",
        )
        current = getattr(config, first)
        if not dataclasses.is_dataclass(current):
            require(not rest, f"override {name!r} names no setting: {first!r} has no parts")
            values[first] = _fitting(current, value, name)
            continue
        parts = (f"{name}.{field.name}" for field in dataclasses.fields(current))
        require(
            bool(rest), f"override {name!r} is a group of settings; name one of {', '.join(parts)}"
        )
        if first not in values:
            values[first] = _replaced(current, f"{before}{first}.", changes)
    return dataclasses.replace(config, **values)


def _fitting(current: Any, value: Any, whole: str) -> Any:
    """The value in the type of the one that it replaces."""
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(current, float) and type(value) is int:
        return float(value)
    require(
        current is None or type(value) is type(current),
        f"override {whole!r} must be a {type(current).__name__} like {current!r}, got {value!r}",
    )
    return value
