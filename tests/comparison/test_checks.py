"""What can be known to go wrong is said before any work starts."""

import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_plans import make_plan

from mini_run import mini_recipe
from utgrec import storage
from utgrec.catalog import Domain, write_domain
from utgrec.comparison import DomainPlan, SystemPlan, compare
from utgrec.comparison.trained import runs_of
from utgrec.errors import (
    BadConfig,
    EmptyDomain,
    InputError,
    MissingStage,
    SettingsMismatch,
)
from utgrec.runs import Base, RunFolder, RunPlan, read_plan, train_run, write_plan


@pytest.fixture
def refused(tmp_path):
    """Compare, see the error, and see that no cell was begun."""

    def check(plan, error, message, out=tmp_path / "out"):
        with pytest.raises(error, match=message):
            compare(plan, out, isolated=False)
        assert not (out / "cells").exists() and not (out / "tuning").exists()

    return check


def short_domain(folder, lengths, name="short"):
    """Users with given numbers of interactions."""
    folder.mkdir()
    user = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    items = [f"i{index}" for index in range(10)]
    write_domain(
        folder,
        name=name,
        items=pa.table(
            {
                "item_id": items,
                "title": items,
                "text": items,
                "image": pa.array([None] * 10, pa.string()),
            }
        ),
        user_ids=[f"u{index}" for index in range(len(lengths))],
        interactions=pa.table(
            {
                "user": user,
                "item": (np.arange(len(user)) % 10).astype(np.int32),
                "timestamp": np.arange(len(user), dtype=np.int64),
            }
        ),
        config={},
        inputs={},
        facts={},
    )
    return folder


def test_unknown_names(domains, refused):
    refused(
        make_plan(domains, SystemPlan(name="x", family="itemkn")), BadConfig, "there is no baseline"
    )
    refused(make_plan(domains, SystemPlan(name="x", recipe="big")), BadConfig, "no recipe 'big'")
    steps = {"recommender.trainer.stepz": 1}
    refused(
        make_plan(domains, SystemPlan(name="x", recipe="mini", overrides=steps)),
        BadConfig,
        "names no setting",
    )
    refused(make_plan(domains, metric="ndcg@7"), BadConfig, "no metric 'ndcg@7'; there are recall")


def test_domains(domains, refused, tmp_path):
    refused(make_plan([tmp_path / "nothing"]), MissingStage, "nothing")
    refused(make_plan([domains[0], domains[0]]), BadConfig, "both named kitchen")
    shutil.copytree(domains[0], tmp_path / "copy")
    refused(make_plan([domains[0], tmp_path / "copy"]), BadConfig, "both named kitchen; prepare")
    bad = short_domain(tmp_path / "bad", [4] * 9, name="a/b")
    refused(make_plan([bad]), BadConfig, "named 'a/b'; a name must be letters")
    nobody = short_domain(tmp_path / "nobody", [2] * 9)
    refused(make_plan([nobody]), EmptyDomain, "no user of short .* has a test item")


def test_a_domain_stands_beside_its_cold_version(domains, tmp_path):
    cold = DomainPlan(folder=str(domains[0]), cold_share=0.2)
    popular = SystemPlan(name="popular", family="popularity", tuned=False)
    done = compare(make_plan([domains[0], cold], popular), tmp_path / "out", isolated=False)
    assert [domain["name"] for domain in done.figures["domains"]] == ["kitchen", "kitchen-cold"]


def test_groups_with_too_few_users(domains, refused, tmp_path):
    short = short_domain(tmp_path / "short", [4] * 9)
    refused(
        make_plan([domains[0], short], groups=("history",)),
        InputError,
        "too few users of short for the group 'history': by history length there are ≤ 5: 9",
    )
    refused(make_plan([short], groups=("image",)), InputError, "lower group_users")
    refused(
        make_plan([domains[0]], groups=("popularity",), group_users=61), InputError, "need 61 each"
    )


@pytest.fixture(scope="module")
def kitchen_run(domains, tmp_path_factory):
    """A trained run on the first domain."""
    out = tmp_path_factory.mktemp("runs") / "kitchen"
    train_run(mini_recipe(seed=3), domains[:1], out)
    return out


def test_runs_of_other_domains(domains, refused, kitchen_run, tmp_path):
    ours = SystemPlan(name="ours", runs=(str(kitchen_run),))
    refused(
        make_plan(domains, ours), InputError, r"trained on clothing .*kitchen \(kitchen\); give a"
    )
    cold = DomainPlan(folder=str(domains[0]), cold_share=0.2)
    refused(make_plan([cold], ours), InputError, "no run of system 'ours' was trained on kitchen-c")
    twice = SystemPlan(name="ours", runs=(str(kitchen_run), str(kitchen_run)))
    refused(make_plan(domains[:1], twice), InputError, "two runs with seed 3 on kitchen")
    nowhere = SystemPlan(name="ours", runs=(str(tmp_path / "nowhere"),))
    refused(make_plan(domains[:1], nowhere), MissingStage, "is no run")


def test_another_version_of_the_domain_is_another_domain(domains, refused, kitchen_run, tmp_path):
    changed = tmp_path / "kitchen"
    shutil.copytree(domains[0], changed)
    manifest = storage.read_json(changed / "domain.json")
    users = pq.read_table(changed / "users.parquet")
    ids = [f"_{name}" for name in users.column("user_id").to_pylist()]
    pq.write_table(pa.table({"user_id": ids}), changed / "users.parquet")
    manifest["files"]["users.parquet"] = storage.hash_file(changed / "users.parquet")
    storage.write_json(changed / "domain.json", manifest)
    refused(
        make_plan([changed], SystemPlan(name="ours", runs=(str(kitchen_run),))),
        InputError,
        "no run of system 'ours' was trained on kitchen",
    )


def test_a_finished_run_is_measured_with_its_own_seed(domains, kitchen_run, tmp_path):
    plan = make_plan(domains[:1], SystemPlan(name="ours", runs=(str(kitchen_run),)), seeds=(0, 1))
    done = compare(plan, tmp_path / "out", isolated=False)
    (system,) = done.figures["domains"][0]["systems"]
    assert system["seeds"] == [3] and system["beam"] == 20 and system["kind"] == "runs"
    cost = done.figures["measured"]["kitchen"]["ours"]
    stages_of_it = ("tokenizer", "codes/kitchen", "recommender", "ranker")
    parts = [kitchen_run / stage for stage in stages_of_it]
    stages = [storage.read_json(part / "manifest.json")["measured"] for part in parts]
    assert cost["train_s"] == pytest.approx(sum(stage["wall_s"] for stage in stages), abs=0.01)
    assert cost["peak_memory_mib"] >= max(stage["peak_memory_mib"] for stage in stages)


def test_folders_of_something_else(domains, tmp_path):
    plan = make_plan(domains)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty and is no comparison"):
        compare(plan, tmp_path, isolated=False)
    with pytest.raises(InputError, match="is a file"):
        compare(plan, tmp_path / "thesis.txt", isolated=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_settings_for_finished_cells(domains, tmp_path):
    compare(make_plan(domains[:1]), tmp_path, isolated=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for changes, what in (
        ({"exclude_seen": False}, "setting exclude_seen"),
        ({"budget": 2}, "setting budget"),
    ):
        with pytest.raises(SettingsMismatch, match=what):
            compare(make_plan(domains[:1], **changes), tmp_path, isolated=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_plan_may_grow(domains, tmp_path):
    first = compare(make_plan(domains[:1]), tmp_path, isolated=False)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*.parquet")}
    grown = compare(
        make_plan(
            domains,
            SystemPlan(name="knn", family="itemknn"),
            SystemPlan(name="popular", family="popularity", tuned=False),
            SystemPlan(name="plain", family="itemknn", tuned=False),
            seeds=(0, 1),
        ),
        tmp_path,
        isolated=False,
    )
    assert grown.finished_before == first.tasks == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_adaptations_of_one_base_have_seeds_of_their_own(domains, kitchen_run, tmp_path):
    runs, plan = {}, read_plan(RunFolder(kitchen_run))
    for seed in (0, 1):
        runs[seed] = tmp_path / f"adapted-{seed}"
        adapt = dataclasses.replace(plan.recipe.adapt, seed=seed)
        recipe = dataclasses.replace(plan.recipe, adapt=adapt)
        write_plan(RunFolder(runs[seed]), RunPlan(recipe, plan.domains, Base(kitchen_run, "", {})))
        for stage in ("tokenizer", "codes", "recommender"):
            shutil.copytree(kitchen_run / stage, runs[seed] / stage)
    system = SystemPlan(name="adapted", runs=tuple(map(str, runs.values())))
    assert runs_of(system, Domain.open(domains[0])) == runs
