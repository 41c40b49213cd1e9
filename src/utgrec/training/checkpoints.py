"""A training state on disk: whole or absent, and enough to go on bit for bit.

Every step's random numbers come from (seed, step), so the state is weights, optimiser moments, the
step, and what was measured so far; no generator state is kept. A new checkpoint gets a new name
before the old one is removed, so a kill at any moment leaves at least one.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from utgrec import storage
from utgrec.errors import SettingsMismatch

_PREFIX = "step-"


class TrainingState(NamedTuple):
    """Everything that training needs to go on."""

    step: int  # optimiser steps done
    weights: dict[str, Tensor]  # trained and buffered tensors by name
    moments: dict[str, Tensor]  # the optimiser's state, flat: "parameter.name", see launch.py
    best: dict[str, Tensor]  # weights at the best validation, empty before the first one
    average: dict[str, Tensor]  # trained weights averaged over steps, empty if they are not
    record: dict[str, Any]  # JSON: logged rows, best metric, evaluations without gain, seconds


def save(folder: Path, state: TrainingState, settings: str) -> None:
    """Write a checkpoint into `folder`, then drop the older ones."""
    name = f"{_PREFIX}{state.step:08d}"
    # The end of training writes the last step's checkpoint again. To replace a folder takes two
    # renames, and a kill between them would leave none; a name that sorts after it takes one.
    while (folder / name).exists():
        name += "+"
    with storage.new_folder(folder / name) as partial:
        save_file(_plain(state.weights), partial / "weights.safetensors")
        save_file(_plain(state.moments), partial / "moments.safetensors")
        save_file(_plain(state.best), partial / "best.safetensors")
        save_file(_plain(state.average), partial / "average.safetensors")
        storage.write_json(partial / "record.json", {"step": state.step, **state.record})
        storage.write_manifest(
            partial, stage="checkpoint", config={}, inputs={"settings": settings}
        )
    for other in folder.glob(f"{_PREFIX}*"):
        if other.name != name:
            shutil.rmtree(other)


def load_latest(folder: Path, settings: str) -> TrainingState | None:
    """The newest whole checkpoint in `folder`, or None.

    Raises:
        SettingsMismatch: it was made with other settings or from other input.
    """
    for path in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        manifest = storage.find_manifest(path, "checkpoint")
        if manifest is None:
            continue
        if manifest.inputs["settings"] != settings:
            raise SettingsMismatch(
                f"{path} was written by a run with other settings or other input; "
                f"remove {folder} to start anew, or choose another output folder"
            )
        files = [storage.check_file(path, manifest, name) for name in sorted(manifest.files)]
        by_name = {file.name: file for file in files}
        record = storage.read_json(by_name["record.json"])
        return TrainingState(
            step=record.pop("step"),
            weights=load_file(by_name["weights.safetensors"]),
            moments=load_file(by_name["moments.safetensors"]),
            best=load_file(by_name["best.safetensors"]),
            average=load_file(by_name["average.safetensors"]),
            record=record,
        )
    return None


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory, as tied weights do.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
