"""The recommender stage: coded domains in, a trained recommender folder out."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import from_dict, require, to_dict
from utgrec.data.split import split_domain, trained_facts
from utgrec.errors import SettingsMismatch
from utgrec.progress import Progress, silent
from utgrec.recommender.causal import CausalRecommender, CausalSizes, RankingConfig
from utgrec.recommender.companions import Companions, CompanionsConfig, count_companions
from utgrec.recommender.contents import Contents, ContentsConfig, compare_contents
from utgrec.recommender.domain_tokens import copy_token, leave_unnamed
from utgrec.recommender.histories import CodedDomain
from utgrec.recommender.mixing import Mixing, between
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.networks import (
    Sizes,
    create_network,
    know_items,
    load_network,
    make_batches,
    shared_batches,
    show_words,
)
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.codes import STAGE as CODES
from utgrec.training.trainer import TrainerConfig, train, write_losses

STAGE = "recommender"
COMPANIONS, CONTENTS = "companions.safetensors", "contents.safetensors"
MIXING = "mixing.json"
METRIC = "ndcg@10"

# Given the trained model, its vocabulary, its domains and its memory: how their voices are mixed in
# each domain, by name.
Calibrator = Callable[
    [GenerativeRecommender, Vocabulary, Sequence[CodedDomain], "Memory"], dict[str, Mixing]
]

# Given the model in training, its vocabulary and its domains: a function that measures METRIC.
Validator = Callable[
    [GenerativeRecommender, Vocabulary, Sequence[CodedDomain]], Callable[[], dict[str, float]]
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecommenderConfig:
    """Everything that makes a recommender."""

    sizes: Sizes
    """The network: CausalSizes is the decoder-only one, T5Sizes the encoder-decoder."""
    trainer: TrainerConfig
    """How it is trained; a step is one batch."""
    batch_size: int = 256
    """Items to be written per batch."""
    most_epochs: int = 30
    """Passes over the training histories at most, where the trainer's steps would be more: a small
    shop is learned by heart long before."""
    max_items: int = 20
    """Newest items of a history that are read."""
    temperature: float = 1.0
    """Several domains are drawn by their number of samples to this power: 0 is equal shares."""
    label_smoothing: float = 0.0
    """Share of the target's probability spread over all tokens in training."""
    ranking: RankingConfig = dataclasses.field(default_factory=RankingConfig)
    """How item vectors are trained, where the network has them."""
    companions: CompanionsConfig = dataclasses.field(default_factory=CompanionsConfig)
    """What is remembered of who took what, beside the network."""
    contents: ContentsConfig = dataclasses.field(default_factory=ContentsConfig)
    """What is remembered of what items say, beside the network."""
    domain_slots: int = 32
    """Domain tokens: one for each domain that the recommender ever knows, and one for any."""
    unnamed_share: float = 0.1
    """Of several domains: share of the samples that carry the token for any domain instead of
    their own, so that it can stand for a domain that was never trained on."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        require(self.most_epochs >= 1, f"most_epochs must be at least 1, got {self.most_epochs}")
        require(self.max_items >= 1, f"max_items must be at least 1, got {self.max_items}")
        require(0 <= self.temperature <= 1, f"temperature is in [0, 1], got {self.temperature}")
        require(
            0 <= self.label_smoothing < 1,
            f"label_smoothing is in [0, 1), got {self.label_smoothing}",
        )
        require(
            0 <= self.unnamed_share < 1, f"unnamed_share is in [0, 1), got {self.unnamed_share}"
        )


def tiny_recommender(seed: int = 0) -> RecommenderConfig:
    """The recommender of the recipe `tiny`: two CPU cores, ten minutes for ten thousand items."""
    return RecommenderConfig(
        sizes=CausalSizes(width=128, feed_forward=512, dropout=0.3),
        batch_size=1024,
        trainer=TrainerConfig(
            steps=1500,
            learning_rate=2e-3,
            weight_decay=0.1,
            warmup_share=0.05,
            validate_every=100,
            patience=4,
            seed=seed,
        ),
    )


def codes_alone(config: RecommenderConfig) -> RecommenderConfig:
    """The same recommender without anything beside codes: no vectors of items, no memories."""
    sizes = config.sizes
    if isinstance(sizes, CausalSizes):
        sizes = dataclasses.replace(sizes, item_vectors=False, item_words=0)
    return dataclasses.replace(
        config,
        sizes=sizes,
        companions=dataclasses.replace(config.companions, neighbours=0),
        contents=dataclasses.replace(config.contents, neighbours=0),
    )


def train_recommender(
    domains: Sequence[Domain],
    codes: Sequence[Path],
    config: RecommenderConfig,
    out: Path,
    *,
    validator: Validator,
    calibrator: Calibrator | None = None,
    progress: Progress = silent,
    start: Path | None = None,
) -> storage.Manifest:
    """Train a recommender on the histories of several domains and write its folder.

    Args:
        codes: the codes stage of each domain, in the order of the domains.
        validator: makes the function that measures NDCG@10 on validation items.
        calibrator: finds how the voices are mixed; None leaves it as `remember` has it.
        start: a finished recommender of the same sizes to go on from, instead of random weights.

    Raises:
        SettingsMismatch: codes of another domain or other code settings, `start` of other sizes,
            or `out` was made with other settings.
    """
    require(len(domains) > 0, "a recommender needs at least one domain, got none")
    manifests = [storage.read_manifest(folder, CODES) for folder in codes]
    sizes = common_sizes(domains, manifests)
    inputs = {
        f"codes {domain.name}": manifest.fingerprint
        for domain, manifest in zip(domains, manifests, strict=True)
    }
    inputs |= {f"domain {domain.name}": domain.fingerprint for domain in domains}
    if start is not None:
        inputs["start"] = storage.read_manifest(start, STAGE).fingerprint

    def make(work: Workspace) -> StageResult:
        torch.manual_seed(config.trainer.seed)
        if start is None:
            vocabulary = Vocabulary(
                root_size=sizes[0],
                leaf_size=sizes[-1],
                code_length=len(sizes),
                domains=tuple(domain.name for domain in domains),
                domain_slots=config.domain_slots,
            )
            model = create_network(config.sizes, vocabulary, config.label_smoothing, config.ranking)
        else:
            model, vocabulary = continue_recommender(start, domains, sizes, config)
        coded = [
            coded_domain(domain, folder) for domain, folder in zip(domains, codes, strict=True)
        ]
        memory = remember(domains, coded, vocabulary, config, start)
        know_items(model, coded, vocabulary)
        show_words(model, coded, vocabulary, memory.contents)
        batches = make_batches(
            config.sizes,
            coded,
            vocabulary,
            max_items=config.max_items,
            batch_size=config.batch_size,
            temperature=config.temperature,
            seed=config.trainer.seed,
        )
        most = config.most_epochs * batches.per_epoch
        trainer = dataclasses.replace(config.trainer, steps=min(config.trainer.steps, most))
        several = len(domains) > 1
        unnamed = leave_unnamed(batches, vocabulary, config.unnamed_share, config.trainer.seed)
        trained = train(
            model,
            batch=shared_batches(unnamed if several else batches),
            config=trainer,
            work=work.checkpoints,
            inputs={"settings": storage.recipe_fingerprint(STAGE, to_dict(config), inputs)},
            validate=validator(model, vocabulary, coded) if config.trainer.validate_every else None,
            metric=METRIC,
            progress=progress,
            title="Training the recommender",
        )
        if not several:
            own = vocabulary.domain_token(domains[0].name)
            copy_token(model, vocabulary, own, vocabulary.any_domain)
        if calibrator is not None:
            progress("Finding the mixture", 0, 1)
            memory = memory._replace(mixing=calibrator(model, vocabulary, coded, memory))
        write_recommender(work.folder, model, vocabulary, memory)
        write_losses(work.folder / "losses.jsonl", trained)
        facts = {
            "domains": [domain.name for domain in domains],
            **trained_facts(*domains),
            "samples": batches.samples,
            "best_step": trained.best_step,
            "steps_done": trained.steps_done,
            "precision": trained.precision,
            "epochs": round(trained.steps_done / batches.per_epoch, 2),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        return StageResult(facts, trained.earlier_s)

    return run_stage(
        out, stage=STAGE, config=to_dict(config), inputs=inputs, make=make, together=True
    )


def continue_recommender(
    start: Path, domains: Sequence[Domain], sizes: tuple[int, ...], config: RecommenderConfig
) -> tuple[GenerativeRecommender, Vocabulary]:
    """The weights of a finished recommender, and its vocabulary with the new domains in it.

    A new domain starts with the token for any domain, so before its first step the recommender
    says of it what it would say of any.

    Raises:
        SettingsMismatch: it has another network or reads other codes.
        BadConfig: it has no room for the domains.
    """
    model, known, made_with = read_recommender(start)
    if (made_with.sizes, made_with.domain_slots) != (config.sizes, config.domain_slots):
        raise SettingsMismatch(
            f"the recommender {start} has {made_with.sizes} and {made_with.domain_slots} domain "
            f"slots, asked are {config.sizes} and {config.domain_slots}; use its own sizes, or "
            "train a new one"
        )
    if known.code_sizes != sizes:
        raise SettingsMismatch(
            f"the recommender {start} reads codes of sizes {known.code_sizes}, those given have "
            f"{sizes}; adapt the tokenizer that it was trained with, or train a new recommender"
        )
    vocabulary = known
    for domain in domains:
        if domain.name not in vocabulary.domains:
            vocabulary = vocabulary.with_domain(domain.name)
            own = vocabulary.domain_token(domain.name)
            copy_token(model, vocabulary, vocabulary.any_domain, own)
    model.label_smoothing = config.label_smoothing
    if isinstance(model, CausalRecommender):
        model.ranking = config.ranking
    return model, vocabulary


def read_recommender(folder: Path) -> tuple[GenerativeRecommender, Vocabulary, RecommenderConfig]:
    """Open a finished recommender stage.

    Raises:
        MissingStage, FormatVersionError, CorruptFile: the folder cannot be used.
    """
    manifest = storage.read_manifest(folder, STAGE)
    for name in manifest.files:
        if name.startswith("model/"):
            storage.check_file(folder, manifest, name)
    config = from_dict(RecommenderConfig, manifest.config)
    vocabulary = read_vocabulary(folder)
    return load_network(config.sizes, vocabulary, folder / "model"), vocabulary, config


class Memory(NamedTuple):
    """What a recommender has beside its network."""

    companions: Companions  # items that the same users took soon after
    contents: Contents  # items that say the same
    mixing: dict[str, Mixing]  # by domain

    def mixing_of(self, domain: str) -> Mixing:
        """How the voices are mixed in a domain."""
        return self.mixing.get(domain, Mixing())


def remember(
    domains: Sequence[Domain],
    coded: Sequence[CodedDomain],
    vocabulary: Vocabulary,
    config: RecommenderConfig,
    start: Path | None = None,
) -> Memory:
    """What is counted and compared in some domains.

    A domain that the recommender to go on from knows is mixed as there, another one as on average
    there; without such a recommender all are mixed by default.
    """
    texts = [domain.catalog.texts for domain in domains]
    found = {} if start is None else read_mixing(start)
    mean = between(list(found.values()))
    return Memory(
        count_companions(coded, vocabulary, config.companions),
        compare_contents(coded, texts, vocabulary, config.contents),
        {domain.name: found.get(domain.name, mean) for domain in domains},
    )


def write_recommender(
    folder: Path, model: GenerativeRecommender, vocabulary: Vocabulary, memory: Memory
) -> None:
    """Write all parts of a recommender into a stage's folder."""
    model.save(folder / "model")
    storage.write_json(folder / "vocabulary.json", to_dict(vocabulary))
    memory.companions.save(folder / COMPANIONS)
    memory.contents.save(folder / CONTENTS)
    storage.write_json(folder / MIXING, {name: to_dict(one) for name, one in memory.mixing.items()})


def read_memory(folder: Path) -> Memory:
    """The memory of a finished recommender stage.

    Raises:
        MissingStage, FormatVersionError, CorruptFile: the folder cannot be used.
    """
    manifest = storage.read_manifest(folder, STAGE)
    companions = Companions.load(storage.check_file(folder, manifest, COMPANIONS))
    contents = Contents.load(storage.check_file(folder, manifest, CONTENTS))
    return Memory(companions, contents, read_mixing(folder))


def read_mixing(folder: Path) -> dict[str, Mixing]:
    """How a finished recommender stage mixes its voices in each of its domains.

    Raises:
        MissingStage, FormatVersionError, CorruptFile: the folder cannot be used.
    """
    manifest = storage.read_manifest(folder, STAGE)
    values = storage.read_json(storage.check_file(folder, manifest, MIXING))
    return {name: from_dict(Mixing, one) for name, one in values.items()}


def read_vocabulary(folder: Path) -> Vocabulary:
    """The token ids of a finished recommender stage.

    Raises:
        MissingStage, FormatVersionError, CorruptFile: the folder cannot be used.
    """
    manifest = storage.read_manifest(folder, STAGE)
    values = storage.read_json(storage.check_file(folder, manifest, "vocabulary.json"))
    return from_dict(Vocabulary, values)


def coded_domain(domain: Domain, codes: Path) -> CodedDomain:
    """A domain as the recommender sees it, with the codes of a finished stage."""
    from utgrec.tokenizer.codes import read_codes

    return CodedDomain(domain.name, read_codes(codes).codes, split_domain(domain))


def common_sizes(
    domains: Sequence[Domain], manifests: Sequence[storage.Manifest]
) -> tuple[int, ...]:
    """The code sizes that all codes stages share, (L,).

    Raises:
        SettingsMismatch: codes of another domain, or of more than one tokenizer.
    """
    for domain, manifest in zip(domains, manifests, strict=True):
        if manifest.inputs.get(f"domain {domain.name}") != domain.fingerprint:
            raise SettingsMismatch(
                f"the codes given for domain {domain.name!r} were made for another domain or "
                f"another version of it; run `utgrec tokenizer assign` on {domain.folder}"
            )
    sizes = {tuple(manifest.facts["sizes"]) for manifest in manifests}
    tokenizers = {manifest.inputs["tokenizer"] for manifest in manifests}
    if len(sizes) != 1 or len(tokenizers) != 1:
        raise SettingsMismatch(
            f"the domains' codes come from {len(tokenizers)} tokenizers with code sizes "
            f"{sorted(sizes)}; one recommender needs codes of one tokenizer: assign them again"
        )
    return sizes.pop()
