"""Trains a small module in real shards (FSDP 2 over gloo), as one of several processes.

Accelerate does not shard on CPUs, so this program does its part, `fully_shard`, and leaves all else
to the training loop: gathering, checkpoints, and a whole module at the end.

Argument: a folder. Environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; STOP_AT is a step.
"""

import copy
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from small_training import Regression, batch_of
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from utgrec import processes
from utgrec.training.launch import Launch
from utgrec.training.trainer import Share, SharedBatches, TrainerConfig, train


class Plain(Regression):
    """Nothing in it counts its calls or draws anything."""

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of a share."""
        out = self.leave(torch.tanh(self.enter(batch))).squeeze(1)
        return {"loss": (out - batch.sum(dim=1)).square().mean() + 0.0 * self.late.sum()}


def share(batch: torch.Tensor, number: int, count: int) -> Share:
    """Every n-th row."""
    part = batch[number::count]
    return Share(part, count * len(part) / len(batch))


class Killed(Exception):
    """What stands for a kill."""


def draw(step: int) -> torch.Tensor:
    """The batch of a step."""
    if str(step) == os.environ.get("STOP_AT"):
        raise Killed
    return batch_of(step)


def prepare(self: Launch) -> None:
    """What Accelerate does on GPUs."""
    from accelerate import Accelerator

    self.accelerator = Accelerator(cpu=True)
    self.device = self.accelerator.device
    self._whole = copy.deepcopy(self.module)
    mesh = init_device_mesh("cpu", (processes.count(),))
    before = {id(value): name for name, value in self.module.named_parameters()}
    for part in (self.module.enter, self.module.leave, self.module):
        fully_shard(part, mesh=mesh)
    shards = dict(self.module.named_parameters())
    for group in self.optimizer.param_groups:
        group["params"] = [shards[before[id(value)]] for value in group["params"]]
    self.model = self.module


def main() -> None:
    """Train, or be stopped."""
    folder = Path(sys.argv[1])
    if processes.count() > 1:
        Launch._prepare = prepare  # type: ignore[method-assign]
        Launch.kind = property(lambda self: "FSDP")  # type: ignore[assignment,method-assign]
    module = Plain()
    config = TrainerConfig(
        steps=8, learning_rate=0.05, precision="fp32", checkpoint_every_s=0.0, log_every=1
    )
    batches = SharedBatches(draw=draw, share=share, rows=len)
    train(module, batch=batches, config=config, work=folder / "work", inputs={})
    assert type(module) is Plain
    if processes.is_first():
        save_file(module.state_dict(), folder / "trained.safetensors")


if __name__ == "__main__":
    main()
