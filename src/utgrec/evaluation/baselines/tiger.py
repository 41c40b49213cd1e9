"""TIGER: codes from item texts alone, then the project's own recommender on them.

TIGER (Rajput et al. 2023, arXiv 2305.05065) makes three codes by residual quantisation of a text
vector and a fourth that numbers items of equal codes. The recommender, its training, its validation
and its decoding are those of UTGRec, so the two differ in their codes alone.

Shapes: N items · D width of a text vector.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from utgrec.catalog import Ints
from utgrec.config import require
from utgrec.evaluation.baselines.family import FitInput, grid_trials, scratch, settings_key
from utgrec.evaluation.baselines.residual_codes import Codes, residual_kmeans, rqvae_codes
from utgrec.evaluation.baselines.text_vectors import Vectors, sentence_vectors, topic_vectors
from utgrec.evaluation.baselines.tiger_codes import check_domain, write_tiger_codes
from utgrec.evaluation.generative import (
    DecodingConfig,
    GenerativeSystem,
    ValidationConfig,
    make_validator,
)
from utgrec.progress import Progress, silent
from utgrec.recommender.train import (
    RecommenderConfig,
    codes_alone,
    read_recommender,
    tiny_recommender,
    train_recommender,
)
from utgrec.tokenizer.codes import read_codes
from utgrec.training.trainer import TrainerConfig


def tiger_recommender() -> RecommenderConfig:
    """The recommender of the recipe `tiny` without anything beside codes."""
    return codes_alone(tiny_recommender())


@dataclasses.dataclass(frozen=True, kw_only=True)
class TigerConfig:
    """What both kinds of TIGER have in common."""

    sentence_model: str | None = None
    """Name or folder of a sentence-transformers model; None reads texts by tf-idf topics."""
    text_width: int = 64
    """Topics, where there is no sentence model."""
    levels: int = 3
    """Codes made from the vector; one more numbers items of equal codes."""
    size: int = 256
    """Entries of each codebook, K."""
    recommender: RecommenderConfig = dataclasses.field(default_factory=tiger_recommender)
    """The recommender and its training; its seed is replaced by that of the fit."""
    validation: ValidationConfig = dataclasses.field(default_factory=ValidationConfig)
    """How the recommender is validated while it trains; its seed is replaced likewise."""
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    """How items are decoded."""

    def __post_init__(self) -> None:
        require(self.text_width >= 1, f"text_width must be at least 1, got {self.text_width}")
        require(self.levels >= 1, f"levels must be at least 1, got {self.levels}")
        require(2 <= self.size <= 4096, f"size must be in 2 … 4096, got {self.size}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class KMeansTigerConfig(TigerConfig):
    """Settings of TIGER with residual k-means."""

    iterations: int = 30
    """Iterations of k-means per level."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.iterations >= 1, f"iterations must be at least 1, got {self.iterations}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RQVAETigerConfig(TigerConfig):
    """Settings of TIGER with a residual-quantised autoencoder."""

    width: int = 32
    """Width of what is quantised."""
    batch_size: int = 1024
    """Items per step of the autoencoder."""
    steps: int = 2000
    """Steps of the autoencoder."""
    learning_rate: float = 1e-3
    """Peak learning rate of the autoencoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width >= 1, f"width must be at least 1, got {self.width}")
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")


C = TypeVar("C", bound=TigerConfig)


class _Tiger(Generic[C]):
    """Text vectors, codes, recommender; a subclass makes codes of vectors."""

    name: str
    title: str
    default: C

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[C]:
        """Topics, codebook size, and the recommender's learning rate and dropout."""
        base = self.default.recommender
        recommenders = [
            dataclasses.replace(
                base,
                sizes=dataclasses.replace(base.sizes, dropout=dropout),
                trainer=dataclasses.replace(base.trainer, learning_rate=rate),
            )
            for dropout in (0.1, 0.3)
            for rate in (1e-3, 2e-3)
        ]
        grid = {"text_width": (32, 64, 128), "size": (64, 128, 256), "recommender": recommenders}
        return grid_trials(self.default, grid, budget)

    def fit(self, given: FitInput, settings: C, progress: Progress = silent) -> GenerativeSystem:
        """Make the codes, then train the recommender; finished parts are read again.

        Raises:
            InputError: the domain was not read from a folder, or the split is not its own.
            MissingDependency: a library of the extra `baselines` is not installed.
        """
        check_domain(given)
        codes = self.make_codes(given, settings, progress)
        recommender = dataclasses.replace(
            settings.recommender,
            trainer=dataclasses.replace(settings.recommender.trainer, seed=given.seed),
        )
        out = scratch(given, f"{self.name}-recommender", settings_key(settings))
        train_recommender(
            [given.domain],
            [codes],
            recommender,
            out,
            validator=make_validator(
                dataclasses.replace(settings.validation, seed=given.seed),
                max_items=recommender.max_items,
                exclude_seen=given.exclude_seen,
            ),
            progress=progress,
        )
        model, vocabulary, _ = read_recommender(out)
        return GenerativeSystem(
            model,
            vocabulary,
            given.domain.name,
            read_codes(codes).codes,
            max_items=recommender.max_items,
            decoding=settings.decoding,
            name=self.title,
        )

    def make_codes(self, given: FitInput, settings: C, progress: Progress = silent) -> Path:
        """The folder of a codes stage, as `utgrec tokenizer assign` writes it.

        Trials that differ in the recommender alone share it.
        """
        made_from = {"family": self.name, "seed": given.seed, **settings_key(settings)}
        for name in ("recommender", "validation", "decoding"):
            del made_from[name]
        out = scratch(given, f"{self.name}-codes", made_from)

        def quantize(known: Ints, work: Path) -> Codes:
            texts = given.domain.catalog.texts
            if settings.sentence_model is not None:
                vectors = sentence_vectors(texts, settings.sentence_model, self.name)
            else:
                vectors = topic_vectors(texts, known, settings.text_width, given.seed)
            return self.quantize(vectors, known, settings, given.seed, work, progress)

        write_tiger_codes(out, given, made_from, settings.size, quantize)
        return out

    def quantize(
        self,
        vectors: Vectors,
        known: Ints,
        settings: C,
        seed: int,
        work: Path,
        progress: Progress = silent,
    ) -> Codes:
        """Codes, not yet unique, learned from the `known` items. Shapes: (N, D) → (N, levels)."""
        raise NotImplementedError


class TigerFamily(_Tiger[KMeansTigerConfig]):
    """TIGER with residual k-means."""

    name = "tiger"
    title = "TIGER"
    default = KMeansTigerConfig()

    def quantize(
        self,
        vectors: Vectors,
        known: Ints,
        settings: KMeansTigerConfig,
        seed: int,
        work: Path,
        progress: Progress = silent,
    ) -> Codes:
        """Cluster, subtract the centre, cluster what is left."""
        return residual_kmeans(
            vectors,
            known,
            size=settings.size,
            levels=settings.levels,
            iterations=settings.iterations,
            seed=seed,
        )


class RQVAETigerFamily(_Tiger[RQVAETigerConfig]):
    """TIGER with a residual-quantised autoencoder, as it was published."""

    name = "tiger-rqvae"
    title = "TIGER, RQ-VAE"
    default = RQVAETigerConfig()

    def quantize(
        self,
        vectors: Vectors,
        known: Ints,
        settings: RQVAETigerConfig,
        seed: int,
        work: Path,
        progress: Progress = silent,
    ) -> Codes:
        """Train the autoencoder and read its codes."""
        trainer = TrainerConfig(
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            precision="fp32",  # the library searches the nearest entry in the precision it is given
            seed=seed,
        )
        return rqvae_codes(
            vectors,
            known,
            size=settings.size,
            levels=settings.levels,
            width=settings.width,
            batch_size=settings.batch_size,
            trainer=trainer,
            work=work,
            family=self.name,
            progress=progress,
        )
