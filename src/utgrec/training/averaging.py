"""A running average of a module's weights, which a few noisy steps cannot spoil.

Where training stops early, the learning rate is still high and every step moves the weights about
their goal; their average lies nearer to it. What is validated and kept is then the average, while
training goes on from the weights themselves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

EARLY = 9  # before its window is full, the average reaches back over about a tenth of the steps


class RunningAverage:
    """The exponential average of a module's trained parameters; buffers are not averaged."""

    def __init__(self, module: nn.Module, steps: int) -> None:
        """It reaches back over about `steps` steps."""
        self.steps = steps
        self._parameters = {
            name: value for name, value in module.named_parameters() if value.requires_grad
        }
        self.values: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Take in the weights after a step; the first step is 1."""
        if not self.values:
            self.values = {name: value.detach().clone() for name, value in self._parameters.items()}
            return
        share = max(1 / self.steps, (EARLY + 1) / (EARLY + step))
        averages: Any = [self.values[name] for name in self._parameters]
        weights: Any = [value.detach() for value in self._parameters.values()]
        get_ema_multi_avg_fn(1 - share)(averages, weights, step)  # type: ignore[no-untyped-call]

    def load(self, values: dict[str, Tensor]) -> None:
        """Go on from the `values` of another one."""
        self.values = {
            name: values[name].to(value.device) for name, value in self._parameters.items()
        }

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the module have the average for a while, and its own weights again afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, average in self.values.items():
            own = self._parameters[name]
            kept = own.detach().clone()
            own.copy_(average)
            average.copy_(kept)
