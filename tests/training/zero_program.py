"""Trains with DeepSpeed ZeRO-2 over gloo, as one of several processes.

DeepSpeed runs on CPUs, but Accelerate starts its processes only where there are GPUs: this program
names the backend, and leaves all else to Accelerate and to the training loop.

Arguments: a folder, for the small module of `shard_program.py`; or a command of `utgrec` with the
miniature recipe. Environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, and what `accelerate
launch` makes of the shipped configuration; STOP_AT is a step.
"""

import sys
from pathlib import Path

import accelerate.state
import deepspeed
from shard_program import fit

sys.path.insert(0, str(Path(__file__).parents[1]))

from mini_program import exact_recipe
from utgrec import processes, recipes


def gloo(*_: object) -> tuple[str, accelerate.state.DistributedType]:
    """The backend, and how Accelerate calls processes on CPUs."""
    return "gloo", accelerate.state.DistributedType.MULTI_CPU


def main() -> None:
    """Train, or be stopped."""
    if processes.count() > 1:
        accelerate.state.PartialState._prepare_backend = gloo  # type: ignore[method-assign]
        # It would be compiled first, for minutes; gloo's own sums are enough here.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if len(sys.argv) == 2:
        fit(Path(sys.argv[1]))
        return
    recipes.RECIPES["mini"] = exact_recipe
    from utgrec.cli import app

    app()


if __name__ == "__main__":
    main()
