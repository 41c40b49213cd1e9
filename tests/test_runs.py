"""A run folder: every stage once, one recipe, one set of domains, and ready to recommend."""

import dataclasses
import json

import numpy as np
import pytest

import utgrec
from mini_run import contents, mini_domains, mini_recipe
from utgrec import storage
from utgrec.catalog import Domain
from utgrec.errors import BadConfig, InputError, MissingStage, SettingsMismatch, UnknownItem
from utgrec.runs import (
    RunFolder,
    RunPlan,
    check_names,
    evaluate_run,
    read_plan,
    run_recipe,
    write_plan,
)

STAGES = [
    "tokenizer",
    "codes/kitchen",
    "codes/clothing",
    "recommender",
    "ranker",
    "evaluation/kitchen",
    "evaluation/clothing",
]


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """Two little shops."""
    return mini_domains(tmp_path_factory.mktemp("shops"))


@pytest.fixture(scope="module")
def run(domains, tmp_path_factory):
    """A finished run on both, and what it returned."""
    out = tmp_path_factory.mktemp("runs") / "both"
    return out, run_recipe(mini_recipe(), domains, out)


@pytest.fixture(scope="module")
def loaded(run):
    """The kitchen of the run."""
    return utgrec.load(run[0], domain="kitchen")


def times(folder):
    """Modification time of everything in a folder."""
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


class TestRun:
    def test_every_stage_is_there(self, run):
        out, done = run
        assert list(done) == STAGES
        for name, manifest in done.items():
            assert storage.read_manifest(out / name, name.split("/")[0]) == manifest
            for file in manifest.files:
                storage.check_file(out / name, manifest, file)

    def test_stages_name_what_they_read(self, run, domains):
        _, done = run
        kitchen, clothing = (Domain.open(folder).fingerprint for folder in domains)
        both = {"domain kitchen": kitchen, "domain clothing": clothing}
        codes = {f"codes {n}": done[f"codes/{n}"].fingerprint for n in ("kitchen", "clothing")}
        assert done["tokenizer"].inputs == both
        assert done["codes/kitchen"].inputs == {
            "tokenizer": done["tokenizer"].fingerprint,
            "domain kitchen": kitchen,
        }
        assert done["recommender"].inputs == both | codes
        assert done["evaluation/clothing"].inputs == {
            "codes": done["codes/clothing"].fingerprint,
            "recommender": done["recommender"].fingerprint,
            "ranker": done["ranker"].fingerprint,
            "domain clothing": clothing,
        }
        read = {"recommender": done["recommender"].fingerprint}
        assert done["ranker"].inputs == both | codes | read

    def test_nothing_hidden_is_left(self, run):
        assert [path.name for path in run[0].rglob(".*")] == []

    def test_nothing_that_people_exchange_is_a_pickle(self, run):
        kinds = {path.suffix for path in run[0].rglob("*") if path.is_file()}
        assert kinds <= {".json", ".jsonl", ".safetensors", ".parquet", ".md", ".jinja", ".txt"}
        for path in run[0].rglob("*"):
            if path.is_file():
                assert path.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x04", b"PK")

    def test_a_second_call_does_nothing(self, run, domains):
        out, done = run
        before = times(out)
        assert run_recipe(mini_recipe(), domains, out) == done
        assert times(out) == before

    def test_equal_runs_are_equal_bytes(self, run, domains, tmp_path):
        run_recipe(mini_recipe(), domains, tmp_path / "again")
        ours, theirs = contents(run[0]), contents(tmp_path / "again")
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if ours[name] != theirs[name]] == []
        assert len(ours) > 30

    def test_another_recipe_is_refused(self, run, domains):
        out, _ = run
        before = times(out)
        with pytest.raises(SettingsMismatch, match="run with another recipe;"):
            run_recipe(mini_recipe(steps=6), domains, out)
        assert times(out) == before

    def test_other_domains_are_refused(self, run, domains):
        with pytest.raises(SettingsMismatch, match="run with another domains;"):
            run_recipe(mini_recipe(), domains[:1], run[0])

    def test_evaluation_alone_finds_it_done(self, run):
        out, done = run
        found = evaluate_run(out)
        assert found == {name: done[name] for name in STAGES[-2:]}

    def test_only_the_missing_evaluation_is_made_again(self, run, domains):
        import shutil

        out, done = run
        before = contents(out)
        recommender = times(out / "recommender")
        shutil.rmtree(out / "evaluation" / "kitchen")
        assert evaluate_run(out)["evaluation/kitchen"].files == done["evaluation/kitchen"].files
        assert contents(out) == before
        assert times(out / "recommender") == recommender


class TestPlan:
    def test_it_comes_back(self, tmp_path):
        plan = RunPlan(mini_recipe(), {"a": tmp_path / "x", "b": tmp_path / "y"})
        folder = RunFolder(tmp_path / "run")
        write_plan(folder, plan)
        assert read_plan(folder) == plan
        write_plan(folder, plan)  # the same again is fine

    def test_a_relative_domain_is_remembered_absolutely(self, tmp_path, monkeypatch):
        from pathlib import Path

        monkeypatch.chdir(tmp_path)
        folder = RunFolder(tmp_path / "run")
        write_plan(folder, RunPlan(mini_recipe(), {"a": Path("x")}))
        assert read_plan(folder).domains == {"a": (tmp_path / "x").resolve()}

    def test_a_folder_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("precious")
        with pytest.raises(InputError, match="is not empty and is no run"):
            write_plan(RunFolder(tmp_path), RunPlan(mini_recipe(), {}))
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_kill_while_the_plan_was_written_does_not_lock_the_folder(self, tmp_path):
        (tmp_path / ".run.json.123.partial").write_text("{")
        write_plan(RunFolder(tmp_path), RunPlan(mini_recipe(), {}))
        assert read_plan(RunFolder(tmp_path)).domains == {}

    def test_no_run_and_another_version(self, tmp_path):
        with pytest.raises(MissingStage, match="is no run"):
            read_plan(RunFolder(tmp_path))
        (tmp_path / "run.json").write_text(json.dumps({"format_version": 9}))
        with pytest.raises(SettingsMismatch, match="format version 9, this UTGRec reads 1"):
            read_plan(RunFolder(tmp_path))

    @pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".hidden", "a" * 101, "x\n"])
    def test_names_that_are_no_folder_names_are_refused(self, domains, name):
        domain = Domain.open(domains[0])
        domain.name = name
        with pytest.raises(BadConfig, match=r"domain name .* must be letters"):
            check_names([domain])

    def test_names_must_be_different_and_there_must_be_one(self, domains):
        domain = Domain.open(domains[0])
        check_names([domain])
        with pytest.raises(BadConfig, match="different names, got kitchen, kitchen"):
            check_names([domain, domain])
        with pytest.raises(BadConfig, match="at least one domain"):
            check_names([])

    def test_a_recipe_needs_two_codes_at_least(self):
        with pytest.raises(BadConfig, match="code_length"):
            dataclasses.replace(mini_recipe().tokenizer.quantizer, code_length=1)


class TestLoad:
    def test_the_best_items_come_first_and_are_not_those_seen(self, loaded):
        history = loaded.catalog.item_ids[:4]
        found = loaded.recommend(history, k=10)
        assert len(found) == 10
        ids = [recommendation.item.item_id for recommendation in found]
        assert len(set(ids)) == 10
        assert not set(ids) & set(history)
        scores = [recommendation.score for recommendation in found]
        assert scores == sorted(scores, reverse=True)
        assert all(score < 0 for score in scores)
        assert all(item.image is None or item.image.is_file() for item, _ in found)

    def test_seen_items_come_back_on_request(self, loaded):
        history = loaded.catalog.item_ids
        assert loaded.recommend(history, k=3) == []
        assert len(loaded.recommend(history, k=3, exclude_seen=False)) == 3

    def test_many_at_once_is_one_at_a_time(self, loaded):
        ids = loaded.catalog.item_ids
        histories = [ids[:1], ids[5:30], [], ids[2:4]]
        together = loaded.recommend_batch(histories, k=5)
        for history, answer in zip(histories, together, strict=True):
            alone = loaded.recommend(history, k=5)
            assert [a.item.item_id for a in alone] == [a.item.item_id for a in answer]
            np.testing.assert_allclose([a.score for a in alone], [a.score for a in answer], 0.02)

    def test_wrong_histories_are_refused(self, loaded):
        with pytest.raises(UnknownItem, match="'nothing'"):
            loaded.recommend(["nothing"])
        with pytest.raises(InputError, match="list of item ids, got the text 'abc'"):
            loaded.recommend("abc")
        with pytest.raises(InputError, match="k must be at least 1, got 0"):
            loaded.recommend([], k=0)
        with pytest.raises(InputError, match="at least one history"):
            loaded.recommend_batch([])

    def test_a_run_of_several_domains_needs_a_name(self, run):
        with pytest.raises(InputError, match="knows kitchen, clothing; say which"):
            utgrec.load(run[0])
        with pytest.raises(InputError, match="does not know domain 'music'"):
            utgrec.load(run[0], domain="music")

    def test_a_run_that_is_not_finished_is_refused(self, tmp_path):
        write_plan(RunFolder(tmp_path), RunPlan(mini_recipe(), {"a": tmp_path}))
        with pytest.raises(MissingStage, match="no finished recommender"):
            utgrec.load(tmp_path)
