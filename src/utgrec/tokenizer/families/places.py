"""Hidden states of a few places of a prompt, which is all that encoding reads.

A decoder's last layer is needed for the code queries alone: keys and values of all tokens, all else
of L. The layers are walked through by the names that their parts have in transformers, in the
models of all families with words and pictures; nothing is changed in them, and adapters on their
Linear layers are called as they are. Training goes through the model's own forward pass.

Shapes: B items · S prompt tokens · L places · H width · d width of a head · F width of features.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def reads_places(model: Any) -> bool:
    """Whether every layer of a decoder sees all tokens before a token."""
    kinds = getattr(model.config, "layer_types", None) or ()
    return all(kind == "full_attention" for kind in kinds)


def read_places(
    model: Any,
    embedded: Tensor,
    positions: Tensor,
    places: Tensor,
    picture: Tensor | None = None,
    deep: Sequence[Tensor] = (),
) -> Tensor:
    """Hidden states of some places of laid-out prompts, as the model's own forward pass has them.

    Args:
        model: a decoder without its head.
        positions: what its rotary embedding takes.
        picture: (B, S), where picture tokens stand.
        deep: for each of the first layers, what is added to picture tokens behind it, (M, H).

    Shapes: embedded (B, S, H), places (B, L) → (B, L, H).
    """
    rotary = tuple(part[:, None] for part in model.rotary_emb(embedded, positions))  # (B, 1, S, d)
    hidden, last = embedded, len(model.layers) - 1
    for number, layer in enumerate(model.layers):
        hidden = _layer(layer, hidden, rotary, places if number == last else None)
        if number < len(deep):
            assert picture is not None and number < last
            hidden = hidden.clone()
            hidden[picture] += deep[number].to(hidden.dtype)
    out: Tensor = model.norm(hidden)
    return out


def _layer(layer: Any, hidden: Tensor, rotary: tuple[Tensor, ...], places: Tensor | None) -> Tensor:
    """One layer of all tokens, or of some places: (B, S, H) → (B, S or L, H)."""
    attention = layer.self_attn
    read = layer.input_layernorm(hidden)
    key = turn(_heads(attention, "k", read), *rotary)
    value = _heads(attention, "v", read)
    seen = None
    if places is not None:
        rows = torch.arange(len(places), device=places.device)[:, None]
        read, hidden = read[rows, places], hidden[rows, places]  # (B, L, H)
        rotary = tuple(
            part.expand(len(places), -1, -1, -1)[rows, 0, places][:, None] for part in rotary
        )
        columns = torch.arange(key.shape[2], device=places.device)
        seen = (columns <= places[:, :, None])[:, None]  # (B, 1, L, S)
    mixed = F.scaled_dot_product_attention(
        turn(_heads(attention, "q", read), *rotary),
        key,
        value,
        attn_mask=seen,
        is_causal=seen is None,
        scale=attention.scaling,
        enable_gqa=True,
    )
    hidden = hidden + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    out: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return out


def _heads(attention: Any, kind: str, read: Tensor) -> Tensor:
    """Queries, keys or values of all heads, normed where the model does: (B, heads, S, d)."""
    made: Tensor = getattr(attention, f"{kind}_proj")(read).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{kind}_norm", None)
    return (made if norm is None else norm(made)).transpose(1, 2)


def turn(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions. Shapes: (…, d) three times, or what extends to it → (…, d)."""
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cos + torch.cat([-second, first], dim=-1) * sin
