"""The recommender stage: what it reads must belong together, and what it writes opens again."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from utgrec import storage
from utgrec.catalog import Domain, write_domain
from utgrec.errors import BadConfig, CorruptFile, MissingStage, SettingsMismatch
from utgrec.recommender.t5 import T5Sizes
from utgrec.recommender.train import RecommenderConfig, read_recommender, train_recommender
from utgrec.training.trainer import TrainerConfig

SIZES = (4, 5, 5)
CONFIG = RecommenderConfig(
    sizes=T5Sizes(
        width=16, feed_forward=16, heads=2, head_width=8, encoder_layers=1, decoder_layers=1
    ),
    trainer=TrainerConfig(steps=6, learning_rate=0.01, validate_every=2, log_every=2),
    batch_size=16,
    max_items=5,
)


def write(folder, name, seed, lengths=None):
    """A domain of 30 items without words, and its codes; histories of 3 to 8 items by default."""
    rng = np.random.default_rng(seed)
    histories = [rng.permutation(30)[: lengths or rng.integers(3, 9)] for _ in range(20)]
    lengths = [len(items) for items in histories]
    with storage.new_folder(folder / name) as partial:
        write_domain(
            partial,
            name=name,
            items=pa.table({key: [f"{key} {n}" for n in range(30)]
                            for key in ("item_id", "title", "text", "image")}),
            user_ids=[f"u{n}" for n in range(20)],
            interactions=pa.table(
                {
                    "user": pa.array(np.repeat(np.arange(20), lengths), pa.int32()),
                    "item": pa.array(np.concatenate(histories), pa.int32()),
                    "timestamp": pa.array(np.arange(sum(lengths)), pa.int64()),
                }
            ),
            config={},
            inputs={},
            facts={},
        )  # fmt: skip
    domain = Domain.open(folder / name)
    write_codes(folder / f"codes {name}", domain)
    return domain


def write_codes(folder, domain, *, tokenizer="t", sizes=SIZES):
    """The codes stage of a domain."""
    codes = np.stack(np.unravel_index(np.arange(30), SIZES), axis=1).astype(np.int16)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), 3)
    with storage.new_folder(folder) as partial:
        pq.write_table(
            pa.table({"item_id": domain.catalog.item_ids, "codes": flat}), partial / "codes.parquet"
        )
        pq.write_table(domain.catalog.table, partial / "items.parquet")
        storage.write_manifest(
            partial,
            stage="codes",
            config={},
            inputs={"tokenizer": tokenizer, f"domain {domain.name}": domain.fingerprint},
            facts={"domain": domain.name, "sizes": list(sizes)},
        )
    return folder


def validator(qualities):
    """Measures what it is told, and remembers what it was given."""
    given = []

    def prepare(model, vocabulary, domains):
        given.append((vocabulary, domains))
        left = iter(qualities)
        return lambda: {"ndcg@10": next(left), "training": float(model.training)}

    prepare.given = given
    return prepare


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Two domains with codes of one tokenizer."""
    folder = tmp_path_factory.mktemp("shops")
    return folder, [write(folder, "one", 1), write(folder, "two", 2)]


def codes_of(folder, domains):
    """Their codes stages."""
    return [folder / f"codes {domain.name}" for domain in domains]


@pytest.fixture(scope="module")
def trained(shops, tmp_path_factory):
    """A recommender of both domains, best at its second validation."""
    folder, domains = shops
    out = tmp_path_factory.mktemp("trained") / "recommender"
    measure = validator([0.1, 0.5, 0.3])
    manifest = train_recommender(domains, codes_of(folder, domains), CONFIG, out, validator=measure)
    return out, manifest, measure


def test_it_opens_again(trained):
    out, manifest, measure = trained
    model, vocabulary, config = read_recommender(out)
    assert config == CONFIG
    assert vocabulary == measure.given[0][0]
    assert vocabulary.domains == ("one", "two")
    assert vocabulary.code_sizes == SIZES
    assert model.t5.config.vocab_size == vocabulary.size
    assert manifest.facts["best_step"] == 4
    assert manifest.facts["steps_done"] == 6


def test_the_best_weights_are_those_that_are_saved(trained, shops, tmp_path):
    """A run that ends at the best step's neighbour has other weights; the best are kept."""
    folder, domains = shops
    always = validator([0.1, 0.2, 0.3])
    codes = codes_of(folder, domains)
    train_recommender(domains, codes, CONFIG, tmp_path / "last", validator=always)
    best, last = (
        read_recommender(path)[0].state_dict() for path in (trained[0], tmp_path / "last")
    )
    assert not all(torch.equal(best[name], last[name]) for name in best)


def test_validation_sees_all_domains_and_the_model_at_rest(trained):
    domains = trained[2].given[0][1]
    assert [domain.name for domain in domains] == ["one", "two"]
    rows = [json.loads(line) for line in (trained[0] / "losses.jsonl").read_text().splitlines()]
    validations = [row for row in rows if row["kind"] == "validation"]
    assert [row["step"] for row in validations] == [2, 4, 6]
    assert [row["training"] for row in validations] == [0.0] * 3
    losses = [row for row in rows if row["kind"] == "loss"]
    assert set(losses[0]) >= {"loss", "code_1", "code_2", "code_3", "gradient_norm", "step"}


def test_samples_are_interactions_less_three_per_user(trained, shops):
    """A user's first item is no target, the last two are held out."""
    _, domains = shops
    expected = sum(domain.interaction_count - 3 * domain.user_count for domain in domains)
    assert trained[1].facts["samples"] == expected


def test_a_second_call_does_nothing_and_other_settings_are_refused(trained, shops):
    folder, domains = shops
    out, manifest, _ = trained
    codes = codes_of(folder, domains)
    never = validator([])
    assert train_recommender(domains, codes, CONFIG, out, validator=never) == manifest
    assert never.given == []
    other = dataclasses.replace(CONFIG, batch_size=17)
    with pytest.raises(SettingsMismatch, match="batch_size: 16 there, 17 asked"):
        train_recommender(domains, codes, other, out, validator=never)


def test_codes_of_another_domain_are_refused(shops, tmp_path):
    folder, domains = shops
    swapped = codes_of(folder, domains)[::-1]
    with pytest.raises(
        SettingsMismatch, match="codes given for domain 'one' were made for another"
    ):
        train_recommender(domains, swapped, CONFIG, tmp_path / "out", validator=validator([]))


def test_codes_of_two_tokenizers_are_refused(shops, tmp_path):
    folder, domains = shops
    other = write_codes(tmp_path / "codes", domains[1], tokenizer="u")
    with pytest.raises(SettingsMismatch, match="come from 2 tokenizers"):
        train_recommender(
            domains,
            [codes_of(folder, domains)[0], other],
            CONFIG,
            tmp_path / "out",
            validator=validator([]),
        )


def test_missing_codes_and_no_domain(shops, tmp_path):
    _, domains = shops
    with pytest.raises(MissingStage, match="no finished codes"):
        train_recommender(
            domains[:1], [tmp_path], CONFIG, tmp_path / "out", validator=validator([])
        )
    with pytest.raises(BadConfig, match="at least one domain"):
        train_recommender([], [], CONFIG, tmp_path / "out", validator=validator([]))


@pytest.mark.parametrize(
    "name", ["model/model.safetensors", "model/config.json", "vocabulary.json"]
)
def test_a_changed_file_is_refused(trained, tmp_path, name):
    shutil.copytree(trained[0], tmp_path / "copy")
    path = tmp_path / "copy" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CorruptFile, match="is not the file its manifest names"):
        read_recommender(tmp_path / "copy")


def test_without_validation_nothing_is_measured(shops, tmp_path):
    folder, domains = shops
    config = dataclasses.replace(
        CONFIG, trainer=dataclasses.replace(CONFIG.trainer, validate_every=0)
    )
    never = validator([])
    manifest = train_recommender(
        domains[:1], codes_of(folder, domains)[:1], config, tmp_path / "out", validator=never
    )
    assert never.given == []
    assert manifest.facts["best_step"] == 6


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 0}, {"max_items": 0}, {"temperature": 1.1}, {"label_smoothing": 1.0}],
)
def test_settings_outside_their_range_are_refused(settings):
    with pytest.raises(BadConfig):
        dataclasses.replace(CONFIG, **settings)
