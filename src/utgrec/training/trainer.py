"""The training loop: one for every model and any number of processes, resumable bit for bit.

A step is a function of (weights, moments, seed, step): the batch comes from the step's number, and
the generators are seeded from it, so a run that was killed and started again ends with the same
weights as one that was not. The batch is that of all processes together: each takes its share, and
one process or many take the same step. A module gets a share and returns its losses by name; "loss"
is the one that is minimised.
"""

import dataclasses
import json
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from utgrec import storage
from utgrec.config import fingerprint, require, to_dict
from utgrec.errors import Stopped, TrainingError
from utgrec.precision import check_precision, uses_bf16
from utgrec.progress import Progress, silent
from utgrec.training.averaging import RunningAverage
from utgrec.training.distributed import first_says, mean_of, move
from utgrec.training.launch import Launch
from utgrec.training.standing import Standing
from utgrec.training.stopping import listening

NOT_FINITE = "not_finite.json"
NAMED = 8  # items that an error names; the file beside it has all


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
    precision: str = "auto"
    """bf16 (autocast; weights stay float32), fp32, or auto: bf16 where the device has instructions
    for it."""
    seed: int = 0
    """Seeds batches, dropout and noise."""
    log_every: int = 20
    """Steps between two logged rows; a row holds means over those steps."""
    validate_every: int = 0
    """Steps between two validations; 0 means none."""
    patience: int = 0
    """Validations without gain before training stops; 0 means never. The best weights are kept."""
    averaged_steps: int = 0
    """Validated and kept is a running average of the weights over about so many steps; 0 is the
    weights themselves."""
    checkpoint_every_s: float = 60.0
    """Seconds between two checkpoints."""
    at_once: int = 0
    """Rows of a batch (items, histories) whose activations a process holds at once; 0 means all of
    its share. More are worked through in parts, with the result of the whole batch."""

    def __post_init__(self) -> None:
        require(self.steps >= 0, f"steps must be at least 0, got {self.steps}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(0 <= self.warmup_share < 1, f"warmup_share is in [0, 1), got {self.warmup_share}")
        require(self.clip_norm > 0, f"clip_norm must be above 0, got {self.clip_norm}")
        check_precision(self.precision)
        require(self.log_every >= 1, f"log_every must be at least 1, got {self.log_every}")
        require(self.at_once >= 0, f"at_once must be at least 0, got {self.at_once}")
        require(
            self.validate_every >= 0 and self.patience >= 0,
            f"validate_every and patience are at least 0, got {self}",
        )
        require(
            self.averaged_steps >= 0,
            f"averaged_steps must be at least 0, got {self.averaged_steps}",
        )
        require(
            self.averaged_steps == 0 or self.validate_every > 0,
            f"averaged_steps is {self.averaged_steps}, but averages are kept by validations and "
            "validate_every is 0; set it too",
        )


class Trained(NamedTuple):
    """What training gives besides the weights, which are left in the module."""

    rows: list[dict[str, float]]  # logged means of every loss by name, with "step"
    validations: list[dict[str, float]]  # what each validation measured, with "step"
    best_step: int  # the step whose weights were kept
    steps_done: int  # fewer than asked if patience ran out
    earlier_s: float  # seconds spent by the attempts that were interrupted
    precision: str  # what matrices were multiplied in: bf16 or fp32


class Share(NamedTuple):
    """What one process, or one part of its work, takes of a batch."""

    batch: Any  # what the module is called with
    weight: float  # losses times weight have the whole batch's losses as mean over all shares


class SharedBatches(NamedTuple):
    """Batches that several processes divide among themselves."""

    draw: Callable[[int], Any]  # step → what the batch holds, the same in every process
    share: Callable[[Any, int, int], Share]  # (what it holds, number, count) → one of the shares
    rows: Callable[[Any], int]  # how many rows it holds
    names: Callable[[Any], Sequence[str]] = lambda _: ()  # what they are, for people
    whole: bool = False  # whether losses compare all rows, so that a share cannot be cut further


def train(
    module: nn.Module,
    *,
    batch: Callable[[int], Any] | SharedBatches,
    config: TrainerConfig,
    work: Path,
    inputs: dict[str, str],
    validate: Callable[[], dict[str, float]] | None = None,
    metric: str = "",
    progress: Progress = silent,
    title: str = "Training",
) -> Trained:
    """Train `module` in place and leave the best (or last) weights in it, on the CPU.

    Args:
        module: called with a batch, returns losses by name, among them "loss".
        batch: the batch of a step's number, which must depend on nothing else. A plain function is
            for one process; SharedBatches are for any number.
        work: folder for checkpoints; those of an interrupted run are continued.
        inputs: fingerprints of what the batches are made of.
        validate: measures the module, on the CPU; the higher `metric`, the better.

    Raises:
        TrainingError: a loss or its gradient is not finite; `work` has the batch's rows by name.
        SettingsMismatch: `work` holds a checkpoint of another run.
        Stopped: SIGTERM or SIGINT came; a checkpoint was written.
    """
    settings = fingerprint({"config": to_dict(config), "inputs": inputs})
    source = batch if isinstance(batch, SharedBatches) else _alone(batch)
    launch = Launch(
        module,
        _optimizer(module, config),
        config.clip_norm,
        shared=isinstance(batch, SharedBatches),
    )
    averages = config.averaged_steps > 0 and validate is not None
    launch.check(
        parts=config.at_once > 0 and not source.whole,
        validates=validate is not None,
        averages=averages,
    )
    use_bf16 = uses_bf16(config.precision, launch.device)
    if use_bf16:
        launch.multiply_in_bf16()
    average = RunningAverage(module, config.averaged_steps) if averages else None
    run = Standing(launch, config, work, settings, average)
    run.resume()
    if run.finished:
        run.keep_best()
        return _result(run, use_bf16)
    launch.model.train()
    ahead = launch.device.type != "cpu"
    with listening() as request, _fetching(source, launch, config, ahead) as fetch:
        while not run.over:
            # Dropout differs from process to process, as it does from row to row.
            torch.manual_seed(_step_seed(config.seed, run.step) + (launch.number << 40))
            rate = config.learning_rate * schedule(run.step, config)
            launch.rate(rate)
            drawn, shares = fetch(run.step)
            losses = _losses(launch, shares, use_bf16)
            # With the figures travels what one process knows and all must do together.
            *means, stop, due = mean_of(
                [*losses.values(), float(request.signal > 0), float(run.checkpoint_due)],
                launch.device,
                alone=not launch.shared,
            )
            values = dict(zip(losses, means, strict=True))
            values["gradient_norm"] = launch.clip()
            # Before the step: weights that are not finite must not get into a checkpoint.
            if not all(math.isfinite(value) for value in values.values()):
                raise _not_finite(run, values, source.names(drawn), rate)
            launch.step()
            run.count(values)
            progress(title, run.step, config.steps, f"loss {values['loss']:.3f}")
            if validate is not None and run.validation_due:
                with nullcontext() if average is None else average.shown():
                    run.judge(_validate(launch, validate), metric)
            if stop:
                run.save()
                number = request.signal or int(signal.SIGTERM)
                raise Stopped(
                    f"stopped by signal {number} after step {run.step} of {config.steps}, with a "
                    "checkpoint; run the same command again to continue",
                    number,
                )
            if due:
                run.save()
        run.close_row()
        run.save(finished=True)
    run.keep_best()
    return _result(run, use_bf16)


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


def _losses(launch: Launch, shares: Sequence[Share], use_bf16: bool) -> dict[str, float]:
    """Gradients of this process's parts of the batch, and its losses by name."""
    sums: dict[str, float] = {}
    for place, share in enumerate(shares):
        with torch.autocast(launch.device.type, torch.bfloat16, enabled=use_bf16):
            losses: dict[str, Tensor] = launch.model(move(share.batch, launch.device))
        weight = share.weight / len(shares)
        last = place == len(shares) - 1
        launch.backward(losses["loss"] * weight, last=last)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) * weight
    return sums


@contextmanager
def _fetching(
    source: SharedBatches, launch: Launch, config: TrainerConfig, ahead: bool
) -> Iterator[Callable[[int], tuple[Any, list[Share]]]]:
    """A function step → (what the batch holds, this process's shares of it).

    With `ahead` a thread lays out the next step's batch while the device works on this one.
    """

    def lay_out(step: int) -> tuple[Any, list[Share]]:
        drawn = source.draw(step)
        parts = 1
        if config.at_once and not source.whole:
            parts = -(-source.rows(drawn) // (config.at_once * launch.count))
        first, count = launch.number * parts, launch.count * parts
        return drawn, [source.share(drawn, first + part, count) for part in range(parts)]

    if not ahead:
        yield lay_out
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting: dict[int, Future[tuple[Any, list[Share]]]] = {}

        def fetch(step: int) -> tuple[Any, list[Share]]:
            found = waiting.pop(step, None) or pool.submit(lay_out, step)
            if step + 1 < config.steps:
                waiting[step + 1] = pool.submit(lay_out, step + 1)
            return found.result()

        yield fetch


def _validate(launch: Launch, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What the first process measures; the others hear it, so that all decide alike."""
    launch.module.to("cpu").eval()
    with torch.no_grad():
        measured = validate()
    launch.module.to(launch.device)
    launch.model.train()
    return first_says(measured, launch.device) if launch.shared else measured


def _not_finite(
    run: Standing, values: dict[str, float], names: Sequence[str], rate: float
) -> TrainingError:
    """Write down what the batch held, and say so."""
    path = run.work / NOT_FINITE
    if run.launch.writes:
        run.work.mkdir(parents=True, exist_ok=True)
        losses = {name: repr(value) for name, value in values.items()}
        record = {"step": run.step, "learning_rate": rate, "losses": losses, "rows": list(names)}
        storage.write_json(path, record)
    shown = ", ".join(repr(name) for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return TrainingError(
        f"step {run.step}: a loss or its gradient is not finite ({values}); the batch holds "
        f"{shown or 'rows without names'}{more}, all of them in {path}; lower the learning rate "
        f"(now {rate:.2g}) or look at these"
    )


def _result(run: Standing, used_bf16: bool) -> Trained:
    return Trained(
        run.rows,
        run.validations,
        run.best_step,
        run.step,
        run.earlier_s,
        "bf16" if used_bf16 else "fp32",
    )


def _alone(batch: Callable[[int], Any]) -> SharedBatches:
    """Batches that one process takes whole."""
    return SharedBatches(
        draw=batch, share=lambda drawn, *_: Share(drawn, 1.0), rows=lambda _: 1, whole=True
    )


def _optimizer(module: nn.Module, config: TrainerConfig) -> torch.optim.Optimizer:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # Under FSDP these are not cut into shards, and one call cannot move shards and whole tensors.
    whole = {
        parameter
        for part in module.modules()
        if getattr(part, "whole", False)
        for parameter in part.parameters()
    }
    found = [
        [one for one in trained if (one.ndim >= 2) == matrices and (one in whole) == kept]
        for kept in (False, True)
        for matrices in (True, False)
    ]
    groups = [
        {"params": group, "weight_decay": config.weight_decay if group[0].ndim >= 2 else 0.0}
        for group in found
        if group
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _step_seed(seed: int, step: int) -> int:
    # Two primes keep (seed, step) pairs apart for any run length met in practice.
    return (seed * 1_000_003 + step * 7_919 + 17) % (2**40)
