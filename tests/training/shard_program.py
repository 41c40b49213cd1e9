"""Trains in real shards (FSDP 2 over gloo), as one of several processes.

Accelerate does not shard on CPUs, so this program does its part, `fully_shard`, and leaves all else
to the training loop: gathering, checkpoints, and a whole module at the end.

Arguments: a folder, for a small module; or also a domain and a pretrained model, for a tokenizer.
Environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; STOP_AT is a step.
"""

import copy
import dataclasses
import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from small_training import Regression, batch_of
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from utgrec import processes
from utgrec.catalog import Domain
from utgrec.tokenizer.backbone_config import LoraSettings, MachineSettings, PretrainedBackboneConfig
from utgrec.tokenizer.train import train_tokenizer
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
    # As `fsdp.yaml` and `Launch` say: layers of the backbone, and what writes itself stays whole.
    kept = [part for part in self.module.modules() if getattr(part, "whole", False)]
    whole = {value for part in kept for value in part.parameters()}
    if isinstance(self.module, Plain):
        parts = [self.module.enter, self.module.leave]
    else:
        parts = list(self.module.backbone.family.language_model.layers)
    for part in (*parts, self.module):
        fully_shard(part, mesh=mesh, ignored_params=whole)
    shards = dict(self.module.named_parameters())
    for group in self.optimizer.param_groups:
        group["params"] = [shards[before[id(value)]] for value in group["params"]]
    self.model = self.module


def fit(folder: Path) -> None:
    """Train the small module; its weights and its losses go into the folder."""
    module = Plain()
    config = TrainerConfig(
        steps=8, learning_rate=0.05, precision="fp32", checkpoint_every_s=0.0, log_every=1
    )
    batches = SharedBatches(draw=draw, share=share, rows=len)
    trained = train(module, batch=batches, config=config, work=folder / "work", inputs={})
    assert type(module) is Plain
    if processes.is_first():
        save_file(module.state_dict(), folder / "trained.safetensors")
        (folder / "losses.json").write_text(json.dumps([row["loss"] for row in trained.rows]))


def fit_tokenizer(folder: Path, shop: Path, model: Path) -> None:
    """Train a tokenizer whose backbone is a pretrained one with adapters."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from mini_program import exact_recipe

    lora = LoraSettings(rank=2, dropout=0.0)
    backbone = PretrainedBackboneConfig(
        name=str(model), dtype="float32", lora=lora, machine=MachineSettings(workers=0)
    )
    config = dataclasses.replace(exact_recipe().tokenizer, backbone=backbone)
    train_tokenizer([Domain.open(shop)], config, folder / "tokenizer")


def main() -> None:
    """Train, or be stopped."""
    folder, *others = (Path(argument) for argument in sys.argv[1:])
    if processes.count() > 1:
        Launch._prepare = prepare  # type: ignore[method-assign]
        Launch.kind = property(lambda self: "FSDP")  # type: ignore[assignment,method-assign]
    if others:
        fit_tokenizer(folder, *others)
    else:
        fit(folder)


if __name__ == "__main__":
    main()
