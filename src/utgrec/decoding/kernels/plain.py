"""The layers of a lean model in torch's own operations, on any device.

Shapes: B users · W beams · S positions that are read · X queries per user · M model width ·
H heads · A width per head · T tokens so far.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from utgrec.decoding.kernels.contract import Attention, Matrix, Memory, Past


class TorchKernels:
    """See `Kernels`."""

    def __init__(self, dtype: torch.dtype, heads: int, epsilon: float) -> None:
        self.dtype, self._heads, self._epsilon = dtype, heads, epsilon

    def matrix(self, weight: Tensor, *, scores: bool = False) -> Matrix:
        """See `Kernels`. Scores of tokens stay in float32."""
        return Matrix(weight.to(torch.float32 if scores else self.dtype), len(weight))

    def project(self, hidden: Tensor, matrix: Matrix) -> Tensor:
        """See `Kernels`."""
        return F.linear(self._normed(hidden).to(self.dtype), matrix.numbers)

    def add(self, hidden: Tensor, mixed: Tensor, matrix: Matrix) -> None:
        """See `Kernels`."""
        hidden += F.linear(mixed, matrix.numbers)

    def feed_forward(self, hidden: Tensor, widen: Matrix, narrow: Matrix) -> None:
        """See `Kernels`."""
        hidden += F.linear(self.project(hidden, widen).relu_(), narrow.numbers)

    def log_probs(self, hidden: Tensor, matrix: Matrix, first: int, count: int) -> Tensor:
        """See `Kernels`."""
        logits = F.linear(self._normed(hidden), matrix.numbers)  # (B, W, V)
        return logits.log_softmax(dim=2)[:, :, first : first + count]

    def read(
        self,
        hidden: Tensor,
        mixed: Tensor | None,
        layer: Attention,
        bias: Tensor,
        mask: Tensor | None,
    ) -> None:
        """See `Kernels`."""
        mixed = self.project(hidden, layer.asks) if mixed is None else mixed
        inner = mixed.shape[2] // 3
        query, pairs = mixed[:, :, :inner], mixed[:, :, inner:]
        self.add(hidden, self.attend(query, pairs, bias, mask), layer.output)

    def remember(self, hidden: Tensor, matrix: Matrix, layers: int) -> tuple[Memory, ...]:
        """See `Kernels`."""
        made = self.project(hidden, matrix).chunk(layers, dim=2)
        return tuple(self._by_head(pairs) for pairs in made)

    def ask(self, hidden: Tensor, layer: Attention, memory: Memory, mask: Tensor | None) -> None:
        """See `Kernels`."""
        asked = self.project(hidden, layer.asks)
        self.add(hidden, self._attend(asked, memory, None, mask), layer.output)

    def attend(
        self, query: Tensor, pairs: Tensor, bias: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """See `Kernels`."""
        return self._attend(query, self._by_head(pairs), bias, mask)

    def _attend(
        self, query: Tensor, memory: Memory, bias: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        users, queries, _ = query.shape
        keys, values = memory.parts
        asked = query.view(users, queries, self._heads, -1).transpose(1, 2)  # (B, H, X, A)
        scores = asked @ keys.transpose(2, 3)  # (B, H, X, S)
        if mask is not None:
            masked = mask[:, None, None]
            bias = masked if bias is None else bias + masked
        # A bias in float32 makes the sum float32, without a copy of the scores in between.
        scores = scores.float() if bias is None else scores + bias
        shares = scores.softmax(dim=-1).to(query.dtype)
        return (shares @ values).transpose(1, 2).flatten(2)

    def attend_few(
        self, query: Tensor, pair: Tensor, past: Past, rows: tuple[Tensor, ...], bias: Tensor | None
    ) -> Tensor:
        """See `Kernels`.

        What all beams share is one matrix product; of what a beam has alone there are at most two
        or three tokens, taken one by one.
        """
        users, beams, _ = query.shape
        shape = (users, beams, 2, self._heads, -1)
        own = [_of_rows(token, row).view(shape) for token, row in zip(past.own, rows, strict=True)]
        own.append(pair.reshape(shape))
        asked = query.view(users, beams, self._heads, -1)  # (B, W, H, A)
        scores = [(asked * one[:, :, 0]).sum(dim=-1)[None] for one in own]  # each (1, B, W, H)
        alike = None if past.shared is None else self._by_head(past.shared)
        if alike is not None:
            product = asked.transpose(1, 2) @ alike.parts[0].transpose(2, 3)  # (B, H, W, P)
            scores.insert(0, product.permute(3, 0, 2, 1))
        # Over the first dimension, as a softmax over a short last one is slow.
        every = torch.cat(scores).float()  # (T, B, W, H)
        shares = (every if bias is None else every + bias[:, None, None]).softmax(dim=0)
        shares = shares.to(query.dtype)
        first = len(every) - len(own)
        read = shares[first][..., None] * own[0][:, :, 1]  # (B, W, H, A)
        for share, one in zip(shares[first + 1 :], own[1:], strict=True):
            read = torch.addcmul(read, share[..., None], one[:, :, 1])
        if alike is not None:
            read += (shares[:first].permute(1, 3, 2, 0) @ alike.parts[1]).transpose(1, 2)
        return read.flatten(2)

    def _by_head(self, pairs: Tensor) -> Memory:
        """Keys and values, two times (B, H, S, A). (B, S, 2HA)"""
        users, length, _ = pairs.shape
        heads = pairs.view(users, length, 2, self._heads, -1).permute(2, 0, 3, 1, 4)
        return Memory(heads.contiguous().unbind(0), length)

    def _normed(self, hidden: Tensor) -> Tensor:
        """Divide by the root mean square. (…, M) → (…, M)"""
        return F.rms_norm(hidden, hidden.shape[-1:], eps=self._epsilon)


def _of_rows(token: Tensor, rows: Tensor) -> Tensor:
    """What each beam continues. (B, W', X), (B, W) → (B × W, X)"""
    first = torch.arange(len(rows), device=rows.device)[:, None] * token.shape[1]
    return token.flatten(0, 1).index_select(0, (rows + first).flatten())
