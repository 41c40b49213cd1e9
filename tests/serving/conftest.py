"""One tiny run, trained once for all tests of the server."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from mini_run import mini_domains, mini_recipe
from utgrec.recommender.mixing import CODES_ALONE
from utgrec.runs import run_recipe
from utgrec.serving.generations import GenerationStore


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A finished run on one shop, which decodes in float32 so that scores can be compared.

    Its codes speak alone: the score of an item then does not depend on what else is allowed.
    """
    folder = tmp_path_factory.mktemp("serving")
    base = mini_recipe()
    recipe = dataclasses.replace(
        base,
        decoding=dataclasses.replace(base.decoding, beam=10, precision="fp32", mixing=CODES_ALONE),
    )
    run_recipe(recipe, mini_domains(folder / "market", ("kitchen",)), folder / "run")
    return folder / "run"


@pytest.fixture
def store(trained, tmp_path) -> GenerationStore:
    """A copy of the run that a test may change."""
    shutil.copytree(trained, tmp_path / "run")
    return GenerationStore(tmp_path / "run")
