"""Liger's fused kernels for the language model, where the package and a GPU are present."""

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from utgrec.errors import MissingDependency


def use_liger(language_model: nn.Module) -> int:
    """Replace the norms and gated layers of this one model by fused ones; returns how many.

    Only the instance changes: transformers' own classes, and other models, stay as they are. Names
    of weights stay, too.

    Raises:
        MissingDependency: liger-kernel is not installed.
    """
    try:
        fused_norm = import_module("liger_kernel.transformers.rms_norm").LigerRMSNorm
        fused_gate = import_module("liger_kernel.ops.swiglu").LigerSiLUMulFunction
    except ImportError as error:
        raise MissingDependency(
            "fused kernels need the package liger-kernel: pip install liger-kernel (it runs on "
            "GPUs), or leave `liger` out of the backbone's machine settings"
        ) from error
    replaced = 0
    for parent in list(language_model.modules()):
        for name, child in list(parent.named_children()):
            fused: Any = None
            if type(child).__name__.endswith("RMSNorm"):
                weight: Any = child.weight
                fused = fused_norm(len(weight), eps=child.variance_epsilon)
                fused.weight = weight
            elif _is_gated(child):
                fused = FusedGate(child, fused_gate)
            if fused is not None:
                setattr(parent, name, fused)
                replaced += 1
    return replaced


class FusedGate(nn.Module):
    """down(silu(gate(x)) · up(x)) whose middle part is one kernel."""

    def __init__(self, layer: Any, kernel: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            layer.gate_proj,
            layer.up_proj,
            layer.down_proj,
        )
        self.kernel = kernel

    def forward(self, hidden: Tensor) -> Tensor:
        """Shapes: (B, S, H) → (B, S, H)."""
        mixed = self.kernel.apply(self.gate_proj(hidden), self.up_proj(hidden))
        out: Tensor = self.down_proj(mixed)
        return out


def _is_gated(layer: nn.Module) -> bool:
    parts = all(hasattr(layer, name) for name in ("gate_proj", "up_proj", "down_proj"))
    return parts and isinstance(getattr(layer, "act_fn", None), (nn.SiLU, _silu_class()))


def _silu_class() -> type[nn.Module]:
    from transformers.activations import ACT2FN

    found: type[nn.Module] = type(ACT2FN["silu"])
    return found
