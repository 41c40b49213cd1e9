"""A lean forward pass over the decoder-only recommender's weights, made for beam search.

It computes what `CausalRecommender` computes. A history is read once; of the trunk's last layer
only the last position is computed; the writer's keys and values are kept per beam.

Shapes: B users · S history tokens · T items · W beams · t tokens written so far · M width ·
A heads · H width of a head · L codes per item · V token ids.
"""

import copy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utgrec.decoding.beam import Step, follow_parents
from utgrec.decoding.choose import select_rows
from utgrec.recommender.causal import FAR, CausalRecommender, Layer
from utgrec.recommender.contents import Contents
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.vocabulary import Vocabulary


class CausalState(NamedTuple):
    """What the writer remembers of B users."""

    states: Tensor  # (B, M), what the trunk knows after the whole history
    past: tuple[tuple[Tensor, ...], ...]
    """Keys and values of the writer's layers: per layer t × (B, W or 1, 2M)."""


class _Weights(NamedTuple):
    """One layer's matrices. The scale of a norm is part of the matrix that reads it."""

    query: Tensor  # (M, M), scaled by the root of a head's width
    pair: Tensor  # (2M, M): keys, values
    output: Tensor  # (M, M)
    widen: Tensor  # (F, M)
    narrow: Tensor  # (M, F)


class LeanCausal:
    """A snapshot of a recommender's weights; make it again after more training."""

    def __init__(self, model: CausalRecommender, dtype: torch.dtype = torch.float32) -> None:
        """Copy the weights, on their device.

        With `torch.bfloat16` the layers' matrix products and attention run in bfloat16; sums, norms
        and the scores of tokens stay in float32.
        """
        sizes = model.sizes
        self.dtype = dtype
        self._heads, self._length = sizes.heads, model.length
        self._distances = sizes.distances
        self._embedding = _copy(model.embedding.weight)  # (V, M)
        self._join = _copy(model.join.weight).to(dtype)  # (M, L × M)
        self._nearness = _copy(model.nearness)  # (A, distances)
        self._items = copy.deepcopy(model.items)
        self.words = copy.deepcopy(model.words)
        self._trunk = [self._layer(layer) for layer in model.trunk if isinstance(layer, Layer)]
        self._trunk_scale = _copy(model.trunk_norm.weight)
        self._places = _copy(model.places)  # (L, M)
        self._writer = [self._layer(layer) for layer in model.writer if isinstance(layer, Layer)]
        self._head = _copy(model.head.weight) * _copy(model.writer_norm.weight)  # (V, M)

    @torch.inference_mode()
    def start(self, input_ids: Tensor, attention_mask: Tensor) -> CausalState:
        """Read histories, padded on the right.

        Shapes: input_ids (B, S): domain, codes of the items, end; attention_mask (B, S).
        """
        users, length = input_ids.shape[0], self._length
        longest = (input_ids.shape[1] - 2) // length  # T
        last = (attention_mask.sum(dim=1) - 2) // length  # (B,), items of each history
        items = input_ids[:, 1 : 1 + longest * length].reshape(users, longest, length)
        joined = F.linear(self._embedding[items].flatten(2).to(self.dtype), self._join).float()
        if self.words is not None:
            joined = joined + self.words(input_ids[:, 0], items)
        if self._items is not None and self._items.count:
            joined = joined + self._items(input_ids[:, 0], items)
        hidden = torch.cat([self._embedding[input_ids[:, :1]], joined], dim=1)
        place = torch.arange(longest + 1, device=hidden.device)
        distance = place[:, None] - place[None, :]
        bias = self._nearness[:, distance.clamp(0, self._distances - 1)]
        bias = bias.masked_fill(distance < 0, FAR)[None]  # (1, A, T + 1, T + 1)
        rows = torch.arange(users, device=hidden.device)
        for number, layer in enumerate(self._trunk):
            normed = _normed(hidden, self.dtype)
            key, value = self._split(F.linear(normed, layer.pair), 2)
            if number == len(self._trunk) - 1:
                normed, hidden = normed[rows, last][:, None], hidden[rows, last][:, None]
                bias = bias[0].transpose(0, 1)[last][:, :, None]  # (B, A, 1, T + 1)
            (query,) = self._split(F.linear(normed, layer.query), 1)
            scores = (query @ key.transpose(2, 3)).float() + bias
            shares = scores.softmax(dim=-1).to(self.dtype)
            mixed = (shares @ value).transpose(1, 2).flatten(2)
            hidden = self._finish(hidden, mixed, layer)
        states = _normed(hidden[:, 0], torch.float32) * self._trunk_scale
        return CausalState(states=states, past=((),) * len(self._writer))

    @torch.inference_mode()
    def step(
        self, state: CausalState, tokens: Tensor, parents: Tensor, first: int, count: int
    ) -> Step[CausalState]:
        """See `BeamModel.step`."""
        written = len(state.past[0])
        # The padding token of the first step stands for the state of the history.
        hidden = self._embedding[tokens] if written else state.states[:, None]  # (B, W, M)
        hidden = hidden + self._places[written]
        past = []
        for layer, earlier in zip(self._writer, state.past, strict=True):
            normed = _normed(hidden, self.dtype)
            pair = F.linear(normed, layer.pair)  # (B, W, 2M)
            pairs = (*(follow_parents(kept, parents) for kept in earlier), pair)
            past.append(pairs)
            mixed = self._attend(F.linear(normed, layer.query), pairs)
            hidden = self._finish(hidden, mixed, layer)
        logits = F.linear(_normed(hidden, torch.float32), self._head)  # (B, W, V)
        log_probs = logits.log_softmax(dim=2)[:, :, first : first + count]
        return Step(log_probs, state._replace(past=tuple(past)))

    def select(self, state: CausalState, users: Tensor) -> CausalState:
        """See `SelectiveModel.select`."""
        chosen: CausalState = select_rows(state, users)
        return chosen

    def _layer(self, layer: Layer) -> _Weights:
        mixed = _copy(layer.attention.weight) * _copy(layer.attention_norm.weight)  # (3M, M)
        query, pair = mixed[: mixed.shape[1]], mixed[mixed.shape[1] :]
        scale = (mixed.shape[1] // self._heads) ** -0.5
        widen = _copy(layer.widen.weight) * _copy(layer.feed_norm.weight)
        return _Weights(
            query=(query * scale).to(self.dtype),
            pair=pair.to(self.dtype),
            output=_copy(layer.output.weight).to(self.dtype),
            widen=widen.to(self.dtype),
            narrow=_copy(layer.narrow.weight).to(self.dtype),
        )

    def _finish(self, hidden: Tensor, mixed: Tensor, layer: _Weights) -> Tensor:
        """Add what attention read, then the feed-forward. (…, M), (…, M) → (…, M)"""
        hidden = hidden + F.linear(mixed, layer.output)
        inner = F.linear(_normed(hidden, self.dtype), layer.widen).relu_()
        return hidden + F.linear(inner, layer.narrow)

    def _split(self, mixed: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Tell projections and heads apart. (B, X, parts × M) → parts × (B, A, X, H)"""
        users, length, width = mixed.shape
        heads = mixed.view(users, length, parts, self._heads, width // parts // self._heads)
        return heads.permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(self, query: Tensor, pairs: tuple[Tensor, ...]) -> Tensor:
        """Attention over the few tokens written so far, as every beam has its own.

        Shapes: query (B, W, M), pairs t × (B, W or 1, 2M) → (B, W, M).
        """
        users, beams, width = query.shape
        shape = (self._heads, width // self._heads)
        heads = query.view(users, beams, *shape)
        split = [pair.view(users, -1, 2, *shape).unbind(2) for pair in pairs]
        scores = torch.stack([(heads * key).sum(dim=-1) for key, _ in split], dim=-1)
        shares = scores.float().softmax(dim=-1).to(query.dtype)  # (B, W, A, t)
        mixed = shares[..., :1] * split[0][1]
        for t, (_, value) in enumerate(split[1:], start=1):
            mixed = mixed + shares[..., t : t + 1] * value
        return mixed.reshape(users, beams, width)


def _normed(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Divide by the root mean square, in float32. (…, M) → (…, M)"""
    epsilon = torch.finfo(torch.float32).eps  # torch's own for RMSNorm
    return F.rms_norm(hidden, hidden.shape[-1:], eps=epsilon).to(dtype)


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.float32, copy=True)


def read_new_words(
    network: GenerativeRecommender,
    lean: Any,
    contents: Contents,
    vocabulary: Vocabulary,
    domain: str,
) -> None:
    """Let a network and its lean form read the words of all items that a memory holds.

    Codes never change their items, so generations that are served beside each other read the same.
    """
    if not isinstance(network, CausalRecommender) or network.words is None:
        return
    kept, known = network.sizes.item_words, network.words.table[:, 0]
    table = contents.telling_words(vocabulary, domain, kept, known)
    network.words.read(table)
    if isinstance(lean, LeanCausal) and lean.words is not None:
        lean.words.read(table)
