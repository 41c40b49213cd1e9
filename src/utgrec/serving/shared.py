"""Weights in memory that all processes of a server share, instead of a copy in each.

Processes that would hold the same tensors agree on a file by the tensors' content. Whoever comes
first writes it; everybody maps it into memory, where the operating system keeps it once.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Key = tuple[int, tuple[int, ...], torch.dtype]
SMALLEST = 1024  # bytes; what is smaller stays as it is


def share_weights(model: Any, folder: Path) -> Path | None:
    """Replace the CPU tensors that an object holds by mapped ones of the same content.

    Tensors are found in attributes, networks, lists, tuples and dictionaries, however nested.
    Nobody may write to them afterwards.

    Returns:
        The file; None if the object has no tensors to share.
    """
    found: dict[Key, Tensor] = {}

    def collect(tensor: Tensor) -> Tensor:
        found.setdefault(_key(tensor), tensor)
        return tensor

    _replace(model, collect)
    if not found:
        return None
    names = {key: f"{place:05d}" for place, key in enumerate(found)}
    path = _keep({names[key]: tensor.detach() for key, tensor in found.items()}, folder)
    mapped = load_file(path)
    by_key = {key: mapped[name] for key, name in names.items()}
    _replace(model, lambda tensor: by_key[_key(tensor)])
    return path


def share_module(module: nn.Module, folder: Path) -> Path:
    """The same for a network of torch: its parameters and buffers become mapped ones.

    Those that are mapped from a file already, as a backbone's are from its own, stay as they are.
    """
    spans = _mapped_files()
    own = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if not any(begin <= tensor.data_ptr() < end for begin, end in spans)
    }
    path = _keep(own, folder)
    module.load_state_dict(load_file(path), assign=True, strict=False)
    return path


def _keep(named: dict[str, Tensor], folder: Path) -> Path:
    """The file with these tensors, written unless it is there."""
    path = folder / f"{_content(named)}.safetensors"
    if not path.is_file():
        partial = folder / f".{path.name}.{os.getpid()}.partial"
        save_file({name: tensor.contiguous().clone() for name, tensor in named.items()}, partial)
        os.replace(partial, path)
    return path


def _mapped_files() -> list[tuple[int, int]]:
    """Where files of weights begin and end in this process's memory, where the system tells."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return []
    lines = (line.split(maxsplit=5) for line in maps.read_text(encoding="utf-8").splitlines())
    spans = [line[0].split("-") for line in lines if line[-1].endswith(".safetensors")]
    return [(int(begin, 16), int(end, 16)) for begin, end in spans]


def _key(tensor: Tensor) -> Key:
    """Tells tensors apart by what they show, not by the object that shows it."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.dtype


def _replace(value: Any, change: Callable[[Tensor], Tensor], depth: int = 0) -> Any:
    """`value` with every shareable tensor in it changed; objects are changed in place."""
    if isinstance(value, Tensor):
        plain = type(value) is Tensor and value.device.type == "cpu" and value.is_contiguous()
        return change(value) if plain and value.nbytes >= SMALLEST else value
    if isinstance(value, list):
        value[:] = [_replace(one, change, depth) for one in value]
    elif isinstance(value, tuple):
        made = [_replace(one, change, depth) for one in value]
        if any(new is not old for new, old in zip(made, value, strict=True)):
            return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    elif isinstance(value, nn.Module):
        for parameter in value.parameters():
            parameter.data = _replace(parameter.data, change, depth)
        for module in value.modules():
            _replace(module._buffers, change, depth)
    elif isinstance(value, dict):
        value.update({key: _replace(one, change, depth) for key, one in value.items()})
    elif depth < 2 and type(value).__module__.startswith("utgrec."):
        for name, one in list(vars(value).items()) if hasattr(value, "__dict__") else []:
            new = _replace(one, change, depth + 1)
            if new is not one:
                setattr(value, name, new)
    return value


def _content(named: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in named.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
