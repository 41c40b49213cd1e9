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

    Raises:
        BadConfig: a name that is no setting, a seed, or a value that does not fit.
    """
    for name, value in changes.items():
        require(
            name not in RESERVED,
            f"override {name!r} is not possible; it is {RESERVED.get(name, '')}",
        )
        require(
            name.rpartition(".")[2] != "seed",
            f"override {name!r} is not possible; seeds are those of the plan",
        )
        recipe = _replaced(recipe, name.split("."), value, name)
    return recipe


def _replaced(config: Any, path: list[str], value: Any, whole: str) -> Any:
    known = {field.name for field in dataclasses.fields(config)}
    first, rest = path[0], path[1:]
    require(
        first in known,
        f"override {whole!r} names no setting: {type(config).__name__} has no {first!r}; it has "
        f"{', '.join(sorted(known))}",
    )
    current = getattr(config, first)
    if dataclasses.is_dataclass(current):
        require(
            bool(rest),
            f"override {whole!r} names a group of settings; name one of "
            f"{', '.join(f'{whole}.{field.name}' for field in dataclasses.fields(current))}",
        )
        return dataclasses.replace(config, **{first: _replaced(current, rest, value, whole)})
    require(not rest, f"override {whole!r} names no setting: {first!r} has no parts")
    return dataclasses.replace(config, **{first: _fitting(current, value, whole)})


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
