"""log Σ_v exp(h · e_v) over a vocabulary, in chunks, so that the logits never exist whole.

Rows are handled a few hundred at a time, forward and again backward: the logits of a chunk stay in
the processor's cache, and memory does not grow with vocabulary × rows.

Shapes: M rows · V vocabulary · H width.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK = 256


class _ChunkedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embeddings: Tensor) -> Tensor:
        totals = [
            torch.logsumexp((rows @ embeddings.T).float(), dim=-1)
            for rows in torch.split(hidden, CHUNK)
        ]
        total = torch.cat(totals)  # (M,)
        ctx.save_for_backward(hidden, embeddings, total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden, embeddings, total = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        # Frozen word vectors, as those of pretrained models are, need no gradient as large as them.
        trained = ctx.needs_input_grad[1]
        to_embeddings = (
            torch.zeros_like(embeddings, dtype=torch.float32) if trained else torch.zeros(())
        )
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            logits = (hidden[part] @ embeddings.T).float()
            # softmax × incoming gradient
            share = logits.sub_(total[part, None]).exp_().mul_(gradients[0][part, None])
            share = share.to(hidden.dtype)
            to_hidden[part] = share @ embeddings
            if trained:
                to_embeddings += (share.T @ hidden[part]).float()
        return to_hidden, to_embeddings.to(embeddings.dtype) if trained else None


def chunked_logsumexp(hidden: Tensor, embeddings: Tensor) -> Tensor:
    """Log-sum-exp of `hidden @ embeddings.T` along the vocabulary, in float32.

    Shapes: hidden (M, H), embeddings (V, H), of one dtype → (M,), float32.
    """
    if len(hidden) == 0:
        return hidden.float().sum(dim=-1)
    total: Tensor = _ChunkedLogSumExp.apply(hidden, embeddings)  # type: ignore[no-untyped-call]
    return total
