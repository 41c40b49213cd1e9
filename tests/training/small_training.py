"""A small regression with dropout and a buffer: everything that a resumed run has to get right."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from utgrec.training.trainer import Trained, TrainerConfig, train


class Interrupted(Exception):
    """What stands for a kill."""


class Regression(nn.Module):
    """Two layers with dropout; a buffer counts the forward passes of training."""

    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.enter = nn.Linear(4, 8)
        self.drop = nn.Dropout(0.2)
        self.leave = nn.Linear(8, 1)
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
        self.late = nn.Parameter(torch.ones(3))  # takes part from the third pass on
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        out = self.leave(self.drop(torch.tanh(self.enter(batch))))  # (B, 1)
        fit = (out.squeeze(1) - batch.sum(dim=1)).square().mean()
        if self.training:
            self.passes += 1
        extra = self.late.square().sum() if int(self.passes) >= 3 else fit.new_zeros(())
        return {"loss": fit + 0.1 * extra, "fit": fit.detach(), "extra": extra.detach()}


def batch_of(step: int) -> Tensor:
    """The batch of a step's number."""
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(100 + step))


class Outcome(NamedTuple):
    """What a training run leaves."""

    trained: Trained
    weights: dict[str, Tensor]


def run(
    work: Path,
    *,
    measure: bool = True,
    batch: Any = batch_of,
    validate: Any = None,
    module: nn.Module | None = None,
    inputs: dict[str, str] | None = None,
    **settings: Any,
) -> Outcome:
    """Train a new module from what is in `work`."""
    module = Regression() if module is None else module
    values = {
        "steps": 12,
        "learning_rate": 0.05,
        "warmup_share": 0.25,
        "precision": "fp32",
        "log_every": 5,
        "validate_every": 3,
        "checkpoint_every_s": 0.0,
        **settings,
    }

    def fit() -> dict[str, float]:
        assert not module.training
        assert not torch.is_grad_enabled()
        with torch.no_grad():
            return {"quality": -float(module(batch_of(1000))["fit"])}

    trained = train(
        module,
        batch=batch,
        config=TrainerConfig(**values),
        work=work,
        inputs={"domain": "1"} if inputs is None else inputs,
        validate=(validate or fit) if measure else None,
        metric="quality",
    )
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    return Outcome(trained, weights)


def assert_same(first: Outcome, second: Outcome) -> None:
    """Bit for bit, but for the seconds that interrupted attempts took."""
    assert first.trained._replace(earlier_s=0) == second.trained._replace(earlier_s=0)
    assert first.weights.keys() == second.weights.keys()
    for name, value in first.weights.items():
        assert torch.equal(value, second.weights[name]), name
