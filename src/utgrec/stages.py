"""Run one stage of the pipeline: skip it when it is done, refuse to mix settings, measure it."""

import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from utgrec import processes, storage
from utgrec.errors import SettingsMismatch

_STATUS = Path("/proc/self/status")  # Linux


class Workspace(NamedTuple):
    """Where a stage writes while it runs."""

    folder: Path  # becomes the finished stage
    checkpoints: Path  # survives interruptions, removed once the stage is finished


class StageResult(NamedTuple):
    """What a stage's function gives back."""

    facts: dict[str, Any]  # small results for the manifest
    earlier_s: float = 0.0  # seconds spent by interrupted attempts
    measured: dict[str, float] | None = None  # what else differs from run to run


def run_stage(
    out: Path,
    *,
    stage: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    make: Callable[[Workspace], StageResult],
    together: bool = False,
) -> storage.Manifest:
    """Make the stage in `out` unless it is there already, made from the same things.

    Of several processes the first one makes it while the others wait for its manifest. With
    `together` all of them work on it, and only what the first one writes is kept.

    Raises:
        SettingsMismatch: `out` holds this stage made with other settings or from other input.
    """
    found = storage.find_manifest(out, stage)
    wanted = storage.recipe_fingerprint(stage, config, inputs)
    checkpoints = out.parent / f".{out.name}.work"
    if found is not None:
        if found.recipe_fingerprint == wanted:
            # A run killed right after the stage was finished leaves its checkpoints behind.
            if processes.is_first():
                shutil.rmtree(checkpoints, ignore_errors=True)
            return found
        raise SettingsMismatch(
            f"{out} holds a {stage} {_difference(found, config, inputs)}; "
            "choose another output folder, or remove this one to make it anew"
        )
    if not processes.is_first():
        if together:
            with tempfile.TemporaryDirectory(prefix="utgrec-") as folder:
                make(Workspace(Path(folder), checkpoints))
        return processes.wait_for(
            lambda: storage.find_manifest(out, stage), f"the {stage} in {out}"
        )
    started = time.monotonic()
    with storage.new_folder(out) as folder:
        result = make(Workspace(folder, checkpoints))
        manifest = storage.write_manifest(
            folder,
            stage=stage,
            config=config,
            inputs=inputs,
            facts=result.facts,
            measured={
                "wall_s": round(result.earlier_s + time.monotonic() - started, 3),
                "peak_memory_mib": round(peak_memory_mib(), 1),
                **(result.measured or {}),
            },
        )
    shutil.rmtree(checkpoints, ignore_errors=True)
    return manifest


def peak_memory_mib() -> float:
    """The most memory this process has held so far, in MiB.

    Where the system counts it for the program that runs now, that is taken: `ru_maxrss` of a
    process that was started by a larger one is that of the larger one.
    """
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _difference(found: storage.Manifest, config: dict[str, Any], inputs: dict[str, str]) -> str:
    if found.inputs != inputs:
        changed = sorted(
            name for name in {*found.inputs, *inputs} if found.inputs.get(name) != inputs.get(name)
        )
        return f"made from other input ({', '.join(changed)})"
    changed = _changed_settings(found.config, config)
    return f"made with other settings ({', '.join(changed)})"


def _changed_settings(old: Any, new: Any, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in _changed_settings(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{name}: {old!r} there, {new!r} asked"]
