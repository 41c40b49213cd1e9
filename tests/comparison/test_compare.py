"""A comparison says what its cells say, and an interrupted one ends as if nothing had happened."""

import json
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from small_plans import essence, make_plan

from mini_run import mini_domains
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.comparison import DomainPlan, SystemPlan, cells, compare, systems
from utgrec.comparison.folder import ComparisonFolder, Task, read_resolved
from utgrec.data.cold import choose_items
from utgrec.data.split import leave_one_out
from utgrec.errors import BadConfig, CellFailed, SettingsMismatch, TrainingError
from utgrec.evaluation.intervals import holm, mean_intervals, paired_test
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import evaluate
from utgrec.evaluation.result import Evaluation

PYTHON = sys.executable
TRAINED = (
    SystemPlan(name="ours", recipe="mini", overrides={"recommender.trainer.steps": 5}),
    SystemPlan(name="knn", family="itemknn"),
    SystemPlan(name="popular", family="popularity", tuned=False),
)


def whole_plan(domains):
    """A cold domain, a recipe, a tuned and a plain family, two seeds."""
    cold = DomainPlan(folder=str(domains[0]), cold_share=0.2)
    return make_plan([cold], *TRAINED, seeds=(0, 1))


@pytest.fixture(scope="session")
def whole(domains, tmp_path_factory):
    """That plan, done without a break."""
    from mini_run import mini_recipe
    from utgrec import recipes

    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            recipes.RECIPES, "mini", lambda seed: mini_recipe(seed=seed, checkpoint_every_s=0.0)
        )
        done = compare(whole_plan(domains), out, isolated=False)
    return out, done


class Stop(BaseException):
    """Like Ctrl-C."""


class StopAt:
    """Progress that ends everything at its n-th call for some work."""

    def __init__(self, work: str, number: int) -> None:
        self.work, self.left = work, number

    def __call__(self, work: str, done: int, total: int, note: str = "") -> None:
        self.left -= work.startswith(self.work)
        if self.left == 0:
            raise Stop


# ------------------------------------------------------------------------------------- what it says


def test_figures_are_those_of_the_cells(whole, domains):
    out, done = whole
    (domain,) = done.figures["domains"]
    assert [system["system"] for system in domain["systems"]] == ["ours", "knn", "popular"]
    ranks = {
        (name, seed): Evaluation.from_table(
            pq.read_table(out / f"cells/kitchen-cold/{name}/seed-{seed}/ranks.parquet")
        )
        for name in ("ours", "knn", "popular")
        for seed in (0, 1)
    }
    users = {
        name: (ranks[name, 0].metrics.values + ranks[name, 1].metrics.values) / 2
        for name in ("ours", "knn", "popular")
    }
    names = ranks["ours", 0].metrics.names
    for system in domain["systems"]:
        own = system["system"]
        found = mean_intervals(users[own], resamples=200)
        for place, metric in enumerate(names):
            values = system["metrics"][metric]
            assert values["value"] == pytest.approx(users[own][:, place].mean(), abs=1e-6)
            assert values["low"] == pytest.approx(found[place].low, abs=1e-6)
            means = [ranks[own, seed].metrics.values[:, place].mean() for seed in (0, 1)]
            assert values["sd"] == pytest.approx(np.std(means, ddof=1), abs=1e-6)
    assert domain["systems"][0]["metrics"]["ndcg@20"]["sd"] > 0  # else the seeds did nothing
    column = names.index("ndcg@10")
    tests = [
        paired_test(users["ours"][:, column], users[name][:, column], resamples=200)
        for name in ("knn", "popular")
    ]
    for system, test, corrected in zip(
        domain["systems"][1:], tests, holm([test.p_value for test in tests]), strict=True
    ):
        found = system["reference_minus_system"]
        assert found["difference"]["value"] == pytest.approx(test.difference.value, abs=1e-6)
        assert found["p_value"] == pytest.approx(test.p_value, abs=1e-6)
        assert found["p_corrected"] == pytest.approx(corrected, abs=1e-6)


def test_a_cell_is_what_evaluate_says(whole):
    out, _ = whole
    domain = Domain.open(out / "domains" / "kitchen-cold")
    split, count = leave_one_out(domain), len(domain.catalog)
    system = Popularity.fit(split, count)
    expected = evaluate(system, split, part="test", item_count=count, exclude_seen=True)
    table = pq.read_table(out / "cells/kitchen-cold/popular/seed-0/ranks.parquet")
    np.testing.assert_array_equal(table.column("rank").to_numpy(), expected.ranks)
    figures = storage.read_json(out / "cells/kitchen-cold/popular/seed-0/figures.json")
    assert figures["metrics"]["ndcg@10"]["value"] == pytest.approx(
        expected.mean("ndcg@10"), abs=1e-6
    )


def test_cold_items_never_occur_in_training(whole, domains):
    out, done = whole
    held = choose_items(Domain.open(domains[0]), 0.2, 0).items
    split = leave_one_out(Domain.open(out / "domains" / "kitchen-cold"))
    assert not np.isin(split.train, held).any() and not np.isin(split.valid, held).any()
    (domain,) = done.figures["domains"]
    (cold,) = [row for row in domain["groups"] if row["group"] == "cold"]
    assert cold["users"] >= np.isin(split.test[split.evaluated], held).sum() > 4
    assert cold["systems"]["knn"]["value"] == 0  # it knows nothing but training
    assert 0 < cold["chance_by_popularity"] < cold["chance"] < 0.2


def test_the_corrections_cover_all_domains(domains, tmp_path):
    done = compare(make_plan(domains), tmp_path, isolated=False)
    found = [
        system["reference_minus_system"]
        for domain in done.figures["domains"]
        for system in domain["systems"][1:]
    ]
    assert done.figures["tests"] == len(found) == 2
    expected = holm([test["p_value"] for test in found])
    np.testing.assert_allclose([test["p_corrected"] for test in found], expected, atol=1e-6)


def test_rows_markdown_and_json_say_the_same(whole):
    out, done = whole
    rows = pq.read_table(out / "comparison.parquet").to_pylist()
    assert {(row["system"], row["seed"]) for row in rows} == {
        (name, seed) for name in ("ours", "knn", "popular") for seed in (0, 1)
    }
    assert len(rows) == 6 * (7 + 3 + 3)
    text = (out / "comparison.md").read_text()
    for system in done.figures["domains"][0]["systems"]:
        values = system["metrics"]["ndcg@10"]
        mean = [
            row["value"]
            for row in rows
            if row["system"] == system["system"] and row["metric"] == "ndcg@10"
        ]
        assert values["value"] == pytest.approx(np.mean(mean), abs=1e-6)
        assert f"{values['value']:.4f} ({values['low']:.4f}-{values['high']:.4f})" in text
    assert "ours (beam 20)" in text and "chance by popularity" in text
    assert storage.read_json(out / "comparison.json") == json.loads(json.dumps(done.figures))


def test_families_are_tuned_once_and_the_seeds_share_the_settings(whole, domains, tmp_path):
    out, done = whole
    assert [path.name for path in (out / "tuning" / "kitchen-cold").iterdir()] == ["itemknn"]
    record = done.figures["domains"][0]["tuning"]["itemknn"]
    assert len(record["trials"]) == 3
    best = max(record["trials"], key=lambda trial: trial["metrics"]["ndcg@10"])
    assert record["best"] == best
    for seed in (0, 1):
        cell = storage.read_manifest(out / f"cells/kitchen-cold/knn/seed-{seed}", "cell")
        assert cell.facts["settings"] == record["settings"]
        assert cell.facts["settings"].items() <= best["settings"].items()


def test_seen_items_are_one_switch_for_all(domains, tmp_path):
    overrides = {"recommender.trainer.steps": 2, "tokenizer.trainer.steps": 3}
    ours = SystemPlan(name="ours", recipe="mini", overrides=overrides)
    plan = make_plan(domains[:1], ours, *TRAINED[1:], exclude_seen=False)
    compare(plan, tmp_path, isolated=False)
    for name in ("ours", "knn", "popular"):
        table = pq.read_table(tmp_path / f"cells/kitchen/{name}/seed-0/ranks.parquet")
        assert not Evaluation.from_table(table).exclude_seen
    recipe = storage.read_json(tmp_path / "runs/kitchen/ours/seed-0/run.json")["recipe"]
    assert recipe["exclude_seen"] is False


def test_one_run_for_all_domains(domains, tmp_path):
    system = SystemPlan(name="ours", recipe="mini", together=True)
    cold = DomainPlan(folder=str(domains[0]), cold_share=0.2)
    compare(make_plan(domains, system), tmp_path, isolated=False)
    runs = [path.parent for path in (tmp_path / "runs").rglob("run.json")]
    assert runs == [tmp_path / "runs/_together/ours/seed-0"]
    made = storage.read_manifest(runs[0] / "recommender", "recommender")
    assert made.facts["domains"] == ["kitchen", "clothing"]
    # With a further domain it would be another run, also for the cells that are there.
    further = mini_domains(tmp_path / "shops", ("toys",))
    with pytest.raises(SettingsMismatch, match="input domain toys"):
        compare(make_plan([*domains, *further], system), tmp_path, isolated=False)
    # The cold items of one version are trained in the other.
    with pytest.raises(BadConfig, match="kitchen and kitchen-cold are made from the same log"):
        compare(make_plan([*domains, cold], system), tmp_path / "cold", isolated=False)
    assert not (tmp_path / "cold" / "cells").exists()


def test_a_run_begun_with_other_settings_is_refused_before_it_goes_on(domains, tmp_path):
    plan = make_plan(domains[:1], SystemPlan(name="ours", recipe="mini"))
    with pytest.raises(Stop):
        compare(plan, tmp_path, StopAt("Training the tokenizer", 2), isolated=False)
    other = SystemPlan(name="ours", recipe="mini", overrides={"decoding.beam": 30})
    with pytest.raises(SettingsMismatch, match="another recipe"):
        compare(make_plan(domains[:1], other), tmp_path, isolated=False)


# --------------------------------------------------------------------------------- interruptions


def test_a_comparison_stopped_inside_cells_ends_like_an_uninterrupted_one(whole, domains, tmp_path):
    for work, number in (
        ("Training the tokenizer", 3),
        ("Training the recommender", 4),
        ("Training the recommender", 7),  # that of the second seed
        ("Evaluating knn", 1),
    ):
        with pytest.raises(Stop):
            compare(whole_plan(domains), tmp_path, StopAt(work, number), isolated=False)
    compare(whole_plan(domains), tmp_path, isolated=False)
    assert essence(tmp_path) == essence(whole[0])
    assert [path for path in tmp_path.rglob(".*") if path.suffix == ".partial"] == []


@pytest.mark.parametrize("number", range(1, 5))
def test_a_comparison_stopped_between_cells_ends_like_an_uninterrupted_one(
    apart, domains, tmp_path, number
):
    plan = make_plan(domains[:1])
    for _ in range(2):  # stopped twice
        with pytest.raises(Stop):
            compare(plan, tmp_path, StopAt("", number), isolated=False)
    compare(plan, tmp_path, isolated=False)
    assert essence(tmp_path) == essence(apart)


def test_an_interrupted_cell_goes_on_where_it_was(domains, tmp_path):
    plan = make_plan(domains[:1], TRAINED[0])
    with pytest.raises(Stop):
        compare(plan, tmp_path, StopAt("Training the recommender", 4), isolated=False)
    steps = []
    compare(plan, tmp_path, lambda work, done, *_: steps.append((work, done)), isolated=False)
    again = [done for work, done in steps if work == "Training the recommender"]
    assert again[0] in (3, 4) and "Training the tokenizer" not in dict(steps)


def test_nothing_is_done_twice(whole, domains):
    out, _ = whole
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")}
    again = compare(whole_plan(domains), out, isolated=False)
    assert again.finished_before == again.tasks == 7
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")} == before


def test_a_failed_cell_is_told_at_once_and_does_not_stop_the_others(
    domains, tmp_path, monkeypatch, caplog
):
    fit = systems.fit_family

    def fail(name, given, *rest):
        if name == "itemknn" and given.seed == 1:
            raise TrainingError("the loss is not finite")
        return fit(name, given, *rest)

    monkeypatch.setattr(systems, "fit_family", fail)
    plan = make_plan(domains, seeds=(0, 1))
    told: list[int] = []  # failures that were told when each task began

    def begin(work, done, total, note=""):
        if work == "Comparing":
            told.append(len(caplog.records))

    with pytest.raises(CellFailed, match=r"2 of 10 tasks failed(.|\n)*knn on kitchen, seed 1"):
        compare(plan, tmp_path, begin, isolated=False)
    assert told[0] == 0 and 1 in told and told[-1] == 2
    assert "knn on kitchen, seed 1 failed: TrainingError: the loss is not finite" in caplog.text
    assert not (tmp_path / "comparison.json").exists()
    assert len(list((tmp_path / "cells").rglob("manifest.json"))) == 6
    monkeypatch.undo()
    done = compare(plan, tmp_path, isolated=False)
    assert done.finished_before == 8


def test_cells_of_a_tuning_that_failed_are_not_begun(domains, tmp_path, monkeypatch):
    def fail(*_):
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr(systems, "tune_family", fail)
    with pytest.raises(CellFailed, match="1 of 3 tasks failed"):
        compare(make_plan(domains[:1]), tmp_path, isolated=False)
    made = sorted(path.parent.parent.name for path in (tmp_path / "cells").rglob("manifest.json"))
    assert made == ["popular"]


# -------------------------------------------------------------------------- processes of their own


@pytest.fixture(scope="session")
def apart(domains, tmp_path_factory):
    """Two families on one domain, each cell in a process of its own."""
    out = tmp_path_factory.mktemp("apart") / "out"
    ballast = np.ones(2**26)  # 512 MiB that no cell may be blamed for
    compare(make_plan(domains[:1]), out)
    assert ballast.sum() > 0
    return out


def test_processes_of_their_own_change_nothing(apart, domains, tmp_path):
    compare(make_plan(domains[:1]), tmp_path, isolated=False)
    assert essence(apart) == essence(tmp_path)
    assert list((apart / "logs").iterdir()) == []


def test_peak_memory_is_that_of_the_cell(apart):
    found = storage.read_json(apart / "comparison.json")["measured"]["kitchen"]
    for cost in found.values():
        assert 40 < cost["peak_memory_mib"] < 400


def test_a_crash_is_the_cells_own(domains, tmp_path, monkeypatch):
    """A file that is not what its manifest names; and a process that dies without a word."""
    out = tmp_path / "out"
    plan = make_plan(domains[:1], SystemPlan(name="popular", family="popularity", tuned=False))
    folder = ComparisonFolder(out)
    task = Task("cell", "kitchen", "popular", 0)
    killed = 'import os; os.write(2, b"no memory"); os.kill(os.getpid(), 9)'
    monkeypatch.setattr(sys, "executable", _program(tmp_path, killed))
    with pytest.raises(CellFailed, match=r"ended by SIGKILL \(often: .* out of memory\)"):
        compare(plan, out)
    assert folder.log(task).read_text() == "no memory"
    with pytest.MonkeyPatch.context() as patch:
        told = 'print(\'["error", "CorruptFile", "x is missing"]\')'
        patch.setattr(sys, "executable", _program(tmp_path, told))
        with pytest.raises(
            CellFailed, match="popular on kitchen, seed 0 failed: CorruptFile: x is"
        ):
            compare(plan, out)
    monkeypatch.undo()
    assert compare(plan, out).finished_before == 0
    assert not folder.log(task).exists()


def _program(folder, code):
    """An executable that runs some Python instead of a cell."""
    path = folder / "program"
    path.write_text(f"#!{PYTHON}\n{code}\n")
    path.chmod(0o700)
    return str(path)


def test_a_killed_comparison_leaves_no_process_and_goes_on(apart, domains, tmp_path):
    out = tmp_path / "out"
    script = f"""
        from pathlib import Path
        from utgrec.comparison import ComparisonPlan, DomainPlan, SystemPlan, compare
        compare(
            ComparisonPlan(
                domains=(DomainPlan(folder={str(domains[0])!r}),),
                systems=(
                    SystemPlan(name="knn", family="itemknn"),
                    SystemPlan(name="popular", family="popularity", tuned=False),
                ),
                reference="knn", budget=3, group_users=5, resamples=200,
            ),
            Path({str(out)!r}),
        )
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    try:
        workers = _wait_for(lambda: psutil.Process(parent.pid).children())
        _wait_for(lambda: list(out.glob("tuning/*/*/manifest.json")) or parent.poll() is not None)
        workers = psutil.Process(parent.pid).children() or workers
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    assert not (out / "comparison.json").exists()
    compare(make_plan(domains[:1]), out, isolated=False)
    assert essence(out) == essence(apart)


def _wait_for(condition):
    """What a condition gives once it gives something."""
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited for 12 seconds")


def test_the_worker_finds_its_task_in_the_folder(apart):
    resolved = read_resolved(ComparisonFolder(apart))
    assert list(resolved.domains) == ["kitchen"]
    manifest, evaluation = cells.read_cell(
        ComparisonFolder(apart), Task("cell", "kitchen", "knn", 0)
    )
    assert manifest.facts["system"] == evaluation.system == "knn"
