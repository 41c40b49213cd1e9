"""What the lean models ask of the code that computes their layers.

Two classes answer: `TorchKernels` on any device, and `NativeKernels`, the same in functions made
for one processor. The hidden state is float32 everywhere; matrices, keys and values are in the
working precision.

Shapes: B users · W beams · S positions that are read · X queries per user · P tokens that all beams
share · M model width · H heads · A width per head · F feed-forward width · V token ids.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Matrix(NamedTuple):
    """A matrix (N, K) in the form that its kernels multiply by."""

    numbers: Tensor
    outputs: int  # N


class Attention(NamedTuple):
    """The matrices of one attention."""

    asks: Matrix  # (3HA, M): queries, keys, values; or (HA, M): queries of what is remembered
    output: Matrix  # (M, HA)


class Memory(NamedTuple):
    """Keys and values of S positions per user, in the form that their kernels read."""

    parts: tuple[Tensor, ...]  # each with B rows
    length: int  # S


class Past(NamedTuple):
    """Keys and values of the tokens written so far, in one layer."""

    shared: Tensor | None = None  # (B, P, 2HA), of the tokens that all beams share
    own: tuple[Tensor, ...] = ()  # (B, W', 2HA) of each later token, for the W' beams of its step

    def grow(self, pair: Tensor) -> "Past":
        """With the newest token's keys and values, (B, W, 2HA), in it."""
        if pair.shape[1] > 1 or self.own:
            return self._replace(own=(*self.own, pair))
        return Past(
            pair.contiguous() if self.shared is None else torch.cat([self.shared, pair], dim=1)
        )


class Kernels(Protocol):
    """The layers of a pre-norm Transformer whose norms are part of the matrices that follow."""

    @property
    def dtype(self) -> torch.dtype:
        """The working precision."""

    def matrix(self, weight: Tensor, *, scores: bool = False) -> Matrix:
        """A matrix (N, K), float32; that of the token scores may stay more precise."""

    def project(self, hidden: Tensor, matrix: Matrix) -> Tensor:
        """Normalise and multiply. (…, M) → (…, N)"""

    def add(self, hidden: Tensor, mixed: Tensor, matrix: Matrix) -> None:
        """Add a product to the hidden state, in place. (…, M), (…, K)"""

    def feed_forward(self, hidden: Tensor, widen: Matrix, narrow: Matrix) -> None:
        """Add the feed-forward's output to the hidden state, in place. (…, M)"""

    def log_probs(self, hidden: Tensor, matrix: Matrix, first: int, count: int) -> Tensor:
        """Normalise, score all tokens, and cut. (B, W, M) → (B, W, count), float32"""

    def read(
        self,
        hidden: Tensor,
        mixed: Tensor | None,
        layer: Attention,
        bias: Tensor,
        mask: Tensor | None,
    ) -> None:
        """Add what every position reads of all of its user, in place.

        Shapes: hidden (B, S, M); mixed (B, S, 3HA), what `project` makes of it, where that is
            known; bias (1, H, S, S), float32, and mask (B, S) as in `attend`.
        """

    def remember(self, hidden: Tensor, matrix: Matrix, layers: int) -> tuple[Memory, ...]:
        """Keys and values of every layer. (B, S, M), a matrix (layers × 2HA, M)"""

    def ask(self, hidden: Tensor, layer: Attention, memory: Memory, mask: Tensor | None) -> None:
        """Add what every beam reads of its user's memory, in place. (B, W, M), mask (B, S)"""

    def attend(
        self, query: Tensor, pairs: Tensor, bias: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Attention without a scale; the softmax is in float32.

        Shapes: query (B, X, HA), pairs (B, S, 2HA), both neighbours in memory but for equal steps
            between rows, bias (1 or B, H, X, S), float32, mask (B, S), float32 and added to all
            scores → (B, X, HA).
        """

    def attend_few(
        self, query: Tensor, pair: Tensor, past: Past, rows: tuple[Tensor, ...], bias: Tensor | None
    ) -> Tensor:
        """Attention of every beam over the few tokens before it, and itself.

        Shapes: query (B, W, HA), pair (B, W, 2HA), rows (B, W), int64, per token of `past.own`, the
            beam of that token's step that each beam continues; bias (tokens, H) → (B, W, HA).
        """


def follow(ancestors: tuple[Tensor, ...], past: Past, parents: Tensor) -> tuple[Tensor, ...]:
    """Which beam of each own token's step every beam continues, for `attend_few`.

    `ancestors` is what this returned in the step before. Shapes: parents (B, W).
    """
    if not past.own:
        return ()
    return (*(earlier.gather(1, parents) for earlier in ancestors), parents)
