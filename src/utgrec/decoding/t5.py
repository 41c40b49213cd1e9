"""A lean forward pass over a T5 model's weights, made for beam search.

It computes what transformers' `T5ForConditionalGeneration` computes, with less to do: a history is
encoded once and its cross-attention keys and values are shared by all beams of the user; what all
beams have read alike (the start, the newest item's codes) is kept once per user; the projections
that read the same state are one matrix product; nothing is kept for gradients.

Shapes: B users · S history tokens · W beams · P tokens that all beams share · T decoder steps so
    far · M model width · H heads · A width per head · F feed-forward width · V token ids.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utgrec.decoding.beam import Step, follow_rows, parent_rows
from utgrec.decoding.choose import select_rows
from utgrec.errors import InputError
from utgrec.recommender.histories import newest_codes
from utgrec.recommender.vocabulary import PAD


class T5Past(NamedTuple):
    """Self-attention keys and values of one layer."""

    keys: Tensor | None  # (B, H, P, A), of the tokens that all beams share
    values: Tensor | None  # (B, H, P, A)
    own: tuple[Tensor, ...]  # T - P times (B, W, 2, H, A), keys and values of each beam


class T5State(NamedTuple):
    """What the decoder remembers of B users."""

    keys: tuple[Tensor, ...]  # per layer (B, H, S, A), cross-attention
    values: tuple[Tensor, ...]  # per layer (B, H, S, A)
    mask: Tensor | None  # (B, 1, 1, S), added to cross-attention scores; None without padding
    past: tuple[T5Past, ...]  # per layer
    lead: Tensor | None
    """(B, 1), the token that the first step reads in place of the start token; None afterwards."""


class _Block(NamedTuple):
    """Weights of one layer. The scale of a norm is part of the matrix that reads it."""

    attention: Tensor  # (3HA, M): queries, keys, values
    output: Tensor  # (M, HA)
    cross_query: Tensor | None  # (HA, M)
    cross_output: Tensor | None  # (M, HA)
    widen: Tensor  # (F, M)
    narrow: Tensor  # (M, F)


_BIASES_KEPT = 64  # encoder biases, one per length of histories


class LeanT5:
    """A snapshot of a T5 model's weights; make it again after more training."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32, prompt: int = 0) -> None:
        """Copy the weights of a transformers `T5ForConditionalGeneration`, on its device.

        After the start token the decoder reads the last `prompt` codes of the history before it
        writes; histories then need their padding on the right.

        With `torch.bfloat16` the layers' matrix products and attention run in bfloat16; sums, norms
        and the scores of tokens stay in float32. On a processor with bfloat16 instructions that is
        about twice as fast, on others slower.

        Raises:
            InputError: a feed-forward other than T5's own ReLU.
        """
        config = model.config
        if config.feed_forward_proj != "relu":
            raise InputError(
                f"LeanT5 computes feed_forward_proj='relu', the model has "
                f"{config.feed_forward_proj!r}; decode it with transformers' generate"
            )
        weights = {
            name: tensor.detach().to(torch.float32, copy=True)
            for name, tensor in model.state_dict().items()
        }
        self.dtype = dtype
        self.prompt = prompt
        self.device: torch.device = weights["shared.weight"].device
        self._heads: int = config.num_heads
        self._epsilon: float = config.layer_norm_epsilon
        self._buckets: int = config.relative_attention_num_buckets
        self._distance: int = config.relative_attention_max_distance
        self._embedding = weights["shared.weight"]  # (V, M)
        self._encoder = [self._block(weights, "encoder", i) for i in range(config.num_layers)]
        self._decoder = [
            self._block(weights, "decoder", i) for i in range(config.num_decoder_layers)
        ]
        # What the first layers make of a token is the same wherever it stands.
        embedded = self._normed(self._embedding)  # (V, M)
        self._encoder_first = F.linear(embedded, self._encoder[0].attention)  # (V, 3HA)
        self._decoder_first = F.linear(embedded, self._decoder[0].attention)  # (V, 3HA)
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        self._encoder_bias = weights[f"encoder.{bias}"]  # (buckets, H)
        self._decoder_bias = weights[f"decoder.{bias}"]  # (buckets, H)
        cross = [
            weights[f"decoder.block.{i}.layer.1.EncDecAttention.{name}.weight"]
            for i in range(config.num_decoder_layers)
            for name in ("k", "v")
        ]
        memory_scale = weights["encoder.final_layer_norm.weight"]
        self._memory = (torch.cat(cross) * memory_scale).to(dtype)  # (layers × 2HA, M)
        head = weights["lm_head.weight"] * weights["decoder.final_layer_norm.weight"]
        scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self._head = head * scale  # (V, M), float32
        self._reading: dict[int, Tensor] = {}  # bias of the encoder by length, (H, S, S)
        self._writing: dict[int, Tensor] = {}  # bias of the decoder's newest token, (T, H)

    @torch.inference_mode()
    def start(self, input_ids: Tensor, attention_mask: Tensor) -> T5State:
        """Encode histories. Shapes: input_ids (B, S), attention_mask (B, S), 1 = a token."""
        users = len(input_ids)
        hidden = F.embedding(input_ids, self._embedding)  # (B, S, M), float32
        mixed = F.embedding(input_ids, self._encoder_first)  # (B, S, 3HA)
        bias, mask = self._bias_of_reading(input_ids.shape[1]), None  # (H, S, S)
        if not bool(attention_mask.all()):
            mask = torch.zeros(attention_mask.shape, device=hidden.device)
            mask.masked_fill_(attention_mask == 0, torch.finfo(mask.dtype).min)
            mask = mask[:, None, None, :]  # (B, 1, 1, S)
            bias = bias + mask  # (B, H, S, S)
        for i, block in enumerate(self._encoder):
            if i > 0:
                mixed = F.linear(self._normed(hidden), block.attention)  # (B, S, 3HA)
            query, key, value = self._heads_first(mixed, 3)
            hidden += F.linear(_attend(query, key, value, bias), block.output)
            hidden += self._feed_forward(hidden, block)
        memory = F.linear(self._normed(hidden), self._memory)  # (B, S, layers × 2HA)
        parts = self._heads_first(memory, 2 * len(self._decoder))
        state = T5State(
            keys=parts[0::2],
            values=parts[1::2],
            mask=mask,
            past=(T5Past(None, None, ()),) * len(self._decoder),
            lead=None,
        )
        if self.prompt == 0 or users == 0:
            return state
        newest = newest_codes(input_ids, attention_mask, self.prompt)  # (B, prompt)
        read = torch.cat([torch.full_like(newest[:, :1], PAD), newest], dim=1)
        for token in torch.split(read[:, :-1], 1, dim=1):
            _, state = self._advance(state, token, None)
        return state._replace(lead=read[:, -1:])

    @torch.inference_mode()
    def step(
        self,
        state: T5State,
        tokens: Tensor,
        parents: Tensor,
        first: int,
        count: int,
    ) -> Step[T5State]:
        """See `BeamModel.step`."""
        if state.lead is not None:
            tokens, state = state.lead, state._replace(lead=None)
        hidden, state = self._advance(state, tokens, parents)
        logits = F.linear(self._normed(hidden, torch.float32), self._head)  # (B, W, V)
        log_probs = logits.log_softmax(dim=2)[:, :, first : first + count]
        return Step(log_probs, state)

    def select(self, state: T5State, users: Tensor) -> T5State:
        """See `SelectiveModel.select`."""
        chosen: T5State = select_rows(state, users)
        return chosen

    def _advance(
        self, state: T5State, tokens: Tensor, parents: Tensor | None
    ) -> tuple[Tensor, T5State]:
        """Read one token per beam: what the last layer makes of it, (B, W, M), and the state."""
        hidden = F.embedding(tokens, self._embedding)  # (B, W, M), float32
        mixed = F.embedding(tokens, self._decoder_first)  # (B, W, 3HA)
        shared, own = state.past[0].keys, state.past[0].own
        length = (0 if shared is None else shared.shape[2]) + len(own) + 1  # T
        bias = self._bias_of_writing(length)
        rows = None if parents is None or not own else parent_rows(parents, own[-1].shape[1])
        past = []
        for i, block in enumerate(self._decoder):
            if i > 0:
                mixed = F.linear(self._normed(hidden), block.attention)  # (B, W, 3HA)
            read, grown = self._attend_self(mixed, state.past[i], rows, bias)
            past.append(grown)
            hidden += F.linear(read, block.output)
            assert block.cross_query is not None and block.cross_output is not None
            (query,) = self._heads_first(F.linear(self._normed(hidden), block.cross_query), 1)
            cross = _attend(query, state.keys[i], state.values[i], state.mask)  # (B, W, HA)
            hidden += F.linear(cross, block.cross_output)
            hidden += self._feed_forward(hidden, block)
        return hidden, state._replace(past=tuple(past))

    def _block(self, weights: dict[str, Tensor], stack: str, index: int) -> _Block:
        prefix = f"{stack}.block.{index}.layer"
        feed = 2 if stack == "decoder" else 1

        def scaled(layer: int, *names: str) -> Tensor:
            matrix = torch.cat([weights[f"{prefix}.{layer}.{name}.weight"] for name in names])
            return (matrix * weights[f"{prefix}.{layer}.layer_norm.weight"]).to(self.dtype)

        def plain(layer: int, name: str) -> Tensor:
            return weights[f"{prefix}.{layer}.{name}.weight"].to(self.dtype)

        decoder = stack == "decoder"
        return _Block(
            attention=scaled(0, *(f"SelfAttention.{name}" for name in "qkv")),
            output=plain(0, "SelfAttention.o"),
            cross_query=scaled(1, "EncDecAttention.q") if decoder else None,
            cross_output=plain(1, "EncDecAttention.o") if decoder else None,
            widen=scaled(feed, "DenseReluDense.wi"),
            narrow=plain(feed, "DenseReluDense.wo"),
        )

    def _normed(self, hidden: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Divide by the root mean square, in float32. (…, M) → (…, M)"""
        return F.rms_norm(hidden, hidden.shape[-1:], eps=self._epsilon).to(dtype or self.dtype)

    def _feed_forward(self, hidden: Tensor, block: _Block) -> Tensor:
        return F.linear(F.linear(self._normed(hidden), block.widen).relu_(), block.narrow)

    def _heads_first(self, mixed: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Tell projections and heads apart. (B, X, parts × HA) → parts × (B, H, X, A), one copy"""
        batch, length, width = mixed.shape
        heads = mixed.view(batch, length, parts, self._heads, width // parts // self._heads)
        return heads.permute(2, 0, 3, 1, 4).contiguous().unbind(0)

    def _attend_self(
        self, mixed: Tensor, past: T5Past, rows: Tensor | None, bias: Tensor
    ) -> tuple[Tensor, T5Past]:
        """Attention over the few tokens so far, and the past with this one in it.

        What all beams share is one matrix product; of what a beam has alone there are at most two
        or three tokens, taken one by one.

        Shapes: mixed (B, W, 3HA); rows (B × W,), for each beam the row of its parent, None while
            all beams are one; bias (T, H) → (B, W, HA).
        """
        if mixed.shape[1] == 1 and not past.own:
            query, key, value = self._heads_first(mixed, 3)  # (B, H, 1, A)
            if past.keys is not None and past.values is not None:
                key, value = torch.cat([past.keys, key], 2), torch.cat([past.values, value], 2)
            return _attend(query, key, value, bias.T[:, None]), T5Past(key, value, ())
        assert past.keys is not None and past.values is not None
        batch, beams, _ = mixed.shape
        split = mixed.view(batch, beams, 3, self._heads, -1)  # (B, W, 3, H, A)
        query, pair = split[:, :, 0], split[:, :, 1:]
        own = (*(follow_rows(kept, rows, batch) for kept in past.own), pair)
        alike = query.transpose(1, 2) @ past.keys.transpose(2, 3)  # (B, H, W, P)
        alone = [(query * one[:, :, 0]).sum(dim=-1)[None] for one in own]  # each (1, B, W, H)
        # Over the first dimension, as a softmax over a short last one is slow.
        scores = torch.cat([alike.permute(3, 0, 2, 1), *alone]) + bias[:, None, None]
        shares = scores.softmax(dim=0).to(query.dtype)  # (T, B, W, H)
        shared = past.keys.shape[2]
        read = shares[:shared].permute(1, 3, 2, 0) @ past.values  # (B, H, W, A)
        read = read.transpose(1, 2)  # (B, W, H, A)
        for share, one in zip(shares[shared:], own, strict=True):
            read = torch.addcmul(read, share[..., None], one[:, :, 1])
        return read.flatten(2), past._replace(own=own)

    def _bias_of_reading(self, length: int) -> Tensor:
        """The encoder's bias of every pair of positions. (H, S, S)"""
        found = self._reading.get(length)  # another thread may empty it at any time
        if found is None:
            steps = torch.arange(length, device=self.device)
            bucket = self._bucket(steps[None, :] - steps[:, None], both_ways=True)  # (S, S)
            if len(self._reading) >= _BIASES_KEPT:
                self._reading = {}
            found = self._encoder_bias[bucket].permute(2, 0, 1).contiguous()
            self._reading[length] = found
        return found

    def _bias_of_writing(self, length: int) -> Tensor:
        """The decoder's bias of its newest token towards every token so far. (T, H)"""
        if length not in self._writing:
            distance = torch.arange(1 - length, 1, device=self.device)
            self._writing[length] = self._decoder_bias[self._bucket(distance, both_ways=False)]
        return self._writing[length]

    def _bucket(self, offset: Tensor, both_ways: bool) -> Tensor:
        """T5's bucket of a relative position (key minus query): exact near, logarithmic far."""
        count = self._buckets // 2 if both_ways else self._buckets
        side = count * (offset > 0) if both_ways else torch.zeros_like(offset)
        distance = offset.abs() if both_ways else (-offset).clamp(min=0)
        exact = count // 2
        ratio = (distance.clamp(min=1).float() / exact).log() / math.log(self._distance / exact)
        far = (exact + (ratio * (count - exact)).long()).clamp(max=count - 1)
        return side + torch.where(distance < exact, distance, far)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Attention without a scale, as T5 has none. The softmax is in float32.

    Shapes: query (B, H, X, A), key (B, H, S, A), value (B, H, S, A), bias → (B, X, HA).
    """
    scores = query @ key.transpose(2, 3)  # (B, H, X, S)
    # A bias in float32 makes the sum float32, without a copy of the scores in between.
    scores = scores.float() if bias is None else scores + bias
    shares = scores.softmax(dim=-1).to(query.dtype)
    return (shares @ value).transpose(1, 2).flatten(2)
