"""The generative recommender in the evaluation harness, and the evaluation stage of a domain."""

import json
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mini_run import mini_domains, mini_recipe
from utgrec.catalog import Domain
from utgrec.data.split import Split, leave_one_out
from utgrec.decoding import exact_scores
from utgrec.errors import BadConfig, SettingsMismatch
from utgrec.evaluation.generative import (
    DecodingConfig,
    GenerativeSystem,
    ValidationConfig,
    make_validator,
)
from utgrec.evaluation.protocol import evaluate
from utgrec.evaluation.stage import evaluate_domain
from utgrec.recommender.histories import CodedDomain, HistoryEncoder
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.train import read_memory, read_recommender
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.runs import RunFolder, run_recipe
from utgrec.tokenizer.codes import read_codes

ITEMS = 40
VOCABULARY = Vocabulary(root_size=4, leaf_size=5, code_length=3, domains=("a", "b"))


def make_model():
    """A recommender with random weights."""
    torch.manual_seed(0)
    sizes = T5Sizes(
        width=16, feed_forward=16, heads=2, head_width=8, encoder_layers=1, decoder_layers=1
    )
    model = T5Recommender.create(sizes, VOCABULARY).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def make_domain(name="a", seed=0, users=30):
    """A coded domain."""
    rng = np.random.default_rng(seed)
    codes = np.stack(np.unravel_index(rng.permutation(100)[:ITEMS], (4, 5, 5)), axis=1)
    histories = [rng.permutation(ITEMS)[: rng.integers(1, 12)] for _ in range(users)]
    split = Split(
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        train=np.concatenate(histories).astype(np.int32),
        valid=rng.integers(0, ITEMS, users).astype(np.int32),
        test=rng.integers(0, ITEMS, users).astype(np.int32),
    )
    return CodedDomain(name, codes.astype(np.int16), split)


def make_system(domain, *, beam=100, max_items=6):
    """The whole tree fits into the beam, so nothing is lost on the way."""
    return GenerativeSystem(
        make_model(),
        VOCABULARY,
        domain.name,
        domain.codes,
        max_items=max_items,
        decoding=DecodingConfig(beam=beam, precision="fp32"),
    )


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_best_items_are_those_of_the_exact_scorer(exclude_seen):
    domain = make_domain()
    histories = [domain.split.train_history(user) for user in range(30)]
    tokens, mask = HistoryEncoder("a", domain.codes, VOCABULARY, 6).encode(histories)
    codes = torch.from_numpy(domain.codes).long()
    scores = exact_scores(make_model().t5, VOCABULARY, tokens, mask, codes, prompt=3).numpy()
    found = make_system(domain).recommend_histories(histories, 10, exclude_seen=exclude_seen)
    for row, history in enumerate(histories):
        allowed = scores[row].copy()
        if exclude_seen:
            allowed[history] = -np.inf
        expected = np.argsort(-allowed)[:10]
        assert found.items[row].tolist() == expected.tolist()
        np.testing.assert_allclose(found.scores[row], allowed[expected], atol=1e-4)


def test_items_older_than_what_is_read_are_not_recommended_either():
    domain = make_domain()
    history = np.arange(30)
    found = make_system(domain, max_items=2).recommend_histories([history], 10, exclude_seen=True)
    assert set(found.items[0].tolist()) == set(range(30, 40))


def test_a_narrow_beam_still_gives_what_is_asked_for():
    domain = make_domain()
    found = make_system(domain, beam=1).recommend_histories([np.array([1])], 10, exclude_seen=True)
    assert (found.items >= 0).all()


@pytest.mark.parametrize("settings", [{"beam": 0}, {"precision": "int8"}])
def test_decoding_settings_outside_their_range_are_refused(settings):
    with pytest.raises(BadConfig, match=r"beam must|precision is"):
        DecodingConfig(**settings)


class TestValidator:
    def measure(self, domains, **settings):
        """What the validator measures on some domains."""
        config = ValidationConfig(beam=30, **settings)
        prepare = make_validator(config, max_items=6, exclude_seen=True)
        return prepare(make_model(), VOCABULARY, domains)()

    def test_it_is_ndcg_of_validation_items_and_the_mean_of_the_domains(self):
        domains = [make_domain("a", 0), make_domain("b", 1)]
        values = self.measure(domains)
        for domain in domains:
            system = GenerativeSystem(
                make_model(),
                VOCABULARY,
                domain.name,
                domain.codes,
                max_items=6,
                decoding=DecodingConfig(beam=30),
            )
            result = evaluate(
                system, domain.split, part="valid", item_count=ITEMS, exclude_seen=True
            )
            assert values[f"ndcg@10 {domain.name}"] == pytest.approx(result.mean("ndcg@10"))
        each = [values["ndcg@10 a"], values["ndcg@10 b"]]
        assert values["ndcg@10"] == pytest.approx(sum(each) / 2)
        assert each[0] != each[1]

    def test_a_sample_of_users_is_the_same_for_the_same_seed(self):
        domains = [make_domain(users=60)]
        first = self.measure(domains, users=10)
        assert self.measure(domains, users=10) == first
        others = {self.measure(domains, users=10, seed=seed)["ndcg@10"] for seed in range(1, 5)}
        assert len(others | {first["ndcg@10"]}) > 1
        assert self.measure(domains, users=60) == self.measure(domains, users=1000)


class Finished(NamedTuple):
    """A finished run on one simulated shop."""

    folder: RunFolder
    domain: Domain

    def again(self, out, **changes):
        """The evaluation stage with the run's settings."""
        values = {"decoding": mini_recipe().decoding, "exclude_seen": True, **changes}
        return evaluate_domain(
            self.domain,
            codes=self.folder.codes("kitchen"),
            recommender=self.folder.recommender,
            ranker=self.folder.ranker,
            out=out,
            **values,
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """All stages of the mini recipe."""
    folder = tmp_path_factory.mktemp("stage")
    domains = mini_domains(folder / "shops", ("kitchen",))
    run_recipe(mini_recipe(), domains, folder / "run")
    return Finished(RunFolder(folder / "run"), Domain.open(domains[0]))


class TestStage:
    def test_all_systems_are_side_by_side(self, run):
        out = run.folder.evaluation("kitchen")
        ranks = {path.stem for path in (out / "ranks").iterdir()}
        assert ranks == {"popularity", "itemknn", "itemknn__tuned", "utgrec", "oracle"}
        systems = json.loads((out / "manifest.json").read_text())["facts"]["systems"]
        assert set(systems) == {"Popularity", "ItemKNN", "ItemKNN, tuned", "UTGRec", "Oracle"}
        assert "UTGRec" in (out / "comparison.md").read_text()
        assert "UTGRec" in (out / "groups.md").read_text()

    def test_the_ranks_are_those_of_the_saved_recommender(self, run):
        model, vocabulary, config = read_recommender(run.folder.recommender)
        coded = read_codes(run.folder.codes("kitchen"))
        system = GenerativeSystem(
            model,
            vocabulary,
            "kitchen",
            coded.codes,
            max_items=config.max_items,
            decoding=mini_recipe().decoding,
            memory=read_memory(run.folder.recommender),
        )
        result = evaluate(
            system, leave_one_out(run.domain), part="test", item_count=60, exclude_seen=True
        )
        out = run.folder.evaluation("kitchen")
        found = pq.read_table(out / "ranks" / "utgrec.parquet")
        assert found.equals(result.to_table())
        facts = json.loads((out / "manifest.json").read_text())["facts"]
        assert facts["users"] == len(result.users) == 60
        assert facts["beam"] == 20
        assert facts["systems"]["UTGRec"]["ndcg@10"] == pytest.approx(
            result.mean("ndcg@10"), abs=1e-5
        )

    def test_other_settings_are_refused_and_the_same_do_nothing(self, run):
        out = run.folder.evaluation("kitchen")
        before = (out / "comparison.json").stat().st_mtime_ns
        run.again(out)
        assert (out / "comparison.json").stat().st_mtime_ns == before
        with pytest.raises(SettingsMismatch, match=r"decoding\.beam: 20 there, 21 asked"):
            run.again(out, decoding=DecodingConfig(beam=21))
        with pytest.raises(SettingsMismatch, match="exclude_seen: True there, False asked"):
            run.again(out, exclude_seen=False)

    def test_seen_items_count_when_they_are_not_excluded(self, run, tmp_path):
        manifest = run.again(tmp_path / "with seen", exclude_seen=False)
        assert manifest.config["exclude_seen"] is False
        ours = run.folder.evaluation("kitchen") / "ranks" / "utgrec.parquet"
        other = tmp_path / "with seen" / "ranks" / "utgrec.parquet"
        assert not pq.read_table(ours).equals(pq.read_table(other))
