"""A lean forward pass over the decoder-only recommender's weights, made for beam search.

It computes what `CausalRecommender` computes. A history is read once; of the trunk's last layer
only the last position is computed; the writer's keys and values are kept per beam.

Shapes: B users · S history tokens · T items · W beams · t tokens written so far · M width ·
A heads · H width of a head · L codes per item · V token ids.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utgrec.decoding.beam import Step
from utgrec.decoding.choose import select_rows
from utgrec.decoding.kernels import Kernels, LayerSizes, Matrix, Past, follow, make_kernels
from utgrec.recommender.causal import FAR, CausalRecommender, Layer
from utgrec.recommender.contents import Contents
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.vocabulary import Vocabulary


class CausalState(NamedTuple):
    """What the writer remembers of B users."""

    states: Tensor  # (B, M), what the trunk knows after the whole history
    past: tuple[Past, ...]  # per layer of the writer
    ancestors: tuple[Tensor, ...]  # what `follow` returned last
    written: int  # t


class _Weights(NamedTuple):
    """One layer's matrices. The scale of a norm is part of the matrix that reads it."""

    query: Matrix  # (M, M), scaled by the root of a head's width
    pair: Matrix  # (2M, M): keys, values
    output: Matrix  # (M, M)
    widen: Matrix  # (F, M)
    narrow: Matrix  # (M, F)


class LeanCausal:
    """A snapshot of a recommender's weights; make it again after more training."""

    def __init__(
        self,
        model: CausalRecommender,
        dtype: torch.dtype = torch.float32,
        kernels: Kernels | None = None,
    ) -> None:
        """Copy the weights, on their device.

        With `torch.bfloat16` the layers' matrix products and attention run in bfloat16; sums, norms
        and softmaxes stay in float32. `kernels` compute the layers, by default the fastest there
        are.
        """
        sizes = model.sizes
        self.dtype = dtype
        self._heads, self._length = sizes.heads, model.length
        self._distances = sizes.distances
        self._embedding = _copy(model.embedding.weight)  # (V, M)
        shape = LayerSizes(sizes.width, sizes.heads, sizes.width // sizes.heads, sizes.feed_forward)
        epsilon = torch.finfo(torch.float32).eps  # torch's own for RMSNorm
        self.kernels = kernels or make_kernels(shape, epsilon, dtype, self._embedding.device)
        self._join = self.kernels.matrix(_copy(model.join.weight))  # (M, L × M)
        self._nearness = _copy(model.nearness)  # (A, distances)
        self._items = copy.deepcopy(model.items)
        self.words = copy.deepcopy(model.words)
        self._trunk = [self._layer(layer) for layer in model.trunk if isinstance(layer, Layer)]
        self._trunk_scale = _copy(model.trunk_norm.weight)
        self._trunk_epsilon = epsilon
        self._places = _copy(model.places)  # (L, M)
        self._writer = [self._layer(layer) for layer in model.writer if isinstance(layer, Layer)]
        head = _copy(model.head.weight) * _copy(model.writer_norm.weight)
        self._head = self.kernels.matrix(head, scores=True)  # (V, M)

    @torch.inference_mode()
    def start(self, input_ids: Tensor, attention_mask: Tensor) -> CausalState:
        """Read histories, padded on the right.

        Shapes: input_ids (B, S): domain, codes of the items, end; attention_mask (B, S).
        """
        kernels, users, length = self.kernels, input_ids.shape[0], self._length
        longest = (input_ids.shape[1] - 2) // length  # T
        last = (attention_mask.sum(dim=1) - 2) // length  # (B,), items of each history
        items = input_ids[:, 1 : 1 + longest * length].reshape(users, longest, length)
        codes = self._embedding[items].flatten(2).to(self.dtype)  # (B, T, L × M)
        joined = torch.zeros(users, longest, self._embedding.shape[1], device=codes.device)
        kernels.add(joined, codes, self._join)
        if self.words is not None:
            joined += self.words(input_ids[:, 0], items)
        if self._items is not None and self._items.count:
            joined += self._items(input_ids[:, 0], items)
        hidden = torch.cat([self._embedding[input_ids[:, :1]], joined], dim=1)  # (B, T + 1, M)
        place = torch.arange(longest + 1, device=hidden.device)
        distance = place[:, None] - place[None, :]
        bias = self._nearness[:, distance.clamp(0, self._distances - 1)]
        bias = bias.masked_fill(distance < 0, FAR)[None]  # (1, A, T + 1, T + 1)
        rows = torch.arange(users, device=hidden.device)
        for number, layer in enumerate(self._trunk):
            pairs = kernels.project(hidden, layer.pair)  # (B, T + 1, 2M)
            if number == len(self._trunk) - 1:
                hidden = hidden[rows, last][:, None]  # (B, 1, M)
                bias = bias[0].transpose(0, 1)[last][:, :, None]  # (B, A, 1, T + 1)
            query = kernels.project(hidden, layer.query)
            self._finish(hidden, kernels.attend(query, pairs, bias, None), layer)
        states = torch.nn.functional.rms_norm(
            hidden[:, 0], hidden.shape[-1:], eps=self._trunk_epsilon
        )
        past = (Past(),) * len(self._writer)
        return CausalState(states * self._trunk_scale, past, ancestors=(), written=0)

    @torch.inference_mode()
    def step(
        self, state: CausalState, tokens: Tensor, parents: Tensor, first: int, count: int
    ) -> Step[CausalState]:
        """See `BeamModel.step`."""
        kernels, written = self.kernels, state.written
        # The padding token of the first step stands for the state of the history.
        hidden = self._embedding[tokens] if written else state.states[:, None]  # (B, W, M)
        hidden = hidden + self._places[written]
        rows = follow(state.ancestors, state.past[0], parents)
        past = []
        for layer, before in zip(self._writer, state.past, strict=True):
            query, pair = kernels.project(hidden, layer.query), kernels.project(hidden, layer.pair)
            mixed = kernels.attend_few(query, pair, before, rows, None)
            past.append(before.grow(pair))
            self._finish(hidden, mixed, layer)
        state = state._replace(past=tuple(past), ancestors=rows, written=written + 1)
        return Step(kernels.log_probs(hidden, self._head, first, count), state)

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
            query=self.kernels.matrix(query * scale),
            pair=self.kernels.matrix(pair),
            output=self.kernels.matrix(_copy(layer.output.weight)),
            widen=self.kernels.matrix(widen),
            narrow=self.kernels.matrix(_copy(layer.narrow.weight)),
        )

    def _finish(self, hidden: Tensor, mixed: Tensor, layer: _Weights) -> None:
        """Add what attention read, then the feed-forward, in place. (…, M), (…, M)"""
        self.kernels.add(hidden, mixed, layer.output)
        self.kernels.feed_forward(hidden, layer.widen, layer.narrow)


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
