"""Where this process computes, and in which numbers.

That is bfloat16 where the device has instructions for it, else float32.

A processor without them still computes in bfloat16, but by detours that take many times as long as
float32. So "auto", the default everywhere, asks the device.
"""

import functools
import os
from typing import Any

import torch

from utgrec.config import require

PRECISIONS = ("auto", "bf16", "fp32")
# What torch calls the instructions of x86 and ARM processors that multiply bfloat16.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16")


def check_precision(precision: str) -> None:
    """Refuse what is no precision.

    Raises:
        BadConfig: it is none of `PRECISIONS`.
    """
    require(
        precision in PRECISIONS, f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}"
    )


def uses_bf16(precision: str, device: torch.device | str = "cpu") -> bool:
    """Whether matrices are to be multiplied in bfloat16 on a device."""
    if precision == "auto":
        return multiplies_bf16(torch.device(device).type)
    return precision == "bf16"


def own_device() -> torch.device:
    """The device of this process: its own GPU, unless there is none or the launcher says so."""
    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@functools.cache
def multiplies_bf16(kind: str) -> bool:
    """Whether devices of a kind ("cpu", "cuda" …) have instructions for bfloat16."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    # Releases of torch that cannot say it: float32 is right everywhere.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in _INSTRUCTIONS)
