"""T5's forward pass for training, over transformers' own weights, with less to do per step.

Without dropout it computes what `T5ForConditionalGeneration` computes. It differs in what a CPU
spends its time on: queries, keys and values come from one product; inputs are rounded to bfloat16
once per sublayer; dropout acts on embeddings and on what each sublayer adds, not inside attention
and feed-forward; a batch without padding needs no mask.

Shapes: B samples · S tokens of a history · L codes per item · A heads · W width · V tokens.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utgrec.recommender.dropout import drop


class _Pass(NamedTuple):
    """What every sublayer of one forward pass needs."""

    dtype: torch.dtype  # of matrix products; the residual stream stays float32
    dropout: float
    heads: int
    eps: float


def t5_logits(t5: Any, tokens: Tensor, mask: Tensor, written: Tensor) -> Tensor:
    """Logits of the next code at every written position.

    Args:
        t5: a T5ForConditionalGeneration with ReLU feed-forward; its training flag decides dropout.
        tokens: (B, S), the history.
        mask: (B, S), 1 where a token is.
        written: (B, L), the decoder's input: the start token, then the codes before the last.

    Returns:
        (B, L, V), float32.
    """
    device = tokens.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else torch.float32
    config = t5.config
    dropout = config.dropout_rate if t5.training else 0.0
    run = _Pass(dtype, dropout, config.num_heads, config.layer_norm_epsilon)
    with torch.autocast(device, enabled=False):
        hidden = drop(F.embedding(tokens, t5.shared.weight), run.dropout)  # (B, S, W)
        bias = _bias(t5.encoder, tokens.shape[1], causal=False)  # (1, A, S, S)
        hide = None
        if not bool(mask.all()):
            hide = torch.zeros(mask.shape).masked_fill_(mask == 0, torch.finfo(dtype).min)
            hide = hide.to(mask.device)[:, None, None]  # (B, 1, 1, S)
            bias = bias + hide
        bias = bias.to(dtype)
        for block in t5.encoder.block:
            hidden = hidden + _attend_self(block.layer[0], hidden, bias, run)
            hidden = hidden + _feed_forward(block.layer[1], hidden, run)
        read = drop(_norm(hidden, t5.encoder.final_layer_norm.weight, run), run.dropout).to(dtype)

        hidden = drop(F.embedding(written, t5.shared.weight), run.dropout)  # (B, L, W)
        bias = _bias(t5.decoder, written.shape[1], causal=True).to(dtype)  # (1, A, L, L)
        hide = None if hide is None else hide.to(dtype)
        for block in t5.decoder.block:
            hidden = hidden + _attend_self(block.layer[0], hidden, bias, run)
            hidden = hidden + _attend_cross(block.layer[1], hidden, read, hide, run)
            hidden = hidden + _feed_forward(block.layer[2], hidden, run)
        hidden = drop(_norm(hidden, t5.decoder.final_layer_norm.weight, run), run.dropout)
        if config.scale_decoder_outputs:
            hidden = hidden * config.d_model**-0.5
        logits: Tensor = hidden.to(dtype) @ t5.lm_head.weight.to(dtype).T  # (B, L, V)
        return logits.float()


def _attend_self(layer: Any, hidden: Tensor, bias: Tensor, run: _Pass) -> Tensor:
    attention = layer.SelfAttention
    weights = torch.cat([attention.q.weight, attention.k.weight, attention.v.weight])
    normed = _norm(hidden, layer.layer_norm.weight, run).to(run.dtype)
    query, key, value = (normed @ weights.to(run.dtype).T).chunk(3, dim=-1)
    return _mix(attention, query, key, value, bias, run)


def _attend_cross(
    layer: Any, hidden: Tensor, read: Tensor, hide: Tensor | None, run: _Pass
) -> Tensor:
    attention = layer.EncDecAttention
    normed = _norm(hidden, layer.layer_norm.weight, run).to(run.dtype)
    query = normed @ attention.q.weight.to(run.dtype).T
    weights = torch.cat([attention.k.weight, attention.v.weight])
    key, value = (read @ weights.to(run.dtype).T).chunk(2, dim=-1)
    return _mix(attention, query, key, value, hide, run)


def _mix(
    attention: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, run: _Pass
) -> Tensor:
    query, key, value = (
        part.view(*part.shape[:2], run.heads, -1).transpose(1, 2) for part in (query, key, value)
    )  # each (B, A, tokens, head width)
    scores = query @ key.transpose(2, 3)  # T5 does not scale them
    if bias is not None:
        scores = scores + bias
    shares = scores.softmax(dim=-1, dtype=torch.float32).to(run.dtype)
    mixed = (shares @ value).transpose(1, 2).flatten(2)
    return drop((mixed @ attention.o.weight.to(run.dtype).T).float(), run.dropout)


def _feed_forward(layer: Any, hidden: Tensor, run: _Pass) -> Tensor:
    dense = layer.DenseReluDense
    normed = _norm(hidden, layer.layer_norm.weight, run).to(run.dtype)
    inner = F.relu(normed @ dense.wi.weight.to(run.dtype).T)
    return drop((inner @ dense.wo.weight.to(run.dtype).T).float(), run.dropout)


def _norm(hidden: Tensor, weight: Tensor, run: _Pass) -> Tensor:
    return F.rms_norm(hidden, hidden.shape[-1:], weight, run.eps)


def _bias(stack: Any, length: int, *, causal: bool) -> Tensor:
    """Relative position bias of a stack, (1, A, length, length), float32."""
    attention = stack.block[0].layer[0].SelfAttention
    bias: Tensor = attention.compute_bias(length, length)
    if causal:
        future = torch.ones(length, length, dtype=torch.bool, device=bias.device).triu(1)
        bias = bias.masked_fill(future, torch.finfo(torch.bfloat16).min)
    return bias
