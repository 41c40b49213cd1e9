"""The compiled kernels read nothing beyond what they are given, and what they free is kept."""

import platform
import subprocess
import sys

import pytest
import torch

from utgrec.decoding.kernels.native import find_functions

# Tensors that end where a page begins which nobody may read; a process that does is killed.
BOUNDS = """
import ctypes, mmap, sys
import torch
from utgrec.decoding.kernels import Attention, NativeKernels
from utgrec.decoding.kernels.native import find_functions

dtype = getattr(torch, sys.argv[1])
libc, kept = ctypes.CDLL(None, use_errno=True), []

def guarded(tensor):
    room = -(-tensor.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, room + mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    place = ctypes.c_void_p(start + room)
    assert libc.mprotect(place, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0  # PROT_NONE
    kept.append(pages)
    offset = (room - tensor.nbytes) // tensor.itemsize
    whole = torch.frombuffer(pages, dtype=tensor.dtype, count=room // tensor.itemsize)
    view = whole[offset:].view(tensor.shape)
    return view.copy_(tensor)

kernels = NativeKernels(find_functions(dtype), dtype, 2, 1e-6)
into, out = (kernels.matrix(torch.randn(*shape)) for shape in ((192, 64), (64, 64)))
cross = Attention(kernels.matrix(torch.randn(64, 64)), out)
into, out = (matrix._replace(numbers=guarded(matrix.numbers)) for matrix in (into, out))
for rows in (1, 5, 16, 17, 31, 33, 50, 65, 100):
    hidden = guarded(torch.randn(1, rows, 64))
    mixed = guarded(kernels.project(hidden, into))
    bias, mask = guarded(torch.randn(1, 2, rows, rows)), guarded(torch.zeros(1, rows))
    kernels.add(hidden, guarded(torch.randn(1, rows, 64).to(dtype)), out)
    kernels.attend(mixed[:, :, :64], mixed[:, :, 64:], bias, mask)
    kernels.read(hidden, mixed, Attention(into, out), bias, mask)
    memory = kernels.remember(hidden, kernels.matrix(torch.randn(128, 64)), 1)[0]
    memory = memory._replace(parts=tuple(guarded(part) for part in memory.parts))
    kernels.ask(guarded(torch.randn(1, rows, 64)), cross, memory, mask)
    kernels.log_probs(hidden, kernels.matrix(torch.randn(77, 64)), 0, 77)
print("done")
"""

# What one search frees, the next one finds: pages that the system has to give anew are counted.
FREED = """
import resource
import torch
from utgrec.decoding.kernels import NativeKernels
from utgrec.decoding.kernels.native import find_functions

NativeKernels(find_functions(torch.float32), torch.float32, 2, 1e-6)
def use():
    many = [torch.ones(250_000) for _ in range(8)]

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def answer(program: str, *arguments: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guards pages as Linux does")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_beyond_the_input_is_read(dtype):
    if find_functions(getattr(torch, dtype)) is None:
        pytest.skip(f"this processor or its compiler has no kernels for {dtype}")
    assert answer(BOUNDS, dtype) == "done\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_what_a_search_frees_is_kept():
    if find_functions(torch.float32) is None:
        pytest.skip("this processor or its compiler has no kernels")
    pages = 20 * 8 * 250_000 * 4 // 4096
    assert int(answer(FREED)) < pages / 20
