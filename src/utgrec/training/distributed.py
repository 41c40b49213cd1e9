"""What a model asks of the other processes: rows of all of them, and weights of the first.

Every process works on its own rows of a batch. A loss of single items is counted by each process
for its rows; one that compares items (contrast, batch statistics, codebooks) is computed by every
process for all rows, from rows gathered with their gradients. The mean over processes of both kinds
is the loss of the whole batch, and so is the mean of their gradients.

Shapes: B rows of this process · N rows of all.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def together() -> bool:
    """Whether other processes take part."""
    distributed = torch.distributed
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows of all processes, one process after the other, with their gradients.

    Args:
        rows: (B, …), those of this process.
        sizes: rows of every process; their sum is N.

    Returns:
        (N, …); what any process does with a row reaches the process that made it.
    """
    if len(sizes) == 1:
        return rows
    out: Tensor = _GatherRows.apply(rows, tuple(sizes))  # type: ignore[no-untyped-call]
    return out


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        # Collective calls want equal shapes.
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()  # (N, …)
        torch.distributed.all_reduce(total)
        own = torch.distributed.get_rank()
        start = sum(ctx.sizes[:own])
        return total[start : start + ctx.sizes[own]], None


def mean_of(values: Sequence[float], device: torch.device, *, alone: bool = False) -> list[float]:
    """The mean over all processes of some figures; those of this one if it trains `alone`."""
    if alone or not together():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    means: list[float] = (total / torch.distributed.get_world_size()).tolist()
    return means


@torch.no_grad()
def copy_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if together():
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0)


def first_says(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """The figures of the first process; the names must be known to all."""
    if not together():
        return values
    names = sorted(values)
    told = torch.tensor([values[name] for name in names], dtype=torch.float64, device=device)
    torch.distributed.broadcast(told, src=0)
    return dict(zip(names, told.tolist(), strict=True))


def move(batch: Any, device: torch.device) -> Any:
    """The same batch with all its tensors on a device; (named) tuples and lists are gone through.

    Tensors that are indices into what stays on the CPU are NumPy arrays, and stay.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, list):
        return [move(entry, device) for entry in batch]
    if isinstance(batch, tuple):
        moved = [move(entry, device) for entry in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else tuple(moved)
    return batch
