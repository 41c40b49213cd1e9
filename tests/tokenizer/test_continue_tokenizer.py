"""A tokenizer goes on from another: what stays frozen, what moves, and what is refused."""

import dataclasses
import json

import pytest
import torch
from small_items import small_config, write_small_domain

from utgrec.catalog import Domain
from utgrec.data.split import leave_one_out
from utgrec.errors import BadConfig, MissingStage, SettingsMismatch
from utgrec.regimes import AdaptConfig, tokenizer_settings
from utgrec.tokenizer.codebooks import SimVQCodebook
from utgrec.tokenizer.lend import lend_tokenizer
from utgrec.tokenizer.pretrained import ItemTokenizer
from utgrec.tokenizer.quantizer import QuantizerConfig
from utgrec.tokenizer.train import train_tokenizer

HISTORIES = [[0, 1, 3, 2, 7], [4, 6, 0], [3, 2, 7], [1, 0, 4, 6], [4, 1], [0, 1, 4, 3, 6, 2, 7]]
NEW_TEXTS = [f"a {colour} lamp of paper" for colour in ("green", "white", "tiny", "wide", "low")]
BASES = ("quantizer.root.basis", "quantizer.leaf.basis")
PROJECTIONS = ("quantizer.root.projection.weight", "quantizer.leaf.projection.weight")
STEPS = 4


def adapted(regime: str = "full"):
    """How the small tokenizer is adapted."""
    adapt = AdaptConfig(regime=regime, tokenizer_steps=STEPS, tokenizer_learning_rate=1e-3)
    return tokenizer_settings(small_config(), adapt)


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Where the base learns, and a shop with other words."""
    folder = tmp_path_factory.mktemp("shops")
    other = [[0, 1, 2, 3, 4], [4, 3, 1, 0, 2], [2, 0, 4, 1, 3]]
    return [
        Domain.open(write_small_domain(folder / "old", HISTORIES)),
        Domain.open(write_small_domain(folder / "new", other, texts=NEW_TEXTS)),
    ]


@pytest.fixture(scope="module")
def base(shops, tmp_path_factory):
    """A finished tokenizer."""
    out = tmp_path_factory.mktemp("base") / "tokenizer"
    train_tokenizer(shops[:1], small_config(), out)
    return out


@pytest.fixture(scope="module")
def continued(base, shops, tmp_path_factory):
    """Regime → the folder of the tokenizer that went on, and its manifest."""
    folder, made = tmp_path_factory.mktemp("continued"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimVQCodebook, "replace", lambda *_: 1 / 0)  # no revival
        for regime in ("basis-too", "full"):
            if regime == "full":  # what settles at the end must not write into a frozen basis
                patch.setattr(SimVQCodebook, "place", lambda *_: 1 / 0)
            out = folder / regime
            made[regime] = (
                out,
                train_tokenizer(shops[1:], adapted(regime), out, start=base),
            )
    return made


def tensors(folder):
    """All tensors of a tokenizer by name."""
    return ItemTokenizer.from_pretrained(folder).model.state_dict()


# Where the basis may move, settling moves it alone and leaves the projection as placing made it.
@pytest.mark.parametrize(
    ("regime", "frozen"), [("full", set(BASES)), ("basis-too", set(PROJECTIONS))]
)
def test_what_is_frozen_does_not_move_a_bit_and_all_else_does(base, continued, regime, frozen):
    before, after = tensors(base), tensors(continued[regime][0])
    assert before.keys() == after.keys()
    parameters = dict(ItemTokenizer.from_pretrained(base).model.named_parameters())
    vision = {name for name in parameters if name.startswith("backbone.model.visual.")}
    assert len(vision) > 5
    still = {name for name in parameters if torch.equal(before[name], after[name])}
    assert still == vision | frozen
    assert set(PROJECTIONS) <= set(parameters)


def test_no_second_warm_up(base, continued):
    rows = [
        json.loads(line)
        for line in (continued["full"][0] / "losses.jsonl").read_text().splitlines()
    ]
    assert all(row["code"] > 0 for row in rows)
    start, end = tensors(base), tensors(continued["full"][0])
    assert int(end["quantizer.step"]) == int(start["quantizer.step"]) + STEPS


def test_words_and_latents_stay_those_that_the_weights_know(base, continued):
    one, other = (ItemTokenizer.from_pretrained(path) for path in (base, continued["full"][0]))
    words = [each.model.backbone.text_tokenizer.get_vocab() for each in (one, other)]
    assert words[0] == words[1]
    for name in ("mean", "components", "scale"):
        assert torch.equal(getattr(one.codec, name), getattr(other.codec, name))


def test_the_statistics_of_states_are_those_of_the_new_shop(base, shops, tmp_path):
    """States of its catalogue have mean 0 and variance 1 per position, whatever they had before."""
    lend_tokenizer(base, shops[1], tmp_path / "lent")
    catalog = shops[1].catalog
    states = []
    for folder in (base, tmp_path / "lent"):
        tokenizer = ItemTokenizer.from_pretrained(folder)
        items = tokenizer.read(catalog.texts, catalog.images)
        states.append(tokenizer.states(tokenizer.add_company(items, leave_one_out(shops[1]))))
    assert states[0].mean(dim=0).abs().max() > 0.1
    zero = torch.zeros(states[1].shape[1:])
    torch.testing.assert_close(states[1].mean(dim=0), zero, atol=1e-4, rtol=0)
    variance = states[1].square().mean(dim=(0, 2))
    torch.testing.assert_close(variance, torch.ones(3), atol=1e-3, rtol=0)


def test_training_starts_from_those_statistics(base, shops, tmp_path):
    """With a rate that is next to nothing, the codes are those of the tokenizer that is lent."""
    config = adapted()
    slow = dataclasses.replace(config.trainer, learning_rate=1e-12)
    lend_tokenizer(base, shops[1], tmp_path / "lent")
    train_tokenizer(
        shops[1:], dataclasses.replace(config, trainer=slow), tmp_path / "slow", start=base
    )
    catalog = shops[1].catalog
    states = []
    for folder in (tmp_path / "slow", tmp_path / "lent"):
        tokenizer = ItemTokenizer.from_pretrained(folder)
        states.append(tokenizer.states(tokenizer.read(catalog.texts, catalog.images)))
    # Batches hold the five items of the shop, each about as often.
    torch.testing.assert_close(*states, atol=0.2, rtol=0)


def test_one_item_alone_has_no_statistics(base, tmp_path):
    domain = Domain.open(write_small_domain(tmp_path / "one", [[0]], texts=["a lamp"]))
    lend_tokenizer(base, domain, tmp_path / "lent")
    before, after = tensors(base), tensors(tmp_path / "lent")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_it_names_what_it_started_from(base, continued, shops):
    from utgrec import storage

    out, manifest = continued["full"]
    assert manifest.inputs == {
        "domain new": shops[1].fingerprint,
        "start": storage.read_manifest(base, "tokenizer").fingerprint,
    }
    assert train_tokenizer(shops[1:], adapted(), out, start=base) == manifest
    with pytest.raises(SettingsMismatch, match=r"other input \(start\)"):
        train_tokenizer(shops[1:], adapted(), out)
    with pytest.raises(SettingsMismatch, match=r"other input \(start\)"):
        train_tokenizer(shops[1:], adapted(), out, start=out)


def test_an_interrupted_one_ends_as_the_other(base, continued, shops, tmp_path):
    def stop(work, done, total, note=""):
        if work == "Training the tokenizer" and done == 2:
            raise KeyboardInterrupt

    config = adapted()
    eager = dataclasses.replace(
        config, trainer=dataclasses.replace(config.trainer, checkpoint_every_s=0.0)
    )
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(shops[1:], eager, tmp_path / "out", stop, start=base)
    again = train_tokenizer(shops[1:], eager, tmp_path / "out", start=base)
    assert again.files == continued["full"][1].files


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("quantizer", {"leaf_size": 7}, "quantizer.leaf_size: 6 there, 7 asked"),
        ("quantizer", {"code_length": 4}, "quantizer.code_length: 3 there, 4 asked"),
        ("quantizer", {"kind": "vq", "freeze_basis": False}, "quantizer.kind: 'simvq' there"),
        ("heads", {"decoder_width": 32}, "heads.decoder_width: 16 there, 32 asked"),
        ("backbone", {"layers": 3}, "backbone.layers: 2 there, 3 asked"),
        ("latents", {"channels": 5}, "latents.channels: 4 there, 5 asked"),
    ],
)
def test_another_network_is_refused(base, shops, tmp_path, part, change, message):
    config = adapted()
    other = dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), **change)}
    )
    with pytest.raises(SettingsMismatch, match=message):
        train_tokenizer(shops[1:], other, tmp_path / "out", start=base)


def test_an_unfinished_start_is_refused(shops, tmp_path):
    with pytest.raises(MissingStage, match="no finished tokenizer"):
        train_tokenizer(shops[1:], adapted(), tmp_path / "out", start=tmp_path / "base")


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "vq"},
        {"kind": "ema"},
        {"start_from_states": True},
        {"revive_every": 5},
    ],
)
def test_a_frozen_basis_can_be_neither_placed_nor_revived(settings):
    good = {"start_from_states": False, "revive_every": 0, "freeze_basis": True}
    assert QuantizerConfig(**good).freeze_basis
    with pytest.raises(BadConfig, match="a frozen basis needs kind='simvq'"):
        QuantizerConfig(**{**good, **settings})
