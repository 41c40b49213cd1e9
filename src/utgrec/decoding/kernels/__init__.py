"""What computes the layers of the lean models: compiled for this processor, or torch."""

from typing import NamedTuple

import torch

from utgrec.decoding.kernels.contract import (
    Attention,
    Kernels,
    Matrix,
    Memory,
    Past,
    follow,
)
from utgrec.decoding.kernels.native import NativeKernels, find_functions, fits
from utgrec.decoding.kernels.plain import TorchKernels

__all__ = [
    "Attention",
    "Kernels",
    "LayerSizes",
    "Matrix",
    "Memory",
    "NativeKernels",
    "Past",
    "TorchKernels",
    "follow",
    "make_kernels",
]


class LayerSizes(NamedTuple):
    """Widths of a network's layers."""

    width: int  # M
    heads: int  # H
    head_width: int  # A
    feed_forward: int  # F


def make_kernels(
    sizes: LayerSizes, epsilon: float, dtype: torch.dtype, device: torch.device
) -> Kernels:
    """The fastest kernels for a network: compiled ones on a processor that has what they need."""
    if device.type == "cpu" and fits(sizes.width, sizes.head_width, sizes.feed_forward):
        functions = find_functions(dtype)
        if functions is not None:
            return NativeKernels(functions, dtype, sizes.heads, epsilon)
    return TorchKernels(dtype, sizes.heads, epsilon)
