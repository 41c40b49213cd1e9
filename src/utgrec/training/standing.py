"""Where a training run stands: what was measured so far, the best weights, and its checkpoints."""

import logging
import math
import time
from pathlib import Path
from typing import Protocol

from torch import Tensor

from utgrec.errors import TrainingError
from utgrec.training import checkpoints
from utgrec.training.averaging import RunningAverage
from utgrec.training.distributed import mean_of
from utgrec.training.launch import Launch, load_weights

log = logging.getLogger(__name__)


class Pace(Protocol):
    """When a run logs, validates, writes and gives up; see TrainerConfig."""

    @property
    def steps(self) -> int: ...
    @property
    def log_every(self) -> int: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def patience(self) -> int: ...
    @property
    def checkpoint_every_s(self) -> float: ...


class Standing:
    """Where a training run stands, and how it is written down."""

    def __init__(
        self,
        launch: Launch,
        config: Pace,
        work: Path,
        settings: str,
        average: RunningAverage | None = None,
    ) -> None:
        self.launch = launch
        self.average = average
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
        self.earlier_s = 0.0
        self._sums: dict[str, float] = {}
        self._summed = 0
        self._started = self._saved = time.monotonic()

    @property
    def out_of_patience(self) -> bool:
        """Whether too many validations brought no gain."""
        return 0 < self.config.patience <= self.without_gain

    @property
    def over(self) -> bool:
        """Whether no step is left to do."""
        return self.step >= self.config.steps or self.out_of_patience

    @property
    def validation_due(self) -> bool:
        """Whether this step is one after which to validate."""
        every = self.config.validate_every
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    @property
    def checkpoint_due(self) -> bool:
        """Whether the last checkpoint is old enough."""
        return time.monotonic() - self._saved >= self.config.checkpoint_every_s

    def count(self, values: dict[str, float]) -> None:
        """Add one step's figures to the running means; write a row when it is time."""
        self.step += 1
        if self.average is not None:
            self.average.add(self.step)
        self._summed += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if self.step % self.config.log_every == 0:
            self.close_row()

    def close_row(self) -> None:
        """Write a row of the steps since the last one, if there were any."""
        if self._summed:
            means = {name: total / self._summed for name, total in self._sums.items()}
            self.rows.append({"step": self.step, **means})
        self._sums, self._summed = {}, 0

    def judge(self, measured: dict[str, float], metric: str) -> None:
        """Note a validation, and keep the weights if they are the best so far."""
        self.validations.append({"step": self.step, **measured})
        log.info("step %d: %s", self.step, measured)
        if measured[metric] > self.best_metric:
            self.best_metric = measured[metric]
            self.best_step = self.step
            self.best = {name: value.clone() for name, value in self.launch.weights().items()}
            self.without_gain = 0
        else:
            self.without_gain += 1

    def keep_best(self) -> None:
        """Leave the best weights in the module; the last ones if nothing was validated."""
        self.launch.finish()
        if self.best:
            load_weights(self.launch.module, self.best)
        else:
            self.best_step = self.step
        self.launch.module.eval()

    def save(self, finished: bool = False) -> None:
        """Write a checkpoint; all processes call, the first one writes."""
        record = {
            "rows": self.rows,
            "validations": self.validations,
            "sums": self._sums,
            "summed": self._summed,
            "best_metric": self.best_metric if self.best else None,
            "best_step": self.best_step,
            "without_gain": self.without_gain,
            "seconds": self.earlier_s + time.monotonic() - self._started,
            "finished": finished,
        }
        state = checkpoints.TrainingState(
            step=self.step,
            weights=self.launch.weights(),
            moments=self.launch.moments(),
            best=self.best,
            average={} if self.average is None else self.average.values,
            record=record,
        )
        if self.launch.writes:
            checkpoints.save(self.work, state, self.settings)
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one.

        Raises:
            TrainingError: the processes do not see the same checkpoint.
        """
        state = checkpoints.load_latest(self.work, self.settings)
        if state is not None:
            self.launch.load(state.weights, state.moments)
            self.step = state.step
            self.best = state.best
            if self.average is not None and state.average:
                self.average.load(state.average)
            record = state.record
            self.rows, self.validations = record["rows"], record["validations"]
            self._sums, self._summed = record["sums"], record["summed"]
            if record["best_metric"] is not None:
                self.best_metric = record["best_metric"]
            self.best_step, self.without_gain = record["best_step"], record["without_gain"]
            self.finished = record["finished"]
            self.earlier_s = record["seconds"]
            log.info("continuing at step %d of %d", self.step, self.config.steps)
        if self.launch.shared:
            # Nobody goes on, and removes this checkpoint, before all have read it.
            mine = self.step + (0.5 if self.finished else 0.0)
            (mean,) = mean_of([mine], self.launch.device)
            if abs(mean - mine) > 1e-9:
                raise TrainingError(
                    f"process {self.launch.number} found a checkpoint of step {self.step}, the "
                    f"processes' mean is {mean:.1f}; {self.work} must be one folder that all of "
                    "them see"
                )
