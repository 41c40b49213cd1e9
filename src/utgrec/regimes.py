"""Ways to bring a pre-trained run to a new domain, and what each of them trains.

`full` is the method of the paper; the others leave out one thing each, as its ablation does, so
that it can be told what a figure owes to which part. `without` leaves out parts of the tokenizer.
"""

import dataclasses
from collections.abc import Callable, Sequence

from utgrec.config import require
from utgrec.errors import BadConfig
from utgrec.recommender.train import RecommenderConfig
from utgrec.tokenizer.pretrained import TokenizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regime:
    """What an adaptation takes from its base, and what it trains."""

    base_tokenizer: bool = True
    """Whether the tokenizer starts as the base's; otherwise it starts as new."""
    train_tokenizer: bool = True
    """Whether the tokenizer is trained on the new domain."""
    train_basis: bool = False
    """Whether the basis of the codebooks is trained along with all else of the tokenizer."""
    base_recommender: bool = True
    """Whether the recommender starts as the base's; otherwise it starts as new."""
    train_recommender: bool = True
    """Whether the recommender is trained on the new domain."""


REGIMES: dict[str, Regime] = {
    "full": Regime(),
    "frozen-tokenizer": Regime(train_tokenizer=False),
    "basis-too": Regime(train_basis=True),
    "new-recommender": Regime(base_recommender=False),
    "from-scratch": Regime(base_tokenizer=False, train_basis=True, base_recommender=False),
    "zero-shot": Regime(train_tokenizer=False, train_recommender=False),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How a run is adapted to a new domain; all else is as its base was made.

    What starts as new (in `new-recommender` and `from-scratch`) does as many steps as what starts
    as the base's, but with the learning rate of the pre-training, which was chosen for a new start.
    """

    regime: str = "full"
    """Name of the regime: what is taken from the base and what is trained."""
    tokenizer_steps: int = 200
    """Optimiser steps of the tokenizer."""
    tokenizer_epochs: float = 0.0
    """Times that every trained item is an anchor; the steps are then the most that are done."""
    tokenizer_learning_rate: float = 2e-4
    """Peak learning rate of the tokenizer; the paper's is a third of its pre-training's."""
    recommender_steps: int = 500
    """Optimiser steps of the recommender, at most."""
    recommender_learning_rate: float = 2e-3
    """Peak learning rate of the recommender. The paper's 2e-4 to 1e-3 are for many more steps."""
    seed: int = 0
    """Seeds batches, dropout, and all weights that start as new."""

    def __post_init__(self) -> None:
        require(
            self.regime in REGIMES,
            f"there is no regime {self.regime!r}; there are {', '.join(REGIMES)}",
        )
        require(
            min(self.tokenizer_steps, self.recommender_steps) >= 1,
            f"tokenizer_steps and recommender_steps must be at least 1, got {self.tokenizer_steps} "
            f"and {self.recommender_steps}; the regimes 'frozen-tokenizer' and 'zero-shot' train "
            "less",
        )
        require(
            self.tokenizer_epochs >= 0,
            f"tokenizer_epochs must be at least 0, got {self.tokenizer_epochs}",
        )
        require(
            min(self.tokenizer_learning_rate, self.recommender_learning_rate) > 0,
            f"learning rates must be above 0, got {self.tokenizer_learning_rate} and "
            f"{self.recommender_learning_rate}",
        )

    @property
    def what(self) -> Regime:
        """What the regime takes and trains."""
        return REGIMES[self.regime]


def tokenizer_settings(base: TokenizerConfig, adapt: AdaptConfig) -> TokenizerConfig:
    """How the tokenizer of an adaptation is trained, given how the base's was."""
    change, quantizer, what = dataclasses.replace, base.quantizer, adapt.what
    trainer = change(base.trainer, steps=adapt.tokenizer_steps, seed=adapt.seed)
    base = change(base, epochs=adapt.tokenizer_epochs)
    if not what.base_tokenizer:
        share = adapt.tokenizer_steps / base.trainer.steps
        warmup = min(round(quantizer.warmup_steps * share), adapt.tokenizer_steps - 1)
        return change(base, quantizer=change(quantizer, warmup_steps=warmup), trainer=trainer)
    require(
        what.train_basis or quantizer.kind == "simvq",
        f"the regime {adapt.regime!r} freezes the basis of simvq codebooks, but these are of kind "
        f"{quantizer.kind!r}, which has none; take the regime 'basis-too'",
    )
    # The codebooks stand where they have to be: neither a warm-up nor a new placement. A code that
    # no item here chooses is one that items elsewhere do, so it is not dead.
    quantizer = change(
        quantizer,
        warmup_steps=0,
        start_from_states=False,
        revive_every=0,
        freeze_basis=not what.train_basis,
    )
    trainer = change(trainer, learning_rate=adapt.tokenizer_learning_rate)
    return change(base, quantizer=quantizer, trainer=trainer)


def recommender_settings(base: RecommenderConfig, adapt: AdaptConfig) -> RecommenderConfig:
    """How the recommender of an adaptation is trained, given how the base's was."""
    change = dataclasses.replace
    trainer = change(base.trainer, steps=adapt.recommender_steps, seed=adapt.seed)
    if adapt.what.base_recommender:
        trainer = change(trainer, learning_rate=adapt.recommender_learning_rate)
    return change(base, trainer=trainer)


def _without_tree(config: TokenizerConfig) -> TokenizerConfig:
    quantizer = config.quantizer
    shared = dataclasses.replace(quantizer, tree=False, root_size=quantizer.leaf_size)
    return dataclasses.replace(config, quantizer=shared)


def _without_alignment(config: TokenizerConfig) -> TokenizerConfig:
    return dataclasses.replace(config, weights=dataclasses.replace(config.weights, alignment=0.0))


def _without_partner(config: TokenizerConfig) -> TokenizerConfig:
    return dataclasses.replace(config, weights=dataclasses.replace(config.weights, partner=0.0))


PARTS: dict[str, Callable[[TokenizerConfig], TokenizerConfig]] = {
    "tree": _without_tree,
    "alignment": _without_alignment,
    "co-occurrence": _without_partner,
}


def without(config: TokenizerConfig, parts: Sequence[str]) -> TokenizerConfig:
    """The same tokenizer without some of its parts.

    tree: one codebook for all positions; alignment: no contrast with the partner; co-occurrence:
    the partner's words and picture are not rebuilt.

    Raises:
        BadConfig: there is no such part.
    """
    for part in parts:
        if part not in PARTS:
            raise BadConfig(f"there is no part {part!r} to leave out; there are {', '.join(PARTS)}")
        config = PARTS[part](config)
    return config
