"""The layers of a lean model in functions compiled for this processor (`kernels.cpp`).

Calls give tensors' addresses to the functions and release the interpreter meanwhile, so several
threads compute at once.

Shapes: B users · W beams · S positions that are read · X queries per user · M model width ·
H heads · A width per head · N outputs · K inputs.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utgrec.decoding.kernels.build import open_library
from utgrec.decoding.kernels.contract import Attention, Matrix, Memory, Past

_LANES = 16  # as in kernels.cpp
_KEPT_BYTES = 31 * 2**20  # glibc does not learn from a block beyond 32 MB
_WORD, _PLACE, _FLOAT = ctypes.c_long, ctypes.c_void_p, ctypes.c_float


class _Token(ctypes.Structure):
    """`Token` of kernels.cpp."""

    _fields_ = (("pairs", _PLACE), ("rows", _PLACE), ("beams", _WORD), ("stride", _WORD))


# What each function takes, in the order of `kernels` in kernels.cpp.
KERNELS: dict[str, tuple[Any, ...]] = {
    "project": (_PLACE, _WORD, _WORD, _FLOAT, _PLACE, _WORD, _PLACE),
    "add": (_PLACE, _WORD, _WORD, _PLACE, _WORD, _PLACE),
    "feed_forward": (_PLACE, _WORD, _WORD, _FLOAT, _PLACE, _PLACE, _WORD),
    "log_probs": (_PLACE, _WORD, _WORD, _FLOAT, _PLACE, _WORD, _WORD, _WORD, _PLACE),
    "remember": (*(_PLACE, *[_WORD] * 3, _FLOAT, _PLACE, *[_WORD] * 3, ctypes.POINTER(_PLACE)),),
    "read": (
        *(_PLACE, _PLACE, *[_WORD] * 3, _FLOAT, _PLACE, _PLACE, _PLACE, _WORD, _WORD),
        *(_PLACE, _WORD, _WORD),
    ),
    "ask": (*(_PLACE, *[_WORD] * 3, _FLOAT, _PLACE, _PLACE, _WORD, _PLACE, _WORD, _WORD, _PLACE),),
    "attend": (_PLACE, _WORD, _PLACE, _WORD, _PLACE, *[_WORD] * 3, _PLACE, *[_WORD] * 5, _PLACE),
    "attend_few": (
        *(_PLACE, _WORD, ctypes.POINTER(_Token), _WORD, _PLACE, _WORD, _PLACE),
        *(*[_WORD] * 4, _PLACE),
    ),
    "rank": (_PLACE, _WORD, _WORD, _PLACE, _WORD, _PLACE, _WORD, _WORD, _WORD, _PLACE, _PLACE),
    "rank_pairs": (_PLACE, _WORD, _PLACE, _PLACE, _PLACE, _WORD, _PLACE),
    "count_bits": (_PLACE, _WORD, _PLACE, _WORD, _PLACE),
}


class Functions(NamedTuple):
    """The compiled functions of one precision."""

    project: Callable[..., None]
    add: Callable[..., None]
    feed_forward: Callable[..., None]
    log_probs: Callable[..., None]
    remember: Callable[..., None]
    read: Callable[..., None]
    ask: Callable[..., None]
    attend: Callable[..., None]
    attend_few: Callable[..., None]
    rank: Callable[..., None]
    rank_pairs: Callable[..., None]
    count_bits: Callable[..., None]
    panel: int  # outputs of a panel, P


@functools.cache
def find_functions(dtype: torch.dtype) -> Functions | None:
    """The functions of a precision; None where this processor has none faster than torch's."""
    library = open_library()
    if library is None or dtype not in (torch.float32, torch.bfloat16):
        return None
    find = library.find_kernel
    find.restype = _PLACE
    places = [find(dtype.itemsize, number) for number in range(len(KERNELS))]
    if not all(places):
        return None
    functions = {
        name: ctypes.CFUNCTYPE(None, *takes)(place)
        for (name, takes), place in zip(KERNELS.items(), places, strict=True)
    }
    return Functions(**functions, panel=library.panel_width())


def fits(*widths: int) -> bool:
    """Whether the functions can take rows of these widths."""
    return all(width % _LANES == 0 for width in widths)


def _up(count: int, to: int) -> int:
    """A count up to the next multiple."""
    return -(-count // to) * to


def _step(values: Tensor) -> int:
    """From one row to the next, within and between users. (B, X, …)"""
    users, rows, _ = values.shape
    outer, step, inner = values.stride()
    step = step if rows > 1 else outer
    assert inner == 1 and (users == 1 or outer == rows * step), "rows must be even"
    return step


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep what a search frees for the next one.

    Its default is to give pieces of some 100 KB back to the system at once, which then has to clear
    and map them again. glibc learns from the largest block that was freed, up to 32 MB, how much to
    keep; to other libraries this is a block like any other.
    """
    torch.empty(_KEPT_BYTES, dtype=torch.uint8)


class NativeKernels:
    """See `Kernels`. All widths must fit (`fits`), except the number of token ids."""

    def __init__(
        self, functions: Functions, dtype: torch.dtype, heads: int, epsilon: float
    ) -> None:
        self.dtype, self._heads, self._epsilon = dtype, heads, epsilon
        self._call = functions
        _keep_freed_memory()

    def matrix(self, weight: Tensor, *, scores: bool = False) -> Matrix:
        """See `Kernels`: panels (N / P, K / G, P, G), with G numbers in four bytes."""
        outputs, inputs = weight.shape
        group, panel = 4 // self.dtype.itemsize, self._call.panel
        padded = torch.zeros(_up(outputs, panel), inputs, dtype=self.dtype)
        padded[:outputs] = weight
        panels = padded.view(-1, panel, inputs // group, group).transpose(1, 2)
        return Matrix(panels.contiguous(), outputs)

    def project(self, hidden: Tensor, matrix: Matrix) -> Tensor:
        """See `Kernels`."""
        rows, width = hidden.numel() // hidden.shape[-1], hidden.shape[-1]
        assert hidden.is_contiguous()
        out = torch.empty(*hidden.shape[:-1], matrix.outputs, dtype=self.dtype)
        self._call.project(
            hidden.data_ptr(),
            rows,
            width,
            self._epsilon,
            matrix.numbers.data_ptr(),
            matrix.outputs,
            out.data_ptr(),
        )
        return out

    def add(self, hidden: Tensor, mixed: Tensor, matrix: Matrix) -> None:
        """See `Kernels`."""
        depth, width = mixed.shape[-1], hidden.shape[-1]
        assert hidden.is_contiguous() and mixed.is_contiguous() and mixed.dtype == self.dtype
        rows = hidden.numel() // width
        self._call.add(
            mixed.data_ptr(), rows, depth, matrix.numbers.data_ptr(), width, hidden.data_ptr()
        )

    def feed_forward(self, hidden: Tensor, widen: Matrix, narrow: Matrix) -> None:
        """See `Kernels`."""
        width = hidden.shape[-1]
        assert hidden.is_contiguous()
        self._call.feed_forward(
            hidden.data_ptr(),
            hidden.numel() // width,
            width,
            self._epsilon,
            widen.numbers.data_ptr(),
            narrow.numbers.data_ptr(),
            widen.outputs,
        )

    def log_probs(self, hidden: Tensor, matrix: Matrix, first: int, count: int) -> Tensor:
        """See `Kernels`."""
        users, beams, width = hidden.shape
        assert hidden.is_contiguous() and first >= 0 and first + count <= matrix.outputs
        out = torch.empty(users, beams, count)
        self._call.log_probs(
            hidden.data_ptr(),
            users * beams,
            width,
            self._epsilon,
            matrix.numbers.data_ptr(),
            matrix.outputs,
            first,
            count,
            out.data_ptr(),
        )
        return out

    def read(
        self,
        hidden: Tensor,
        mixed: Tensor | None,
        layer: Attention,
        bias: Tensor,
        mask: Tensor | None,
    ) -> None:
        """See `Kernels`."""
        users, length, width = hidden.shape
        assert hidden.is_contiguous() and (mixed is None or mixed.is_contiguous())
        assert bias.stride(3) == 1 and bias.dtype == torch.float32 and len(bias) == 1
        assert mask is None or mask.is_contiguous()
        self._call.read(
            hidden.data_ptr(),
            None if mixed is None else mixed.data_ptr(),
            users,
            length,
            width,
            self._epsilon,
            layer.asks.numbers.data_ptr(),
            layer.output.numbers.data_ptr(),
            bias.data_ptr(),
            bias.stride(1),
            bias.stride(2),
            None if mask is None else mask.data_ptr(),
            self._heads,
            layer.asks.outputs // 3 // self._heads,
        )

    def remember(self, hidden: Tensor, matrix: Matrix, layers: int) -> tuple[Memory, ...]:
        """See `Kernels`: of each layer one tensor of panels, (B, H × numbers of a head)."""
        users, length, width = hidden.shape
        assert hidden.is_contiguous()
        head = matrix.outputs // layers // 2 // self._heads
        across = _up(length, self._call.panel) * head
        down = _up(length, _LANES * 4 // self.dtype.itemsize) * _up(head, self._call.panel)
        kept = [
            torch.empty(users, self._heads * (across + down), dtype=self.dtype)
            for _ in range(layers)
        ]
        self._call.remember(
            hidden.data_ptr(),
            users,
            length,
            width,
            self._epsilon,
            matrix.numbers.data_ptr(),
            layers,
            self._heads,
            head,
            (_PLACE * layers)(*(one.data_ptr() for one in kept)),
        )
        return tuple(Memory((one,), length) for one in kept)

    def ask(self, hidden: Tensor, layer: Attention, memory: Memory, mask: Tensor | None) -> None:
        """See `Kernels`."""
        users, beams, width = hidden.shape
        assert hidden.is_contiguous() and (mask is None or mask.is_contiguous())
        self._call.ask(
            hidden.data_ptr(),
            users,
            beams,
            width,
            self._epsilon,
            layer.asks.numbers.data_ptr(),
            memory.parts[0].data_ptr(),
            memory.length,
            None if mask is None else mask.data_ptr(),
            self._heads,
            layer.asks.outputs // self._heads,
            layer.output.numbers.data_ptr(),
        )

    def attend(
        self, query: Tensor, pairs: Tensor, bias: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """See `Kernels`."""
        users, queries, inner = query.shape
        steps = (0, 0, 0)
        if bias is not None:
            assert bias.stride(3) == 1 and bias.dtype == torch.float32
            steps = (bias.stride(0) if len(bias) > 1 else 0, bias.stride(1), bias.stride(2))
        assert mask is None or mask.is_contiguous()
        out = torch.empty(users, queries, inner, dtype=self.dtype)
        self._call.attend(
            query.data_ptr(),
            _step(query),
            pairs.data_ptr(),
            _step(pairs),
            None if bias is None else bias.data_ptr(),
            *steps,
            None if mask is None else mask.data_ptr(),
            users,
            self._heads,
            queries,
            pairs.shape[1],
            inner // self._heads,
            out.data_ptr(),
        )
        return out

    def attend_few(
        self, query: Tensor, pair: Tensor, past: Past, rows: tuple[Tensor, ...], bias: Tensor | None
    ) -> Tensor:
        """See `Kernels`."""
        users, beams, inner = query.shape
        shared, own = past.shared, (*past.own, pair)
        assert all(row.is_contiguous() and row.shape == (users, beams) for row in rows)
        assert shared is None or shared.is_contiguous()
        places: tuple[int | None, ...] = (*(row.data_ptr() for row in rows), None)
        tokens = (_Token * len(own))(
            *(
                _Token(token.data_ptr(), place, token.shape[1], _step(token))
                for token, place in zip(own, places, strict=True)
            )
        )
        out = torch.empty(users, beams, inner, dtype=self.dtype)
        self._call.attend_few(
            query.data_ptr(),
            _step(query),
            tokens,
            len(own),
            None if shared is None else shared.data_ptr(),
            0 if shared is None else shared.shape[1],
            None if bias is None else bias.data_ptr(),
            users,
            beams,
            self._heads,
            inner // self._heads,
            out.data_ptr(),
        )
        return out
