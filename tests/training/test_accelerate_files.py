"""The files of configs/accelerate mean to Accelerate what they are meant to mean.

Nothing is started and no GPU is needed: Accelerate's own parser reads each file, its launcher turns
it into the environment of a process, and its plugins read that environment.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import launch

from utgrec.training.launch import autocast_inside
from utgrec.training.trainer import TrainerConfig, _optimizer

FILES = sorted((Path(__file__).parents[2] / "configs" / "accelerate").glob("*.yaml"))


def environment(name: str) -> dict[str, str]:
    """What a process is started with under `accelerate launch --config_file NAME`."""
    path = next(file for file in FILES if file.stem == name)
    given = launch_command_parser().parse_args(["--config_file", str(path), "-m", "utgrec"])
    args, defaults, _ = _validate_launch_command(given)
    made: dict[str, str]
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        made = launch.prepare_deepspeed_cmd_env(args)[1]
    elif args.multi_gpu or int(args.num_processes) > 1:
        made = launch.prepare_multi_gpu_env(args)
    else:
        made = launch.prepare_simple_launcher_cmd_env(args)[1]
    return made


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_key_is_known(path: Path) -> None:
    """An unknown key is refused by the loader."""
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no", "the recipe says the precision"
    assert config.num_processes >= 1


def test_the_files_are_those_that_the_docs_list() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    assert all(f"| `{path.name}` |" in page for path in FILES)


def plugin(monkeypatch: pytest.MonkeyPatch, name: str, make: Any) -> Any:
    for key, value in environment(name).items():
        if key.startswith(("ACCELERATE_", "FSDP_")) and key not in os.environ:
            monkeypatch.setenv(key, value)
    return make()


def test_deepspeed_shards_gradients_and_moments_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from accelerate.utils import DeepSpeedPlugin

    made = plugin(monkeypatch, "deepspeed-zero2", DeepSpeedPlugin)
    settings = made.deepspeed_config
    assert settings["zero_optimization"]["stage"] == 2 == made.zero_stage
    assert settings["gradient_accumulation_steps"] == 1
    for kind in ("offload_optimizer", "offload_param"):
        assert settings["zero_optimization"][kind]["device"] == "none"
    # What `training.launch` sets afterwards is there to be set, and nothing says otherwise.
    assert settings["train_micro_batch_size_per_gpu"] == "auto"
    assert not any(settings.get(kind, {}).get("enabled") for kind in ("fp16", "bf16"))


def test_an_autocast_that_deepspeed_leaves_is_entered_again() -> None:
    """Its engine calls the module with autocast off, whatever the caller has entered."""
    module = torch.nn.Linear(2, 2)
    autocast_inside(module, "cpu")
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert module(torch.ones(1, 2)).dtype == torch.bfloat16
        assert not torch.is_autocast_enabled("cpu")
        with pytest.raises(RuntimeError):
            module(torch.ones(1, 3))
        assert not torch.is_autocast_enabled("cpu")


def test_shards_and_whole_tensors_are_moved_by_separate_calls() -> None:
    """One fused call cannot move both, and codebooks stay whole under FSDP."""

    class Book(torch.nn.Linear):
        whole = True

    module = torch.nn.ModuleDict({"cut": torch.nn.Linear(2, 3), "book": Book(2, 3)})
    groups = _optimizer(module, TrainerConfig(steps=1, learning_rate=1.0)).param_groups
    books = set(module["book"].parameters())
    assert [{one in books for one in group["params"]} for group in groups] == [
        {False}, {False}, {True}, {True},
    ]  # fmt: skip
    assert [group["weight_decay"] > 0 for group in groups] == [True, False, True, False]


def test_fsdp_shards_the_layers_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from transformers.models.qwen2_vl import modeling_qwen2_vl

    made = plugin(monkeypatch, "fsdp", FullyShardedDataParallelPlugin)
    assert made.fsdp_version == 2 and made.reshard_after_forward is True
    assert made.transformer_cls_names_to_wrap == ["Qwen2VLDecoderLayer"]
    assert hasattr(modeling_qwen2_vl, made.transformer_cls_names_to_wrap[0])
    assert made.state_dict_type.name == "FULL_STATE_DICT"
