"""Which items of a history a recommender attends to when it writes the next one.

Attention says where a network looks, not what it concludes: it is a hint for people, no proof.

Shapes: K recommended items of one history · T items of the history · S tokens of it · L codes per
item · A heads · M width.
"""

from typing import Any

import torch
from torch import Tensor

from utgrec.recommender.causal import CausalRecommender, Layer
from utgrec.recommender.histories import newest_codes
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.t5 import T5Recommender
from utgrec.recommender.vocabulary import PAD


@torch.no_grad()
def item_attention(
    model: GenerativeRecommender, tokens: Tensor, mask: Tensor, written: Tensor
) -> Tensor:
    """Share of attention on each item of one history, for each of K recommended items: (K, T).

    The encoder-decoder: its cross-attention, the mean over layers, heads and the codes of the
    recommended item. The decoder-only network reads the history before it writes, so its shares,
    those of the history's last position, are the same for all items: the mean over layers and
    heads. What goes to other tokens (domain, end) is left out; rows sum to 1.

    Shapes: tokens (1, S), mask (1, S), a history as `HistoryEncoder` lays it out; written (K, L),
        token ids of the recommended items.
    """
    count = (int(mask.sum()) - 2) // written.shape[1]  # T
    if count == 0 or not len(written):
        return torch.zeros(len(written), count)
    if isinstance(model, T5Recommender):
        shares = _cross_attention(model.t5, tokens, mask, written, count)
    elif isinstance(model, CausalRecommender):
        shares = _trunk_attention(model, tokens, count).expand(len(written), -1)
    else:
        raise TypeError(f"no attention is known of a {type(model).__name__}")
    return shares / shares.sum(dim=1, keepdim=True)


def _cross_attention(t5: Any, tokens: Tensor, mask: Tensor, written: Tensor, count: int) -> Tensor:
    """Shares before they are scaled, (K, T)."""
    length = written.shape[1]
    memory = t5.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state  # (1, S, M)
    hidden_states: list[Tensor] = []
    attentions = [block.layer[1].EncDecAttention for block in t5.decoder.block]

    def keep(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden_states.append(arguments[0] if arguments else named["hidden_states"])

    hooks = [one.register_forward_pre_hook(keep, with_kwargs=True) for one in attentions]
    try:
        start = torch.full_like(tokens[:, :1], PAD)
        newest = newest_codes(tokens, mask, length)  # (1, L)
        lead = torch.cat([start, newest], dim=1).expand(len(written), -1)
        t5.decoder(
            input_ids=torch.cat([lead, written[:, :-1]], dim=1),  # (K, 2L)
            encoder_hidden_states=memory.expand(len(written), -1, -1),
            encoder_attention_mask=mask.expand(len(written), -1),
            use_cache=False,
        )
    finally:
        for hook in hooks:
            hook.remove()
    total = torch.zeros(len(written), count)
    for attention, hidden in zip(attentions, hidden_states, strict=True):
        heads = attention.n_heads
        query = attention.q(hidden[:, length:])  # (K, L, A × width of a head)
        query = query.view(*query.shape[:2], heads, -1).transpose(1, 2)  # (K, A, L, width)
        key = attention.k(memory)
        key = key.view(1, key.shape[1], heads, -1).permute(0, 2, 3, 1)  # (1, A, width, S)
        shares = (query @ key).masked_fill(mask[:, None, None] == 0, -torch.inf).softmax(dim=-1)
        on_tokens = shares.mean(dim=(1, 2))[:, 1 : 1 + count * length]  # (K, T × L)
        total += on_tokens.reshape(-1, count, length).sum(dim=2)
    return total


def _trunk_attention(model: CausalRecommender, tokens: Tensor, count: int) -> Tensor:
    """Shares before they are scaled, (1, T)."""
    items = tokens[:, 1 : 1 + count * model.length].view(1, count, model.length)
    layers = [layer for layer in model.trunk if isinstance(layer, Layer)]
    read: list[tuple[Tensor, Tensor]] = []  # what each layer reads: (1, T + 1, M), and its bias

    def keep(module: Any, arguments: tuple[Tensor, Tensor]) -> None:
        read.append(arguments)

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        model.read(tokens[:, 0], items)
    finally:
        for hook in hooks:
            hook.remove()
    heads = model.sizes.heads
    total = torch.zeros(1, count)
    for layer, (hidden, bias) in zip(layers, read, strict=True):
        query, key, _ = layer.attention(layer.attention_norm(hidden)).chunk(3, dim=-1)
        query = query[:, -1:].reshape(1, 1, heads, -1).transpose(1, 2)  # (1, A, 1, width)
        key = key.reshape(1, count + 1, heads, -1).permute(0, 2, 3, 1)  # (1, A, width, T + 1)
        scores = (query * query.shape[-1] ** -0.5) @ key + bias[:, -1:]  # (1, A, 1, T + 1)
        total += scores.softmax(dim=-1).mean(dim=1)[:, 0, 1:]
    return total
