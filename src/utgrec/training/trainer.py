"""The training loop: one for every model, resumable bit for bit.

A step is a function of (weights, moments, seed, step): the batch comes from the step's number, and
the generators are seeded from it, so a run that was killed and started again ends with the same
weights as one that was not. A module gets a batch and returns its losses by name; "loss" is the
one that is minimised.
"""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from utgrec.config import fingerprint, require, to_dict
from utgrec.errors import TrainingError
from utgrec.progress import Progress, silent
from utgrec.training import checkpoints

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How a model is trained, whatever the model."""

    steps: int
    """Optimiser steps at most."""
    learning_rate: float
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices; vectors (norms, biases) do not decay."""
    warmup_share: float = 0.03
    """Share of the steps in which the learning rate rises linearly from 0; then cosine to 0."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    precision: str = "bf16"
    """bf16 (autocast; weights stay float32) or fp32."""
    seed: int = 0
    """Seeds batches, dropout and noise."""
    log_every: int = 20
    """Steps between two logged rows; a row holds means over those steps."""
    validate_every: int = 0
    """Steps between two validations; 0 means none."""
    patience: int = 0
    """Validations without gain before training stops; 0 means never. The best weights are kept."""
    checkpoint_every_s: float = 60.0
    """Seconds between two checkpoints."""

    def __post_init__(self) -> None:
        require(self.steps >= 0, f"steps must be at least 0, got {self.steps}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(0 <= self.warmup_share < 1, f"warmup_share is in [0, 1), got {self.warmup_share}")
        require(self.clip_norm > 0, f"clip_norm must be above 0, got {self.clip_norm}")
        require(
            self.precision in ("bf16", "fp32"),
            f"precision is bf16 or fp32, got {self.precision!r}",
        )
        require(self.log_every >= 1, f"log_every must be at least 1, got {self.log_every}")
        require(
            self.validate_every >= 0 and self.patience >= 0,
            f"validate_every and patience are at least 0, got {self}",
        )


class Trained(NamedTuple):
    """What training gives besides the weights, which are left in the module."""

    rows: list[dict[str, float]]  # logged means of every loss by name, with "step"
    validations: list[dict[str, float]]  # what each validation measured, with "step"
    best_step: int  # the step whose weights were kept
    steps_done: int  # fewer than asked if patience ran out
    earlier_s: float  # seconds spent by the attempts that were interrupted


def train(
    module: nn.Module,
    *,
    batch: Callable[[int], Any],
    config: TrainerConfig,
    work: Path,
    inputs: dict[str, str],
    validate: Callable[[], dict[str, float]] | None = None,
    metric: str = "",
    describe: Callable[[Any], str] = repr,
    progress: Progress = silent,
    title: str = "Training",
) -> Trained:
    """Train `module` in place and leave the best (or last) weights in it.

    Args:
        module: called with a batch, returns losses by name, among them "loss".
        batch: the batch of a step's number; must depend on nothing else.
        work: folder for checkpoints; those of an interrupted run are continued.
        inputs: fingerprints of what the batches are made of.
        validate: measures the module; the higher `metric`, the better.
        describe: names what a batch holds, for the error of a loss that is not finite.

    Raises:
        TrainingError: a loss or its gradient is not finite.
        SettingsMismatch: `work` holds a checkpoint of another run.
    """
    from accelerate import Accelerator

    settings = fingerprint({"config": to_dict(config), "inputs": inputs})
    accelerator = Accelerator(mixed_precision="no")
    optimizer = _optimizer(module, config)
    model, prepared = accelerator.prepare(module, optimizer)
    run = _Run(module, prepared, config, work, settings)
    run.resume()
    if run.finished:
        run.keep_best()
        return run.result()
    device = accelerator.device
    use_bf16 = config.precision == "bf16"
    model.train()
    while run.step < config.steps and not run.out_of_patience:
        torch.manual_seed(_step_seed(config.seed, run.step))
        rate = config.learning_rate * schedule(run.step, config)
        for group in prepared.param_groups:
            group["lr"] = rate
        current = batch(run.step)
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            losses: dict[str, Tensor] = model(current)
        accelerator.backward(losses["loss"])
        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        values = {name: float(value.detach()) for name, value in losses.items()}
        values["gradient_norm"] = float(norm)
        # Before the step: weights that are not finite must not get into a checkpoint.
        if not all(math.isfinite(value) for value in values.values()):
            raise TrainingError(
                f"step {run.step}: a loss or its gradient is not finite ({values}); the batch "
                f"holds {describe(current)}; lower the learning rate (now {rate:.2g}) or look at "
                "these"
            )
        prepared.step()
        prepared.zero_grad(set_to_none=True)
        run.count(values)
        progress(title, run.step, config.steps, f"loss {values['loss']:.3f}")
        if validate is not None and run.validation_due:
            model.eval()
            with torch.no_grad():
                run.judge(validate(), metric)
            model.train()
        if run.checkpoint_due:
            run.save()
    run.save(finished=True)
    run.keep_best()
    return run.result()


def write_losses(path: Path, trained: Trained) -> None:
    """Write the logged losses and the validations of a run as JSON lines."""
    rows = [{"kind": "loss", **row} for row in trained.rows]
    rows += [{"kind": "validation", **row} for row in trained.validations]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def schedule(step: int, config: TrainerConfig) -> float:
    """The share of the peak learning rate at a step: linear warm-up, then a half cosine to 0."""
    warmup = max(1, round(config.steps * config.warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


class _Run:
    """Where a training run stands, and how it is written down."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainerConfig,
        work: Path,
        settings: str,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.config = config
        self.work = work
        self.settings = settings
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.best_metric = -math.inf
        self.best_step = 0
        self.without_gain = 0
        self.finished = False
        self.rows: list[dict[str, float]] = []
        self.validations: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._started = self._saved = time.monotonic()
        self._earlier_s = 0.0

    @property
    def out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.without_gain

    @property
    def validation_due(self) -> bool:
        every = self.config.validate_every
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    @property
    def checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved >= self.config.checkpoint_every_s

    def count(self, values: dict[str, float]) -> None:
        """Add one step's figures to the running means; write a row when it is time."""
        self.step += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        steps = self.step % self.config.log_every or self.config.log_every
        if steps == self.config.log_every or self.step == self.config.steps:
            means = {name: total / steps for name, total in self._sums.items()}
            self.rows.append({"step": self.step, **means})
            self._sums = {}

    def judge(self, measured: dict[str, float], metric: str) -> None:
        """Note a validation, and keep the weights if they are the best so far."""
        self.validations.append({"step": self.step, **measured})
        log.info("step %d: %s", self.step, measured)
        if measured[metric] > self.best_metric:
            self.best_metric = measured[metric]
            self.best_step = self.step
            self.best = {name: value.clone() for name, value in self.module.state_dict().items()}
            self.without_gain = 0
        else:
            self.without_gain += 1

    def keep_best(self) -> None:
        """Leave the best weights in the module; the last ones if nothing was validated."""
        if self.best:
            self.module.load_state_dict(self.best)
        else:
            self.best_step = self.step
        self.module.eval()

    def result(self) -> Trained:
        return Trained(self.rows, self.validations, self.best_step, self.step, self._earlier_s)

    def save(self, finished: bool = False) -> None:
        record = {
            "rows": self.rows,
            "validations": self.validations,
            "sums": self._sums,
            "best_metric": self.best_metric if self.best else None,
            "best_step": self.best_step,
            "without_gain": self.without_gain,
            "seconds": self._seconds(),
            "finished": finished,
        }
        state = checkpoints.TrainingState(
            step=self.step,
            weights=self.module.state_dict(),
            moments=checkpoints.flatten_moments(self.optimizer),
            best=self.best,
            record=record,
        )
        checkpoints.save(self.work, state, self.settings)
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one."""
        state = checkpoints.load_latest(self.work, self.settings)
        if state is None:
            return
        self.module.load_state_dict(state.weights)
        checkpoints.restore_moments(self.optimizer, state.moments)
        self.step = state.step
        self.best = state.best
        record = state.record
        self.rows, self.validations = record["rows"], record["validations"]
        self._sums = record["sums"]
        if record["best_metric"] is not None:
            self.best_metric = record["best_metric"]
        self.best_step, self.without_gain = record["best_step"], record["without_gain"]
        self.finished = record["finished"]
        self._earlier_s = record["seconds"]
        log.info("continuing at step %d of %d", self.step, self.config.steps)

    def _seconds(self) -> float:
        return self._earlier_s + time.monotonic() - self._started


def _optimizer(module: nn.Module, config: TrainerConfig) -> torch.optim.Optimizer:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _step_seed(seed: int, step: int) -> int:
    # Two primes keep (seed, step) pairs apart for any run length met in practice.
    return (seed * 1_000_003 + step * 7_919 + 17) % (2**63)
