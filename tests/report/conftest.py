"""One finished run for all tests of the report: a simulated shop, and a hostile one of words."""

from pathlib import Path

import pytest
from fabricated_runs import fabricate_run, mini_recipe, write_hostile_domain

from utgrec.data.marketplace import MarketplaceConfig, write_marketplace


@pytest.fixture(scope="session")
def domains(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """kitchen has pictures and an oracle; words has neither, and titles made to break a page."""
    folder = tmp_path_factory.mktemp("domains")
    config = MarketplaceConfig(shops=("kitchen",), items_per_shop=40, users_per_shop=60)
    return [*write_marketplace(folder / "shops", config), write_hostile_domain(folder / "words")]


@pytest.fixture(scope="session")
def run(domains: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on both domains."""
    return fabricate_run(tmp_path_factory.mktemp("runs") / "both", domains, mini_recipe())


@pytest.fixture(scope="session")
def bare_run(domains: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the words alone: never validated, and its tokenizer logged nothing."""
    recipe = mini_recipe(steps=2, validate_every=0)
    out = tmp_path_factory.mktemp("runs") / "bare <b>run"
    return fabricate_run(out, domains[1:], recipe, with_losses=False)
