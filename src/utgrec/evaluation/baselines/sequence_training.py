"""Trains a sequence model with the project's own loop, and stops it on validation items."""

from collections.abc import Callable

import torch

from utgrec.evaluation.baselines.family import (
    FitInput,
    scratch,
    settings_key,
)
from utgrec.evaluation.baselines.sequence_config import SequenceConfig
from utgrec.evaluation.baselines.sequence_model import SequenceModel, SequenceSystem
from utgrec.evaluation.baselines.windows import WindowBatches
from utgrec.progress import Progress
from utgrec.training.trainer import TrainerConfig, train

METRIC = "ndcg@10"


def train_sequence_model(
    name: str,
    title: str,
    make: Callable[[], SequenceModel],
    given: FitInput,
    settings: SequenceConfig,
    progress: Progress,
) -> SequenceSystem:
    """Train what `make` makes; a training that was interrupted goes on, a finished one is read.

    Args:
        name: of the family, for what is kept in `given.work`.
        title: of the fitted system.

    Raises:
        EmptyDomain: no user has two training items.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(given.seed)
        model = make()
        batches = WindowBatches(
            model.windows(given.split),
            batch_items=settings.batch_items,
            padding=model.padding,
            seed=given.seed,
        )
        validates = settings.validation_users > 0
        steps = max(settings.epochs * batches.per_epoch, settings.min_steps)
        every = -(-steps // settings.epochs)
        config = TrainerConfig(
            steps=steps,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            seed=given.seed,
            log_every=every,
            validate_every=every if validates else 0,
            patience=settings.patience if validates else 0,
        )
        system = SequenceSystem(model, title)
        made_from = {"family": name, "settings": settings_key(settings)}
        work = scratch(given, name, made_from)
        train(
            model,
            batch=batches,
            config=config,
            work=work,
            inputs={"made_from": work.name},
            validate=_validator(system, given, settings.validation_users) if validates else None,
            metric=METRIC,
            progress=progress,
            title=f"Training {title}",
        )
    return system


def _validator(
    system: SequenceSystem, given: FitInput, most: int
) -> Callable[[], dict[str, float]] | None:
    users = given.validation_users(most)
    if len(users) == 0:
        return None

    def measure() -> dict[str, float]:
        return {METRIC: given.validate(system, users).mean(METRIC)}

    return measure
