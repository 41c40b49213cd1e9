"""A recommender goes on from another, and knows a domain that it never saw."""

import dataclasses

import numpy as np
import pytest
import torch
from test_train_recommender import CONFIG, SIZES, codes_of, validator, write, write_codes

from utgrec import storage
from utgrec.errors import BadConfig, SettingsMismatch
from utgrec.recommender.causal import CausalSizes, WindowBatch
from utgrec.recommender.domain_tokens import copy_token, leave_unnamed
from utgrec.recommender.item_vectors import catalog_keys
from utgrec.recommender.lend import lend_recommender
from utgrec.recommender.mixing import CODES_ALONE, Mixing, between
from utgrec.recommender.prefixes import PrefixBatch
from utgrec.recommender.t5 import T5Recommender
from utgrec.recommender.train import (
    coded_domain,
    continue_recommender,
    read_mixing,
    read_recommender,
    train_recommender,
)
from utgrec.recommender.vocabulary import Vocabulary

TRAINER = dataclasses.replace(CONFIG.trainer, steps=4, validate_every=0)
SHORT = dataclasses.replace(CONFIG, trainer=TRAINER)


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Three domains with codes of one tokenizer."""
    folder = tmp_path_factory.mktemp("shops")
    return folder, [write(folder, name, seed) for seed, name in enumerate(("one", "two", "three"))]


def fit(shops, which, out, config=SHORT, **more):
    """Train on some of the domains."""
    folder, domains = shops
    chosen = [domains[index] for index in which]
    return train_recommender(
        chosen, codes_of(folder, chosen), config, out, validator=validator([]), **more
    )


@pytest.fixture(scope="module")
def bases(shops, tmp_path_factory):
    """One that knows a single domain, and one that knows two."""
    folder = tmp_path_factory.mktemp("bases")
    for name, which in (("single", [0]), ("both", [0, 1])):
        fit(shops, which, folder / name)
    return folder


def logits(model, vocabulary, domain_token):
    """What the model says after a history that carries this domain token."""
    codes = vocabulary.to_tokens(torch.tensor([[0, 1, 2], [3, 4, 0]])).flatten()
    tokens = torch.cat([torch.tensor([domain_token]), codes, torch.tensor([1])])[None]
    written = torch.tensor([[0, 5]])
    with torch.no_grad():
        return model.eval().t5(input_ids=tokens, decoder_input_ids=written).logits


class TestStart:
    def test_before_its_first_step_a_new_domain_is_any_domain(self, bases, shops):
        _, domains = shops
        for base in ("single", "both"):
            model, vocabulary = continue_recommender(bases / base, domains[2:], SIZES, SHORT)
            known = read_recommender(bases / base)[1]
            assert vocabulary.domains == (*known.domains, "three")
            said = [
                logits(model, vocabulary, token)
                for token in (vocabulary.domain_token("three"), vocabulary.any_domain)
            ]
            assert torch.equal(*said)
            another = logits(model, vocabulary, vocabulary.domain_token("one"))
            # With one domain its token tells nothing apart, so it is the one for any domain.
            assert torch.equal(said[0], another) == (base == "single")

    def test_all_weights_move_and_no_shape_changes(self, bases, shops, tmp_path):
        fit(shops, [2], tmp_path / "out", start=bases / "both")
        before, after = (
            dict(read_recommender(path)[0].named_parameters())
            for path in (bases / "both", tmp_path / "out")
        )
        assert before.keys() == after.keys()
        for name, value in before.items():
            assert value.shape == after[name].shape
            assert not torch.equal(value, after[name]), name

    def test_it_goes_on_from_the_weights(self, bases, shops, tmp_path):
        """With a rate that is next to nothing, the weights stay those of the start."""
        slow = dataclasses.replace(SHORT, trainer=dataclasses.replace(TRAINER, learning_rate=1e-12))
        fit(shops, [2], tmp_path / "out", slow, start=bases / "both")
        expected, vocabulary = continue_recommender(bases / "both", shops[1][2:], SIZES, slow)
        copy_token(expected, vocabulary, vocabulary.domain_token("three"), vocabulary.any_domain)
        found, known, _ = read_recommender(tmp_path / "out")
        assert known == vocabulary
        for name, value in found.state_dict().items():
            torch.testing.assert_close(value, expected.state_dict()[name], atol=1e-9, rtol=0)

    def test_it_names_its_start_and_resumes(self, bases, shops, tmp_path):
        start = storage.read_manifest(bases / "both", "recommender").fingerprint
        made = fit(shops, [2], tmp_path / "whole", start=bases / "both")
        assert made.inputs["start"] == start
        with pytest.raises(SettingsMismatch, match=r"other input \(start\)"):
            fit(shops, [2], tmp_path / "whole")

        def stop(work, done, total, note=""):
            if done == 2:
                raise KeyboardInterrupt

        eager = dataclasses.replace(
            SHORT, trainer=dataclasses.replace(TRAINER, checkpoint_every_s=0.0)
        )
        more = {"start": bases / "both"}
        with pytest.raises(KeyboardInterrupt):
            fit(shops, [2], tmp_path / "cut", eager, progress=stop, **more)
        assert fit(shops, [2], tmp_path / "cut", eager, **more).files == made.files

    def test_a_domain_that_it_knows_keeps_its_token(self, bases, shops, tmp_path):
        fit(shops, [1], tmp_path / "out", start=bases / "both")
        assert read_recommender(tmp_path / "out")[1].domains == ("one", "two")

    def test_label_smoothing_is_the_new_configurations(self, bases, shops):
        smooth = dataclasses.replace(SHORT, label_smoothing=0.2)
        model, _ = continue_recommender(bases / "both", shops[1][2:], SIZES, smooth)
        assert model.label_smoothing == 0.2

    def test_other_sizes_are_refused(self, bases, shops, tmp_path):
        wide = dataclasses.replace(SHORT, sizes=dataclasses.replace(SHORT.sizes, feed_forward=32))
        with pytest.raises(SettingsMismatch, match="use its own sizes"):
            fit(shops, [2], tmp_path / "out", wide, start=bases / "both")
        slots = dataclasses.replace(SHORT, domain_slots=9)
        with pytest.raises(SettingsMismatch, match=r"32 domain slots, asked are .* and 9"):
            fit(shops, [2], tmp_path / "out", slots, start=bases / "both")

    def test_codes_of_other_sizes_are_refused(self, bases, shops, tmp_path):
        domain = shops[1][2]
        codes = write_codes(tmp_path / "codes", domain, sizes=(4, 6, 6))
        with pytest.raises(SettingsMismatch, match=r"reads codes of sizes \(4, 5, 5\), those"):
            train_recommender(
                [domain], [codes], SHORT, tmp_path / "out",
                validator=validator([]), start=bases / "both",
            )  # fmt: skip


class TestZeroShot:
    def test_only_the_new_domains_token_differs(self, bases, shops, tmp_path):
        folder, domains = shops
        made = lend_recommender(
            bases / "both", domains[2], folder / "codes three", tmp_path / "out"
        )
        assert made.facts["steps_done"] == 0
        before, known, config = read_recommender(bases / "both")
        after, vocabulary, kept = read_recommender(tmp_path / "out")
        assert kept == config
        assert vocabulary == known.with_domain("three")
        own = vocabulary.domain_token("three")
        assert not torch.equal(before.t5.shared.weight[own], after.t5.shared.weight[own])
        for name, value in before.named_parameters():
            other = dict(after.named_parameters())[name]
            if len(value) == vocabulary.size:
                rows = torch.arange(len(value)) != own
                assert torch.equal(value[rows], other[rows])
            else:
                assert torch.equal(value, other), name

    def test_it_needs_no_samples(self, bases, tmp_path):
        """Nobody has two training items: there is nothing to train on, but much to recommend."""
        domain = write(tmp_path, "cold", 5, lengths=3)
        lend_recommender(bases / "both", domain, tmp_path / "codes cold", tmp_path / "out")
        assert "cold" in read_recommender(tmp_path / "out")[1].domains

    def test_voices_are_mixed_as_on_average_in_the_shops_of_the_base(self, shops, tmp_path):
        found = {
            "one": Mixing(vectors=1.0, companions=0.2, contents=0.5, decay=0.4),
            "two": Mixing(vectors=3.0, companions=0.4, contents=0.1, decay=0.8),
        }
        fit(shops, [0, 1], tmp_path / "base", calibrator=lambda *_: found)
        folder, domains = shops
        lend_recommender(tmp_path / "base", domains[2], folder / "codes three", tmp_path / "out")
        assert read_mixing(tmp_path / "base") == found
        # A domain that is trained on keeps it until its own validation items say better.
        fit(shops, [2], tmp_path / "trained", start=tmp_path / "base")
        expected = Mixing(vectors=5 / 3, companions=0.3, contents=0.3, decay=0.6)
        for run in ("out", "trained"):
            (mixing,) = read_mixing(tmp_path / run).values()
            assert dataclasses.asdict(mixing) == pytest.approx(dataclasses.asdict(expected))
        # One that the base knows is mixed as there.
        lend_recommender(tmp_path / "base", domains[1], folder / "codes two", tmp_path / "known")
        assert read_mixing(tmp_path / "known") == {"two": found["two"]}
        assert between([]) == Mixing()
        assert between([CODES_ALONE] * 2) == CODES_ALONE

    def test_codes_of_another_domain_are_refused(self, bases, shops, tmp_path):
        folder, domains = shops
        with pytest.raises(SettingsMismatch, match="codes given for domain 'three'"):
            lend_recommender(bases / "both", domains[2], folder / "codes one", tmp_path / "out")


CAUSAL = dataclasses.replace(
    SHORT, sizes=CausalSizes(width=16, feed_forward=16, heads=2, trunk_layers=1)
)


@pytest.fixture(scope="module")
def base(shops, tmp_path_factory):
    """A decoder-only recommender of two domains."""
    out = tmp_path_factory.mktemp("words") / "base"
    fit(shops, [0, 1], out, CAUSAL)
    return out


class TestWords:
    """Which items a decoder-only recommender can read the words of, and what a base has learned."""

    def readable(self, run, domains):
        """Whether the items of these domains, and no others, have words in a finished run."""
        model, vocabulary, _ = read_recommender(run)
        folder = domains[0].folder.parent
        expected = [
            catalog_keys(vocabulary, each.name, coded_domain(each, path).codes)
            for each, path in zip(domains, codes_of(folder, domains), strict=True)
        ]
        return torch.equal(model.words.table[:, 0], torch.cat(expected).sort().values)

    def test_it_reads_all_items_that_it_is_trained_on(self, base, shops):
        assert self.readable(base, shops[1][:2])

    def test_going_on_it_reads_the_new_domains_and_keeps_what_words_mean(
        self, base, shops, tmp_path
    ):
        slow = dataclasses.replace(
            CAUSAL, trainer=dataclasses.replace(TRAINER, learning_rate=1e-12)
        )
        fit(shops, [2], tmp_path / "out", slow, start=base)
        assert self.readable(tmp_path / "out", shops[1][2:])
        before, after = (read_recommender(run)[0] for run in (base, tmp_path / "out"))
        torch.testing.assert_close(before.words.vectors.weight, after.words.vectors.weight)

    def test_lent_it_reads_the_new_domain(self, base, shops, tmp_path):
        folder, domains = shops
        lend_recommender(base, domains[2], folder / "codes three", tmp_path / "out")
        assert self.readable(tmp_path / "out", domains[2:])
        before, after = (read_recommender(run)[0] for run in (base, tmp_path / "out"))
        assert torch.equal(before.words.vectors.weight, after.words.vectors.weight)


class TestUnnamed:
    VOCABULARY = Vocabulary(
        root_size=4, leaf_size=5, code_length=3, domains=("a", "b"), domain_slots=4
    )

    def batches(self, number):
        """Histories of domain a or b, with codes that must stay."""
        rng = np.random.default_rng(number)
        tokens = torch.from_numpy(rng.integers(0, self.VOCABULARY.first_domain, (500, 6)))
        tokens[:, 0] = self.VOCABULARY.first_domain + torch.from_numpy(rng.integers(0, 2, 500))
        return PrefixBatch(tokens, torch.ones_like(tokens), tokens[:, :3])

    def test_a_share_loses_its_domain_and_nothing_else(self):
        before = self.batches(3)
        after = leave_unnamed(self.batches, self.VOCABULARY, 0.3, seed=0)(3)
        changed = after.tokens[:, 0] != before.tokens[:, 0]
        assert 0.2 < float(changed.float().mean()) < 0.4
        assert (after.tokens[changed, 0] == self.VOCABULARY.any_domain).all()
        assert torch.equal(after.tokens[:, 1:], before.tokens[:, 1:])
        assert torch.equal(after.targets, before.targets)

    def test_the_same_share_of_windows_loses_it(self):
        domains = self.VOCABULARY.first_domain + torch.arange(500) % 2
        items, targets = torch.zeros(500, 2, 3, dtype=torch.int64), torch.ones(500, 2).bool()

        def batches(number):
            return WindowBatch(domains, domains, items, targets)

        after = leave_unnamed(batches, self.VOCABULARY, 0.3, seed=0)(3)
        changed = after.domains != domains
        assert 0.2 < float(changed.float().mean()) < 0.4
        assert (after.domains[changed] == self.VOCABULARY.any_domain).all()
        assert after.items is items and after.targets is targets

    def test_it_follows_from_seed_and_number_alone(self):
        one, again, seeded = (
            leave_unnamed(self.batches, self.VOCABULARY, 0.3, seed) for seed in (0, 0, 1)
        )
        one(0)
        assert torch.equal(one(5).tokens, again(5).tokens)
        assert not torch.equal(one(5).tokens, seeded(5).tokens)
        none = leave_unnamed(self.batches, self.VOCABULARY, 0.0, seed=0)
        assert torch.equal(none(5).tokens, self.batches(5).tokens)

    def test_training_on_several_domains_meets_the_token(self, bases, shops, tmp_path):
        """Its row learns from the samples that carry it."""
        rows = []
        for share in (0.0, 0.5):
            config = dataclasses.replace(SHORT, unnamed_share=share)
            fit(shops, [0, 1], tmp_path / f"{share}", config)
            model, vocabulary, _ = read_recommender(tmp_path / f"{share}")
            rows.append(model.t5.shared.weight[vocabulary.any_domain].detach())
        assert float((rows[0] - rows[1]).abs().max()) > 1e-3

    def test_one_table_is_found(self):
        model = T5Recommender.create(CONFIG.sizes, self.VOCABULARY)
        copy_token(model, self.VOCABULARY, 3, 7)
        assert torch.equal(model.t5.shared.weight[3], model.t5.shared.weight[7])
        before = logits(model, self.VOCABULARY, 3)
        assert torch.equal(before, logits(model, self.VOCABULARY, 7))

    @pytest.mark.parametrize("share", [-0.1, 1.0])
    def test_a_share_outside_its_range_is_refused(self, share):
        with pytest.raises(BadConfig, match="unnamed_share"):
            dataclasses.replace(CONFIG, unnamed_share=share)
