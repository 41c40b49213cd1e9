"""One optimiser step, whatever the processes and however the weights lie over them.

`accelerate launch` decides: one process, DDP (whole copies), FSDP (weights in shards) or DeepSpeed
ZeRO-2 (gradients and moments in shards). Weights and moments are read and written whole and by the
names of parameters, so a checkpoint does not know how many processes made it.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from utgrec import processes
from utgrec.config import require
from utgrec.precision import own_device

MOMENTS = ("exp_avg", "exp_avg_sq")


class Launch:
    """A module and its optimiser, prepared for the way this program was started."""

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float, *, shared: bool
    ) -> None:
        """With `shared` the processes work together; otherwise this one trains by itself."""
        self.module = module
        self.clip_norm = clip_norm
        self.shared = shared and processes.count() > 1
        self.names = {id(value): name for name, value in module.named_parameters()}
        self.model: Any = module
        self.optimizer: Any = optimizer
        self.accelerator: Any = None
        self._whole: nn.Module | None = None
        if processes.count() > 1 and not shared:
            self.device = own_device()
            module.to(self.device)
            return
        self._prepare()

    def _prepare(self) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs

        # Buffers are kept equal by the modules themselves. Batches may leave out parts of a module.
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        self.accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[ddp])
        self.device = self.accelerator.device
        if self.kind == "DEEPSPEED":
            settings = self.accelerator.state.deepspeed_plugin.deepspeed_config
            settings["train_micro_batch_size_per_gpu"] = 1  # batches are ours, not a data loader's
            settings["gradient_accumulation_steps"] = 1
            settings["gradient_clipping"] = self.clip_norm
        if self.kind == "FSDP":
            self._whole = copy.deepcopy(self.module)
            plugin = self.accelerator.state.fsdp_plugin
            if plugin.ignored_modules is None:
                # These write their own weights in training, which shards would not keep.
                plugin.ignored_modules = [
                    child for child in self.module.modules() if getattr(child, "whole", False)
                ]
        self.model, self.optimizer = self.accelerator.prepare(self.module, self.optimizer)

    def multiply_in_bf16(self) -> None:
        """See to it that the module's own calls multiply in bfloat16 where the caller's would not.

        DeepSpeed's engine leaves an autocast that was entered around it.
        """
        if self.kind == "DEEPSPEED":
            autocast_inside(self.module, self.device.type)

    @property
    def kind(self) -> str:
        """How the processes work together, in Accelerate's words."""
        return "NO" if self.accelerator is None else self.accelerator.distributed_type.name

    @property
    def number(self) -> int:
        """The number of this process among those that work together."""
        return processes.number() if self.shared else 0

    @property
    def count(self) -> int:
        """How many processes work together."""
        return processes.count() if self.shared else 1

    @property
    def writes(self) -> bool:
        """Whether this process writes checkpoints."""
        return self.number == 0

    def check(self, *, parts: bool, validates: bool, averages: bool) -> None:
        """Refuse what a way of working together cannot do.

        Raises:
            BadConfig: it cannot.
        """
        require(
            not (parts and self.kind == "DEEPSPEED"),
            "DeepSpeed takes a step with every backward pass, so at_once must be 0 for this model; "
            "use DDP, or more processes",
        )
        require(
            not (validates and self.kind == "FSDP"),
            "validate_every must be 0 under FSDP, whose shards cannot be measured while they "
            "train; use DDP for this model, which is small",
        )
        require(
            not (averages and self.kind == "DEEPSPEED"),
            "averaged_steps must be 0 under DeepSpeed, which keeps the weights a second time; use "
            "DDP for this model, which is small",
        )

    def rate(self, value: float) -> None:
        """Set the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Gradients of one part of the batch; they travel between processes with the last one."""
        if self.kind == "DEEPSPEED":
            if getattr(self.module, "weights_written", False):
                # ZeRO keeps the weights a second time, and would overwrite what was written.
                self.model.optimizer.refresh_fp32_params()
            self.model.backward(loss)
        elif self.accelerator is None:
            loss.backward()  # type: ignore[no-untyped-call]
        elif last:
            self.accelerator.backward(loss)
        else:
            with self.accelerator.no_sync(self.model):
                self.accelerator.backward(loss)

    def clip(self) -> float:
        """Scale the gradients down to the norm; the norm that they had."""
        if self.kind == "DEEPSPEED":
            return float(self.model.optimizer.scaled_global_norm())  # it clips in its step
        if self.accelerator is None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        else:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        return float(_full(norm))

    def step(self) -> None:
        """Move the weights, forget the gradients."""
        if self.kind == "DEEPSPEED":
            self.model.step()
            return
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def weights(self) -> dict[str, Tensor]:
        """All weights and buffers, whole, on the CPU; to be called by all processes.

        A module that is built on a frozen one names what has to be kept by `kept_state`.
        """
        keep = getattr(self.module, "kept_state", self.module.state_dict)
        return {name: _full(value).cpu() for name, value in keep().items()}

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's state, whole: "parameter.exp_avg" …; to be called by all processes."""
        if self.kind == "DEEPSPEED":
            return self._deepspeed_moments()
        if self.kind == "FSDP":
            from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

            inner = getattr(self.optimizer, "optimizer", self.optimizer)
            found: Any = get_optimizer_state_dict(self.model, inner)["state"]
            return {
                f"{name}.{key}": _full(torch.as_tensor(value)).cpu()
                for name, state in found.items()
                for key, value in state.items()
            }
        return flatten_moments(self.optimizer, self.names)

    def load(self, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """Go on from whole weights and moments."""
        if self.kind == "FSDP":
            self._load_shards(weights, moments)
            return
        load_weights(self.module, weights)
        if self.kind == "DEEPSPEED":
            self._load_deepspeed(moments)
        else:
            restore_moments(self.optimizer, moments, self.names)

    def finish(self) -> None:
        """Leave a whole module behind, on the CPU, as if one process had trained it."""
        if self._whole is not None:
            load_weights(self._whole, self.weights())
            # The caller holds the module itself, which is made of shards by now.
            self.module.__class__ = type(self._whole)
            self.module.__dict__ = self._whole.__dict__
        self.module.to("cpu")

    def _load_shards(self, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        whole: Any = weights
        loose: Any = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(self.model, whole, options=loose)
        options: Any = StateDictOptions(full_state_dict=True)
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        groups = inner.state_dict()["param_groups"]
        named = list(dict(self.model.named_parameters()))
        at = {id(value): name for name, value in self.model.named_parameters()}
        for group, own in zip(groups, inner.param_groups, strict=True):
            group["params"] = [at[id(value)] for value in own["params"]]
        state: dict[str, dict[str, Tensor]] = {}
        for key, value in moments.items():
            name, kind = key.rsplit(".", 1)
            if name in named:
                state.setdefault(name, {})[kind] = value
        found = {"state": state, "param_groups": groups}
        set_optimizer_state_dict(self.model, inner, found, options=options)

    def _deepspeed_moments(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        if not self._link_moments():
            return {}
        found = {}
        for name, value in self.module.named_parameters():
            if value.requires_grad:
                for key in MOMENTS:
                    found[f"{name}.{key}"] = safe_get_full_optimizer_state(value, key).cpu()
                found[f"{name}.step"] = torch.tensor(float(self.model.global_steps))
        return found

    def _load_deepspeed(self, moments: dict[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        self.model.optimizer.refresh_fp32_params()
        steps = max((float(moments[name]) for name in moments if name.endswith(".step")), default=0)
        if not steps:
            return
        self.model.global_steps = int(steps)
        inner = self.model.optimizer.optimizer
        for shard in self.model.optimizer.single_partition_of_fp32_groups:
            empty = {key: torch.zeros_like(shard) for key in MOMENTS}
            # On the device, as the fused step has it.
            step = torch.tensor(steps, dtype=torch.float32, device=shard.device)
            inner.state[shard] = {**empty, "step": step}
        self._link_moments()
        for name, value in self.module.named_parameters():
            for key in MOMENTS:
                if f"{name}.{key}" in moments:
                    safe_set_full_optimizer_state(value, moments[f"{name}.{key}"], key)

    def _link_moments(self) -> bool:
        """Let DeepSpeed find the moments of every parameter; whether there are any.

        It does so by itself after the first group's first step, when others have none yet.
        """
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        zero = self.model.optimizer
        shards, state = zero.single_partition_of_fp32_groups, zero.optimizer.state
        if not all(state.get(shard) for shard in shards):
            return False
        for parameters, shard in zip(zero.bit16_groups, shards, strict=True):
            lazy_init_hp_params_optimizer_state(parameters, shard, state)
        return True


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """The inverse of `Launch.weights` where the module is whole."""
    getattr(module, "load_kept", module.load_state_dict)(weights)


def flatten_moments(optimizer: Any, names: dict[int, str]) -> dict[str, Tensor]:
    """An optimiser's state as tensors, by the names of its parameters: `id(parameter)` → name."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return {
        f"{names[id(parameter)]}.{name}": torch.as_tensor(value).detach().cpu()
        for parameter, moments in inner.state.items()
        for name, value in moments.items()
    }


def restore_moments(optimizer: Any, moments: dict[str, Tensor], names: dict[int, str]) -> None:
    """The inverse of `flatten_moments`, onto an optimiser over parameters of these names."""
    inner = getattr(optimizer, "optimizer", optimizer)
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, kind = key.rsplit(".", 1)
        by_name.setdefault(name, {})[kind] = value
    state: dict[int, dict[str, Tensor]] = {}
    place = 0
    for group in inner.param_groups:
        for parameter in group["params"]:
            if names[id(parameter)] in by_name:
                state[place] = by_name[names[id(parameter)]]
            place += 1
    inner.load_state_dict({"state": state, "param_groups": inner.state_dict()["param_groups"]})


def _full(value: Tensor) -> Tensor:
    """A tensor whose shards lie on several processes, in one piece."""
    whole = getattr(value, "full_tensor", None)
    return value.detach() if whole is None else whole().detach()


def autocast_inside(module: nn.Module, device_type: str) -> None:
    """Let every call of a module run in bfloat16's autocast, whatever it is called from."""
    context = torch.autocast(device_type, torch.bfloat16)

    def enter(*_: Any) -> None:
        context.__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        context.__exit__(None, None, None)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)
