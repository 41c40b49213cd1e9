"""The decoder-only recommender: all positions of a history are learned in one pass.

A trunk of causal Transformer layers reads one vector per item, made of the item's codes, and knows
at every position what came before. From each position's state a shallow Transformer, the writer,
writes the codes of the next item one after the other. Attention over whole histories thus sees one
position per item instead of L, and the writer sees L positions and no history.

Every item of a history is a training target of the same pass, where the encoder-decoder reads the
history anew for each. docs/recommender.md compares the two.

Shapes: B histories · T items · N positions that write · L codes per item · M width · A heads ·
V token ids.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from utgrec import storage
from utgrec.config import require, to_dict
from utgrec.recommender.dropout import drop
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.vocabulary import Vocabulary

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FAR = -1e9  # added to the score of what may not be seen


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalSizes:
    """Sizes of the decoder-only recommender."""

    width: int = 128
    """Width of the residual stream."""
    feed_forward: int = 512
    """Width of the ReLU feed-forward."""
    heads: int = 4
    """Attention heads."""
    trunk_layers: int = 2
    """Layers that read the history."""
    writer_layers: int = 1
    """Layers that write the codes of one item."""
    distances: int = 64
    """Distances between items that are told apart; all farther ones count as one."""
    dropout: float = 0.1
    """Dropout of the embeddings and of what each sublayer adds."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.feed_forward, self.heads, self.distances)
        require(min(sizes) >= 1, f"all widths and counts must be at least 1, got {self}")
        require(self.width % self.heads == 0, f"width must be a multiple of the heads, got {self}")
        require(
            min(self.trunk_layers, self.writer_layers) >= 1,
            f"trunk and writer need at least one layer, got {self}",
        )
        require(0 <= self.dropout < 1, f"dropout is in [0, 1), got {self.dropout}")

    @property
    def summary(self) -> str:
        """A few words for people."""
        return (
            f"decoder-only, {self.trunk_layers} + {self.writer_layers} layers of width {self.width}"
        )


class WindowBatch(NamedTuple):
    """Parts of histories; every marked item is to be written from the items before it."""

    domains: Tensor  # (B,), int64, domain tokens
    items: Tensor  # (B, T, L), int64, token ids; anything beyond the end of a window
    targets: Tensor  # (B, T), bool, items that the model is to write


class Layer(nn.Module):
    """One pre-norm Transformer layer."""

    def __init__(self, sizes: CausalSizes) -> None:
        super().__init__()
        self.heads, self.dropout = sizes.heads, sizes.dropout
        self.attention_norm = nn.RMSNorm(sizes.width)
        self.attention = nn.Linear(sizes.width, 3 * sizes.width, bias=False)
        self.output = nn.Linear(sizes.width, sizes.width, bias=False)
        self.feed_norm = nn.RMSNorm(sizes.width)
        self.widen = nn.Linear(sizes.width, sizes.feed_forward, bias=False)
        self.narrow = nn.Linear(sizes.feed_forward, sizes.width, bias=False)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Shapes: hidden (B, T, M); bias (A or 1, T, T), added to attention scores → (B, T, M)."""
        rate = self.dropout if self.training else 0.0
        size, length, width = hidden.shape
        mixed = self.attention(self.attention_norm(hidden))
        query, key, value = (
            part.view(size, length, self.heads, -1).transpose(1, 2)
            for part in mixed.chunk(3, dim=-1)
        )  # each (B, A, T, width of a head)
        # On a CPU the fused attention's backward pass is several times slower than this.
        scores = (query * (width // self.heads) ** -0.5) @ key.transpose(2, 3)
        shares = (scores.float() + bias).softmax(dim=-1).to(value.dtype)
        read = self.output((shares @ value).transpose(1, 2).flatten(2))
        hidden = hidden + drop(read.float(), rate)
        fed = self.narrow(F.relu(self.widen(self.feed_norm(hidden))))
        return hidden + drop(fed.float(), rate)


class CausalRecommender(GenerativeRecommender):
    """Trunk and writer over one embedding of the vocabulary."""

    def __init__(
        self, sizes: CausalSizes, vocabulary: Vocabulary, label_smoothing: float = 0.0
    ) -> None:
        """Random weights, from torch's current seed."""
        super().__init__()
        self.sizes = sizes
        self.length = vocabulary.code_length
        self.label_smoothing = label_smoothing
        width = sizes.width
        self.embedding = nn.Embedding(vocabulary.size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.join = nn.Linear(self.length * width, width, bias=False)
        self.nearness = nn.Parameter(torch.zeros(sizes.heads, sizes.distances))
        self.trunk = nn.ModuleList(Layer(sizes) for _ in range(sizes.trunk_layers))
        self.trunk_norm = nn.RMSNorm(width)
        self.places = nn.Parameter(torch.randn(self.length, width) * 0.02)
        self.writer = nn.ModuleList(Layer(sizes) for _ in range(sizes.writer_layers))
        self.writer_norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary.size, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    @classmethod
    def load(cls, folder: Path, sizes: CausalSizes, vocabulary: Vocabulary) -> "CausalRecommender":
        """Open what `save` wrote, ready to recommend."""
        model = cls(sizes, vocabulary)
        model.load_state_dict(load_file(folder / WEIGHTS))
        return model.eval()

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors, and the sizes as JSON for whoever reads them alone."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / WEIGHTS)
        storage.write_json(folder / CONFIG, {"network": "causal", **to_dict(self.sizes)})

    def forward(self, batch: WindowBatch) -> dict[str, Tensor]:
        """Cross-entropy of the codes of all targets, by position; "loss" is their mean."""
        states = self.read(batch.domains, batch.items[:, :-1])  # (B, T, M)
        wanted = batch.items[batch.targets]  # (N, L)
        logits = self.head(self.write(states[batch.targets], wanted[:, :-1])).float()
        each = F.cross_entropy(
            logits.flatten(0, 1),
            wanted.flatten(),
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        ).view(wanted.shape)
        by_position = {f"code_{place + 1}": each[:, place].mean() for place in range(self.length)}
        return {"loss": each.mean(), **by_position}

    def read(self, domains: Tensor, items: Tensor) -> Tensor:
        """What is known before every item, and after the last one.

        Shapes: domains (B,), items (B, T, L) token ids → (B, T + 1, M); place t has seen t items.
        """
        joined = self.join(self.embedding(items).flatten(2)).float()  # (B, T, M)
        hidden = torch.cat([self.embedding(domains)[:, None], joined], dim=1)
        hidden = drop(hidden, self.sizes.dropout if self.training else 0.0)
        bias = self._nearness(hidden.shape[1])
        for layer in self.trunk:
            hidden = layer(hidden, bias)
        states: Tensor = self.trunk_norm(hidden)
        return states

    def write(self, states: Tensor, written: Tensor) -> Tensor:
        """What the head needs to score each next code, given those already written.

        Shapes: states (N, M), written (N, l) token ids → (N, l + 1, M).
        """
        hidden = torch.cat([states[:, None], self.embedding(written)], dim=1)
        length = hidden.shape[1]
        hidden = hidden + self.places[:length]
        hidden = drop(hidden, self.sizes.dropout if self.training else 0.0)
        future = torch.ones(length, length, dtype=torch.bool, device=hidden.device).triu(1)
        bias = torch.zeros(1, length, length, device=hidden.device).masked_fill_(future, FAR)
        for layer in self.writer:
            hidden = layer(hidden, bias)
        out: Tensor = self.writer_norm(hidden)
        return out

    def _nearness(self, length: int) -> Tensor:
        """Bias of each distance, with the future hidden: (A, length, length)."""
        place = torch.arange(length, device=self.nearness.device)
        distance = place[:, None] - place[None, :]
        bias = self.nearness[:, distance.clamp(0, self.sizes.distances - 1)]
        return bias.masked_fill(distance < 0, FAR)
