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

from utgrec.decoding.beam import Step
from utgrec.decoding.choose import select_rows
from utgrec.decoding.kernels import (
    Attention,
    Kernels,
    LayerSizes,
    Matrix,
    Memory,
    Past,
    follow,
    make_kernels,
)
from utgrec.errors import InputError
from utgrec.recommender.histories import newest_codes
from utgrec.recommender.vocabulary import PAD


class T5State(NamedTuple):
    """What the decoder remembers of B users."""

    memory: tuple[Memory, ...]  # per layer, keys and values of cross-attention
    mask: Tensor | None  # (B, S), added to cross-attention scores; None without padding
    past: tuple[Past, ...]  # per layer
    ancestors: tuple[Tensor, ...]  # what `follow` returned last
    lead: Tensor | None
    """(B, 1), the token that the first step reads in place of the start token; None afterwards."""


class _Block(NamedTuple):
    """Weights of one layer. The scale of a norm is part of the matrix that reads it."""

    attention: Attention
    cross: Attention | None  # over the history; of the decoder alone
    widen: Matrix  # (F, M)
    narrow: Matrix  # (M, F)


_BIASES_KEPT = 64  # encoder biases, one per length of histories


class LeanT5:
    """A snapshot of a T5 model's weights; make it again after more training."""

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype = torch.float32,
        prompt: int = 0,
        kernels: Kernels | None = None,
    ) -> None:
        """Copy the weights of a transformers `T5ForConditionalGeneration`, on its device.

        After the start token the decoder reads the last `prompt` codes of the history before it
        writes; histories then need their padding on the right.

        With `torch.bfloat16` the layers' matrix products and attention run in bfloat16; sums, norms
        and softmaxes stay in float32. On a processor with bfloat16 instructions that is about twice
        as fast, on others slower. `kernels` compute the layers, by default the fastest there are.

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
        self._buckets: int = config.relative_attention_num_buckets
        self._distance: int = config.relative_attention_max_distance
        self._inner: int = config.num_heads * config.d_kv  # HA
        epsilon: float = config.layer_norm_epsilon
        sizes = LayerSizes(config.d_model, config.num_heads, config.d_kv, config.d_ff)
        self.kernels = kernels or make_kernels(sizes, epsilon, dtype, self.device)
        self._embedding = weights["shared.weight"]  # (V, M)
        self._encoder = [self._block(weights, "encoder", i) for i in range(config.num_layers)]
        self._decoder = [
            self._block(weights, "decoder", i) for i in range(config.num_decoder_layers)
        ]
        # What the first layers make of a token is the same wherever it stands.
        self._encoder_first, self._decoder_first = (
            self.kernels.project(self._embedding, stack[0].attention.asks)
            for stack in (self._encoder, self._decoder)
        )  # (V, 3HA) each
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        self._encoder_bias = weights[f"encoder.{bias}"]  # (buckets, H)
        self._decoder_bias = weights[f"decoder.{bias}"]  # (buckets, H)
        cross = [
            weights[f"decoder.block.{i}.layer.1.EncDecAttention.{name}.weight"]
            for i in range(config.num_decoder_layers)
            for name in ("k", "v")
        ]
        memory_scale = weights["encoder.final_layer_norm.weight"]
        self._memory = self.kernels.matrix(torch.cat(cross) * memory_scale)  # (layers × 2HA, M)
        head = weights["lm_head.weight"] * weights["decoder.final_layer_norm.weight"]
        scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self._head = self.kernels.matrix(head * scale, scores=True)  # (V, M)
        self._reading: dict[int, Tensor] = {}  # bias of the encoder by length, (1, H, S, S)
        self._writing: dict[int, Tensor] = {}  # bias of the decoder's newest token, (T, H)

    @torch.inference_mode()
    def start(self, input_ids: Tensor, attention_mask: Tensor) -> T5State:
        """Encode histories. Shapes: input_ids (B, S), attention_mask (B, S), 1 = a token."""
        users, kernels = len(input_ids), self.kernels
        hidden = F.embedding(input_ids, self._embedding)  # (B, S, M), float32
        mixed = F.embedding(input_ids, self._encoder_first)  # (B, S, 3HA)
        bias, mask = self._bias_of_reading(input_ids.shape[1]), None
        if not bool(attention_mask.all()):
            mask = torch.zeros(attention_mask.shape, device=hidden.device)
            mask.masked_fill_(attention_mask == 0, torch.finfo(mask.dtype).min)
        for i, block in enumerate(self._encoder):
            kernels.read(hidden, mixed if i == 0 else None, block.attention, bias, mask)
            kernels.feed_forward(hidden, block.widen, block.narrow)
        state = T5State(
            memory=kernels.remember(hidden, self._memory, len(self._decoder)),
            mask=mask,
            past=(Past(),) * len(self._decoder),
            ancestors=(),
            lead=None,
        )
        if self.prompt == 0 or users == 0:
            return state
        newest = newest_codes(input_ids, attention_mask, self.prompt)  # (B, prompt)
        read = torch.cat([torch.full_like(newest[:, :1], PAD), newest], dim=1)
        first = torch.zeros_like(read[:, :1])
        for token in torch.split(read[:, :-1], 1, dim=1):
            _, state = self._advance(state, token, first)
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
        return Step(self.kernels.log_probs(hidden, self._head, first, count), state)

    def select(self, state: T5State, users: Tensor) -> T5State:
        """See `SelectiveModel.select`."""
        chosen: T5State = select_rows(state, users)
        return chosen

    def _advance(self, state: T5State, tokens: Tensor, parents: Tensor) -> tuple[Tensor, T5State]:
        """Read one token per beam: what the last layer makes of it, (B, W, M), and the state."""
        kernels, inner = self.kernels, self._inner
        hidden = F.embedding(tokens, self._embedding)  # (B, W, M), float32
        mixed = F.embedding(tokens, self._decoder_first)  # (B, W, 3HA)
        shared, own = state.past[0]
        bias = self._bias_of_writing((0 if shared is None else shared.shape[1]) + len(own) + 1)
        rows = follow(state.ancestors, state.past[0], parents)
        past = []
        for i, (block, before) in enumerate(zip(self._decoder, state.past, strict=True)):
            if i > 0:
                mixed = kernels.project(hidden, block.attention.asks)  # (B, W, 3HA)
            query, pair = mixed[:, :, :inner], mixed[:, :, inner:]
            read = kernels.attend_few(query, pair, before, rows, bias)  # (B, W, HA)
            past.append(before.grow(pair))
            kernels.add(hidden, read, block.attention.output)
            assert block.cross is not None
            kernels.ask(hidden, block.cross, state.memory[i], state.mask)
            kernels.feed_forward(hidden, block.widen, block.narrow)
        return hidden, state._replace(past=tuple(past), ancestors=rows)

    def _block(self, weights: dict[str, Tensor], stack: str, index: int) -> _Block:
        prefix = f"{stack}.block.{index}.layer"
        feed = 2 if stack == "decoder" else 1

        def scaled(layer: int, *names: str) -> Matrix:
            matrix = torch.cat([weights[f"{prefix}.{layer}.{name}.weight"] for name in names])
            return self.kernels.matrix(matrix * weights[f"{prefix}.{layer}.layer_norm.weight"])

        def plain(layer: int, name: str) -> Matrix:
            return self.kernels.matrix(weights[f"{prefix}.{layer}.{name}.weight"])

        decoder = stack == "decoder"
        return _Block(
            attention=Attention(
                scaled(0, *(f"SelfAttention.{name}" for name in "qkv")), plain(0, "SelfAttention.o")
            ),
            cross=Attention(scaled(1, "EncDecAttention.q"), plain(1, "EncDecAttention.o"))
            if decoder
            else None,
            widen=scaled(feed, "DenseReluDense.wi"),
            narrow=plain(feed, "DenseReluDense.wo"),
        )

    def _bias_of_reading(self, length: int) -> Tensor:
        """The encoder's bias of every pair of positions. (1, H, S, S)"""
        found = self._reading.get(length)  # another thread may empty it at any time
        if found is None:
            steps = torch.arange(length, device=self.device)
            bucket = self._bucket(steps[None, :] - steps[:, None], both_ways=True)  # (S, S)
            if len(self._reading) >= _BIASES_KEPT:
                self._reading = {}
            found = self._encoder_bias[bucket].permute(2, 0, 1).contiguous()[None]
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
