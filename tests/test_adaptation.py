"""A finished run comes to a new shop: a run of its own, made as its regime says, or not at all."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import utgrec
from mini_run import contents, mini_domains, mini_recipe
from utgrec import storage
from utgrec.adaptation import adapt_run, plan_adaptation
from utgrec.catalog import Domain
from utgrec.data.cold import hold_out_items
from utgrec.errors import BadConfig, InputError, MissingStage, SettingsMismatch
from utgrec.recommender.train import read_recommender
from utgrec.regimes import REGIMES, recommender_settings, tokenizer_settings
from utgrec.report import write_report
from utgrec.runs import RunFolder, evaluate_run, read_plan, run_recipe, write_plan

ADAPT = mini_recipe().adapt


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """The shop that the base knows, a new one, and a third."""
    return mini_domains(tmp_path_factory.mktemp("shops"), ("kitchen", "clothing", "toys"))


@pytest.fixture(scope="module")
def base(shops, tmp_path_factory):
    """A finished run on the first shop; its contents before anybody adapted it."""
    out = tmp_path_factory.mktemp("base") / "run"
    run_recipe(mini_recipe(), shops[:1], out)
    return out, contents(out)


@pytest.fixture(scope="module")
def adapted(base, shops, tmp_path_factory):
    """Regime → its run folder and its manifests."""
    folder = tmp_path_factory.mktemp("adapted")
    return {
        regime: (
            folder / regime,
            adapt_run(
                base[0], shops[1], folder / regime, dataclasses.replace(ADAPT, regime=regime)
            ),
        )
        for regime in REGIMES
    }


def tokenizer_files(run):
    """The hashes of a run's tokenizer."""
    return storage.read_manifest(run / "tokenizer", "tokenizer").files


class TestRun:
    @pytest.mark.parametrize("regime", REGIMES)
    def test_it_is_a_run_like_any_other(self, adapted, shops, regime):
        out, done = adapted[regime]
        trained = ["tokenizer", "codes/clothing", "recommender", "ranker"]
        assert list(done) == [*trained, "evaluation/clothing"]
        # Zero-shot looks at no validation item, from which a ranker learns.
        assert ("lent" in done["ranker"].config) == (regime == "zero-shot")
        for name, manifest in done.items():
            assert storage.read_manifest(out / name, name.split("/")[0]) == manifest
            for file in manifest.files:
                storage.check_file(out / name, manifest, file)
        assert [path.name for path in out.rglob(".*")] == []
        loaded = utgrec.load(out)
        assert loaded.domain == "clothing"
        assert len(loaded.recommend(loaded.catalog.item_ids[:2], k=5)) == 5
        assert evaluate_run(out) == {"evaluation/clothing": done["evaluation/clothing"]}

    def test_it_says_what_it_was_adapted_from(self, adapted, base, shops):
        plan = read_plan(RunFolder(adapted["full"][0]))
        assert plan.recipe == mini_recipe()
        assert plan.domains == {"clothing": shops[1].resolve()}
        assert plan.base.path == base[0].resolve()
        assert plan.base.domains == {"kitchen": Domain.open(shops[0]).fingerprint}
        assert read_plan(RunFolder(base[0])).base is None
        marks = {read_plan(RunFolder(out)).base.fingerprint for out, _ in adapted.values()}
        assert len(marks) == 1

    def test_it_needs_its_base_no_more(self, adapted, tmp_path, base, shops):
        """Its base may be gone; only making it again would need it."""
        out = tmp_path / "alone"
        shutil.copytree(adapted["full"][0], out)
        values = json.loads((out / "run.json").read_text())
        values["base"]["path"] = str(tmp_path / "gone")
        (out / "run.json").write_text(json.dumps(values))
        there, here = utgrec.load(adapted["full"][0]), utgrec.load(out)
        history = here.catalog.item_ids[:3]
        assert here.recommend(history) == there.recommend(history)
        report = write_report(out, tmp_path / "report.html").read_text()
        # Where a warm-up ends, the curves have a mark; a tokenizer that went on has none.
        assert "codes on" not in report
        assert "codes on" in write_report(base[0], tmp_path / "base.html").read_text()

    def test_the_base_is_left_as_it_is(self, adapted, base):
        assert contents(base[0]) == base[1]

    def test_a_second_call_does_nothing(self, adapted, base, shops):
        out, done = adapted["full"]
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        assert adapt_run(base[0], shops[1], out) == done
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    def test_a_run_that_was_adapted_can_be_adapted(self, adapted, shops, tmp_path):
        out = tmp_path / "third"
        adapt_run(adapted["full"][0], shops[2], out)
        known = read_plan(RunFolder(out)).base.domains
        assert list(known) == ["kitchen", "clothing"]
        _, vocabulary, _ = read_recommender(out / "recommender")
        assert vocabulary.domains == ("kitchen", "clothing", "toys")
        assert utgrec.load(out).domain == "toys"


class TestRegimes:
    """What each of them trains is seen in the weights; `test_regimes` sees it in the settings."""

    def test_of_a_frozen_tokenizer_only_the_statistics_are_measured_anew(self, adapted, base):
        one, other = (tokenizer_files(adapted[r][0]) for r in ("frozen-tokenizer", "zero-shot"))
        assert one == other
        was, now = (
            load_file(run / "tokenizer" / "heads.safetensors")
            for run in (base[0], adapted["zero-shot"][0])
        )
        changed = {name for name in was if not torch.equal(was[name], now[name])}
        assert changed == {"standardize.mean", "standardize.variance"}
        before = tokenizer_files(base[0])
        files = {name for name in one if before[name] != one[name]}
        assert files == {"heads.safetensors"}

    def test_the_basis_is_frozen_unless_it_is_named(self, adapted, base):
        basis = {
            run: load_file(folder / "tokenizer" / "heads.safetensors")["quantizer.root.basis"]
            for run, folder in [("base", base[0]), *((r, adapted[r][0]) for r in REGIMES)]
        }
        same = {r for r in REGIMES if torch.equal(basis[r], basis["base"])}
        assert same == {"full", "frozen-tokenizer", "new-recommender", "zero-shot"}

    def test_the_tokenizer_does_not_depend_on_the_recommenders_start(self, adapted):
        one, other = (tokenizer_files(adapted[r][0]) for r in ("full", "new-recommender"))
        assert one == other

    def test_from_scratch_is_the_recipe_run_on_the_new_shop_alone(self, adapted, shops, tmp_path):
        recipe, adapt = mini_recipe(), dataclasses.replace(ADAPT, regime="from-scratch")
        alone = dataclasses.replace(
            recipe,
            tokenizer=tokenizer_settings(recipe.tokenizer, adapt),
            recommender=recommender_settings(recipe.recommender, adapt),
        )
        done = run_recipe(alone, shops[1:2], tmp_path / "alone")
        assert done == {
            name: dataclasses.replace(made, measured=done[name].measured)
            for name, made in adapted["from-scratch"][1].items()
        }

    def test_a_new_recommender_knows_the_new_shop_alone(self, adapted):
        known = {r: read_recommender(adapted[r][0] / "recommender")[1].domains for r in REGIMES}
        for regime, domains in known.items():
            new = regime in ("new-recommender", "from-scratch")
            assert domains == (("clothing",) if new else ("kitchen", "clothing"))

    def test_each_gives_something_else(self, adapted):
        made = {
            (done["tokenizer"].fingerprint, done["recommender"].fingerprint)
            for _, done in adapted.values()
        }
        assert len(made) == len(REGIMES)

    def test_a_part_is_left_out_of_what_is_trained(self, base, shops, tmp_path):
        """The logged sum is minimised: without a part it does not hold it any more."""
        weights = mini_recipe().tokenizer.weights
        for part in ("alignment", "co-occurrence"):
            adapt_run(base[0], shops[1], tmp_path / part, leave_out=[part])
            lines = (tmp_path / part / "tokenizer" / "losses.jsonl").read_text().splitlines()
            for row in map(json.loads, lines):
                align = weights.alignment * row["alignment"]
                partner = weights.partner * (
                    row["partner_text"] + weights.image * row["partner_image"]
                )
                rest = row["text"] + weights.image * row["image"] + weights.code * row["code"]
                kept = partner if part == "alignment" else align
                assert min(align, partner) > 0.01
                assert row["loss"] == pytest.approx(rest + kept, rel=1e-3)

    def test_without_a_tree_a_new_start_is_needed(self, base, shops, tmp_path):
        with pytest.raises(SettingsMismatch, match=r"quantizer.tree: True there, False asked"):
            adapt_run(base[0], shops[1], tmp_path / "out", leave_out=["tree"])
        fresh = dataclasses.replace(ADAPT, regime="from-scratch")
        done = adapt_run(base[0], shops[1], tmp_path / "out", fresh, leave_out=["tree"])
        assert done["codes/clothing"].facts["sizes"] == [8, 8, 8]


class TestRefusals:
    """Everything that cannot be is refused before anything is written."""

    def refused(self, error, message, base, domain, out, config=None, **more):
        before = sorted(out.rglob("*")) if out.exists() else None
        with pytest.raises(error, match=message):
            adapt_run(base, domain, out, config, **more)
        assert (sorted(out.rglob("*")) if out.exists() else None) == before

    def test_onto_itself(self, base, shops, tmp_path):
        self.refused(InputError, "is the base itself", base[0], shops[1], base[0])
        link = tmp_path / "link"
        link.symlink_to(base[0])
        self.refused(InputError, "is the base itself", base[0], shops[1], link)

    def test_onto_another_run(self, base, adapted, shops):
        """Made in another regime, or by no adaptation at all."""
        out = adapted["zero-shot"][0]
        self.refused(SettingsMismatch, "run with another recipe;", base[0], shops[1], out)
        source = adapted["full"][0]
        message = "run with another domains and other base;"
        self.refused(SettingsMismatch, message, source, shops[1], base[0])

    def test_a_base_that_is_no_run_or_not_finished(self, base, shops, tmp_path):
        out = tmp_path / "out"
        self.refused(MissingStage, "is no run", tmp_path, shops[1], out)
        half = tmp_path / "half"
        shutil.copytree(base[0], half)
        (half / "recommender" / "manifest.json").unlink()
        self.refused(MissingStage, "is not finished .*recommender", half, shops[1], out)

    def test_another_domain_of_a_name_that_the_base_knows(self, base, adapted, shops, tmp_path):
        (other,) = mini_domains(tmp_path / "other", ("kitchen",), seed=9)
        message = "knows another domain 'kitchen'"
        self.refused(SettingsMismatch, message, base[0], other, tmp_path / "out")
        # Also when it was met by the base's own base.
        self.refused(SettingsMismatch, message, adapted["full"][0], other, tmp_path / "out")

    def test_a_domain_whose_cold_items_the_base_knows(self, base, adapted, shops, tmp_path):
        cold = tmp_path / "kitchen-cold"
        hold_out_items(shops[0], 0.2, 0, cold)
        message = "was trained on kitchen, which kitchen-cold holds items out of"
        for regime in ("full", "zero-shot", "new-recommender"):
            config = dataclasses.replace(ADAPT, regime=regime)
            self.refused(SettingsMismatch, message, base[0], cold, tmp_path / "out", config)
        # Also when it was met by the base's own base; a new start knows nothing.
        self.refused(SettingsMismatch, message, adapted["full"][0], cold, tmp_path / "out")
        config = dataclasses.replace(ADAPT, regime="from-scratch")
        plan_adaptation(base[0], Domain.open(cold), cold, tmp_path / "out", config)

    def test_the_same_domain_may_be_learned_on(self, base, shops, tmp_path):
        done = adapt_run(base[0], shops[0], tmp_path / "more")
        assert done["recommender"].facts["domains"] == ["kitchen"]
        assert read_recommender(tmp_path / "more" / "recommender")[1].domains == ("kitchen",)

    def test_a_base_that_has_changed(self, base, shops, tmp_path):
        """The adapted run says of which base it is; another one in its place is not that."""
        out = tmp_path / "out"
        plan = plan_adaptation(base[0], Domain.open(shops[1]), shops[1], out)
        changed = plan.base._replace(fingerprint="0" * 64)
        write_plan(RunFolder(out), plan._replace(base=changed))
        self.refused(SettingsMismatch, "run with another base;", base[0], shops[1], out)

    def test_nothing_can_be_left_out_of_what_is_not_trained(self, base, shops, tmp_path):
        frozen = dataclasses.replace(ADAPT, regime="zero-shot")
        self.refused(
            BadConfig, "does not train the tokenizer, so alignment cannot be left out",
            base[0], shops[1], tmp_path / "out", frozen, leave_out=["alignment"],
        )  # fmt: skip

    def test_codebooks_without_a_basis(self, shops, tmp_path):
        """They cannot be adapted with a frozen one, but as they are."""
        recipe = mini_recipe()
        quantizer = dataclasses.replace(recipe.tokenizer.quantizer, kind="vq")
        plain = dataclasses.replace(
            recipe, tokenizer=dataclasses.replace(recipe.tokenizer, quantizer=quantizer)
        )
        run_recipe(plain, shops[:1], tmp_path / "base")
        out = tmp_path / "out"
        self.refused(BadConfig, "take the regime 'basis-too'", tmp_path / "base", shops[1], out)
        for regime in ("zero-shot", "basis-too"):
            config = dataclasses.replace(ADAPT, regime=regime)
            plan_adaptation(tmp_path / "base", Domain.open(shops[1]), shops[1], out, config)

    def test_no_room_for_another_domain(self, base, shops, tmp_path, monkeypatch):
        _, vocabulary, _ = read_recommender(base[0] / "recommender")
        full = dataclasses.replace(vocabulary, domain_slots=2)
        monkeypatch.setattr("utgrec.adaptation.read_vocabulary", lambda _: full)
        message = "got kitchen, clothing with 2 slots"
        self.refused(BadConfig, message, base[0], shops[1], tmp_path / "out")
        fresh = dataclasses.replace(ADAPT, regime="from-scratch")  # needs no room in the base
        plan_adaptation(base[0], Domain.open(shops[1]), shops[1], tmp_path / "out", fresh)
