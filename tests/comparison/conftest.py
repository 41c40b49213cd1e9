"""Tiny domains and a tiny recipe for the tests of comparisons."""

from pathlib import Path

import pytest

from mini_run import mini_domains, mini_recipe
from utgrec import recipes


@pytest.fixture(scope="session")
def domains(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two shops of 60 items and 60 users."""
    return mini_domains(tmp_path_factory.mktemp("shops"))


@pytest.fixture(autouse=True)
def mini(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that takes a second; checkpoints at every step."""

    def recipe(seed: int = 0) -> recipes.Recipe:
        return mini_recipe(seed=seed, checkpoint_every_s=0.0)

    monkeypatch.setitem(recipes.RECIPES, "mini", recipe)
