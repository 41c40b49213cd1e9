"""The compiled kernels compute what torch computes, and are only used where they can be."""

import numpy as np
import pytest
import torch

from utgrec.decoding.item_table import NOTHING, PANEL, Panels
from utgrec.decoding.kernels import (
    Attention,
    LayerSizes,
    NativeKernels,
    Past,
    TorchKernels,
    follow,
    make_kernels,
)
from utgrec.decoding.kernels.native import find_functions

EPSILON = 1e-6
DTYPES = (torch.float32, torch.bfloat16)
# Model width, heads, width per head, feed-forward: below, at, and beyond what a panel holds.
SIZES = [(16, 1, 16, 32), (48, 3, 32, 80), (128, 4, 64, 512), (160, 2, 80, 144)]


class Pair:
    """Both kernels of one precision, and how far apart they may be."""

    def __init__(self, dtype: torch.dtype, heads: int) -> None:
        functions = find_functions(dtype)
        if functions is None:
            pytest.skip(f"this processor or its compiler has no kernels for {dtype}")
        self.dtype = dtype
        self.native = NativeKernels(functions, dtype, heads, EPSILON)
        self.torch = TorchKernels(dtype, heads, EPSILON)

    def close(self, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        # In bfloat16 a sum may be rounded to either side, which later sums carry on.
        bound = 2e-5 if self.dtype == torch.float32 else 3e-2
        scale = float(theirs.float().abs().max()) + 1e-6
        assert float((ours.float() - theirs.float()).abs().max()) <= bound * scale


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    torch.manual_seed(0)
    return request.param


@pytest.mark.parametrize("rows", [1, 5, 6, 47, 100])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_are_torchs(dtype, sizes, rows):
    width, heads, head_width, feed = sizes
    both, inner = Pair(dtype, heads), heads * head_width
    hidden = torch.randn(1, rows, width)
    weights = {
        "in": torch.randn(3 * inner, width) * width**-0.5,
        "out": torch.randn(width, inner) * inner**-0.5,
        "widen": torch.randn(feed, width) * width**-0.5,
        "narrow": torch.randn(width, feed) * feed**-0.5,
        "head": torch.randn(77, width) * width**-0.5,
    }
    mixed = torch.randn(1, rows, inner).to(dtype)
    found = []
    for kernels in (both.native, both.torch):
        matrices = {name: kernels.matrix(weight) for name, weight in weights.items()}
        projected = kernels.project(hidden, matrices["in"])
        added, fed = hidden.clone(), hidden.clone()
        kernels.add(added, mixed, matrices["out"])
        kernels.feed_forward(fed, matrices["widen"], matrices["narrow"])
        head = kernels.matrix(weights["head"], scores=True)
        scores = kernels.log_probs(hidden, head, 5, 60)
        found.append((projected, added, fed, scores))
    for ours, theirs in zip(*found, strict=True):
        both.close(ours, theirs)


@pytest.mark.parametrize("length", [1, 15, 62, 64, 65, 130])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_attention_is_torchs(dtype, sizes, length):
    _, heads, head_width, _ = sizes
    both, inner, users = Pair(dtype, heads), heads * head_width, 3
    mixed = (torch.randn(users, length, 3 * inner) * head_width**-0.25).to(dtype)
    query, pairs = mixed[:, :, :inner], mixed[:, :, inner:]
    mask = torch.zeros(users, length)
    mask[1, : length // 2] = torch.finfo(torch.float32).min
    alike = torch.randn(1, heads, length, length)
    own = torch.randn(users, heads, 1, length)
    for asked, bias in ((query, alike), (query[:, :1], own), (query, None)):
        for masked in (None, mask):
            theirs = both.torch.attend(asked, pairs, bias, masked)
            both.close(both.native.attend(asked, pairs, bias, masked), theirs)


@pytest.mark.parametrize("length", [1, 15, 62, 130])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_whole_attentions_are_torchs(dtype, sizes, length):
    """Of a history over itself, and of beams over a history, for more users than pass at once."""
    width, heads, head_width, _ = sizes
    both, inner, users = Pair(dtype, heads), heads * head_width, 7
    hidden = torch.randn(users, length, width)
    mixed, asked = (
        torch.randn(n * inner, width) * (width * head_width**0.5) ** -0.5 for n in (3, 1)
    )
    output, pairs = torch.randn(width, inner) * inner**-0.5, torch.randn(6 * inner, width)
    bias, mask = torch.randn(1, heads, length, length), torch.zeros(users, length)
    mask[1, : length // 2] = torch.finfo(torch.float32).min
    beams = torch.randn(users, 50, width)
    found = []
    for kernels in (both.native, both.torch):
        itself = Attention(kernels.matrix(mixed), kernels.matrix(output))
        across = Attention(kernels.matrix(asked), kernels.matrix(output))
        states = []
        for masked in (None, mask):
            made, looked_up, read = hidden.clone(), hidden.clone(), beams.clone()
            kernels.read(made, None, itself, bias, masked)
            kernels.read(looked_up, kernels.project(hidden, itself.asks), itself, bias, masked)
            memories = kernels.remember(hidden, kernels.matrix(pairs * width**-0.5), layers=3)
            for memory in memories:
                kernels.ask(read, across, memory, masked)
            states += [made, looked_up, read]
        found.append(states)
    for ours, theirs in zip(*found, strict=True):
        both.close(ours, theirs)


@pytest.mark.parametrize("alike", [0, 1, 4])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_attention_over_few_tokens_is_torchs(dtype, sizes, alike):
    """Through three steps whose beams continue other beams."""
    _, heads, head_width, _ = sizes
    both, inner, users = Pair(dtype, heads), heads * head_width, 2
    past = Past(torch.randn(users, alike, 2 * inner).to(dtype) if alike else None)
    ancestors: tuple[torch.Tensor, ...] = ()
    before = 1
    for beams in (1 if alike else 7, 7, 4, 9):
        parents = torch.randint(before, (users, beams))
        mixed = torch.randn(users, beams, 3 * inner).to(dtype)
        query, pair = mixed[:, :, :inner], mixed[:, :, inner:]
        ancestors = follow(ancestors, past, parents)
        tokens = (0 if past.shared is None else past.shared.shape[1]) + len(past.own) + 1
        for bias in (None, torch.randn(tokens, heads)):
            both.close(
                both.native.attend_few(query, pair, past, ancestors, bias),
                both.torch.attend_few(query, pair, past, ancestors, bias),
            )
        past, before = past.grow(pair), beams


def test_log_probabilities_sum_to_one_and_extremes_stay_finite(dtype):
    kernels = Pair(dtype, 1).native
    hidden = torch.cat([torch.randn(1, 20, 32) * 1e4, torch.zeros(1, 1, 32)], dim=1)
    head = kernels.matrix(torch.randn(300, 32) * 40, scores=True)
    found = kernels.log_probs(hidden, head, 0, 300)
    assert found.isfinite().all()
    torch.testing.assert_close(found.exp().sum(2), torch.ones(1, 21), atol=1e-4, rtol=0)


def test_damage_is_not_hidden(dtype):
    kernels = Pair(dtype, 1).native
    broken = torch.randn(32, 32)
    broken[3, 4] = torch.nan
    matrix, sound = kernels.matrix(broken), kernels.matrix(torch.randn(32, 32))
    hidden = torch.randn(1, 3, 32)
    kernels.feed_forward(hidden, matrix, sound)
    assert hidden.isnan().all()
    pairs = torch.randn(1, 5, 64).to(dtype)
    pairs[0, 2, 7] = torch.nan  # in a key
    assert kernels.attend(torch.randn(1, 2, 32).to(dtype), pairs, None, None).isnan().all()


def test_widths_that_do_not_fit_are_left_to_torch(dtype):
    odd = LayerSizes(width=20, heads=2, head_width=10, feed_forward=40)
    assert isinstance(make_kernels(odd, EPSILON, dtype, torch.device("cpu")), TorchKernels)
    meta = LayerSizes(width=64, heads=2, head_width=32, feed_forward=128)
    assert isinstance(make_kernels(meta, EPSILON, dtype, torch.device("meta")), TorchKernels)
    if find_functions(dtype) is not None:
        assert isinstance(make_kernels(meta, EPSILON, dtype, torch.device("cpu")), NativeKernels)


def test_an_unknown_precision_has_no_kernels():
    assert find_functions(torch.float16) is None


@pytest.mark.parametrize("users", [1, 4, 5, 60])
@pytest.mark.parametrize("items", [1, 63, 64, 81, 200])
def test_panels_of_items_are_torchs(users, items):
    """One by one for few users, packed for many; some items, and all of one panel, left out."""
    functions = find_functions(torch.float32)
    if functions is None:
        pytest.skip("this processor or its compiler has no kernels")
    torch.manual_seed(items)
    count = -(-items // PANEL)
    asked, vectors = torch.randn(users, 32), torch.randn(items, 32)
    mask = torch.rand(count * PANEL) < 0.5
    mask[64:128] = False
    words = torch.from_numpy(np.packbits(mask.numpy(), bitorder="little").view(np.int64))
    for usable in (None, words):
        found = Panels(torch.empty(users, count), torch.empty(users, count))
        functions.rank(
            asked.data_ptr(),
            users,
            32,
            vectors.data_ptr(),
            items,
            None if usable is None else usable.data_ptr(),
            0,
            count,
            count,
            found.largest.data_ptr(),
            found.sums.data_ptr(),
        )
        scores = torch.full((users, count * PANEL), -torch.inf)
        scores[:, :items] = asked @ vectors.T
        if usable is not None:
            scores[:, ~mask] = -torch.inf
        expected = Panels.of(scores.view(users, count, PANEL))
        there = expected.largest > NOTHING
        assert (found.largest[~there] == NOTHING).all()
        torch.testing.assert_close(found.largest[there], expected.largest[there])
        torch.testing.assert_close(found.sums[there], expected.sums[there])
