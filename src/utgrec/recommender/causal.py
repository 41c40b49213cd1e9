"""The decoder-only recommender: all positions of a history are learned in one pass.

A trunk of causal Transformer layers reads one vector per item, made of the item's codes, and knows
at every position what came before. From each position's state a shallow Transformer, the writer,
writes the codes of the next item one after the other. Attention over whole histories thus sees one
position per item instead of L, and the writer sees L positions and no history.

Every item of a history is a training target of the same pass, where the encoder-decoder reads the
history anew for each. docs/recommender.md compares the two.

With item vectors (`item_vectors.py`) the same states also rank whole items: a state should be near
the vector of the item that comes next. That trains the trunk better than codes alone, and in
decoding it is a second voice about every item (`decoding/mixed.py`).

Shapes: B histories · T items · N positions that write · n known items · L codes per item ·
M width · A heads · V token ids.
"""

import copy
import dataclasses
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from utgrec import storage
from utgrec.config import require, to_dict
from utgrec.errors import FormatVersionError
from utgrec.recommender.dropout import drop
from utgrec.recommender.item_vectors import ItemVectors, token_bits
from utgrec.recommender.item_words import ItemWords
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.tokenizer.logsumexp import chunked_logsumexp

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
    item_vectors: bool = True
    """Whether whole items have vectors, by which they are ranked (`item_vectors.py`)."""
    item_words: int = 24
    """Most telling words of each item that are part of its vector (`item_words.py`); 0 is none."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.feed_forward, self.heads, self.distances)
        require(min(sizes) >= 1, f"all widths and counts must be at least 1, got {self}")
        require(self.width % self.heads == 0, f"width must be a multiple of the heads, got {self}")
        require(
            min(self.trunk_layers, self.writer_layers) >= 1,
            f"trunk and writer need at least one layer, got {self}",
        )
        require(0 <= self.dropout < 1, f"dropout is in [0, 1), got {self.dropout}")
        require(self.item_words >= 0, f"item_words must be at least 0, got {self.item_words}")

    @property
    def summary(self) -> str:
        """A few words for people."""
        return (
            f"decoder-only, {self.trunk_layers} + {self.writer_layers} layers of width {self.width}"
            f"{', item vectors' if self.item_vectors else ''}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """How item vectors are trained."""

    weight: float = 1.0
    """Weight of the ranking loss beside that of the codes."""
    most_items: int = 16384
    """Known items that the right one is told from; of more, so many are drawn at every step."""
    hidden_share: float = 0.1
    """Share of the histories whose items are read and ranked by their codes alone, as those of a
    new shop always are."""
    dropped_words: float = 0.3
    """Share of the items' words that are left out in training, at random."""

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"the ranking weight must be at least 0, got {self.weight}")
        require(self.most_items >= 1, f"most_items must be at least 1, got {self.most_items}")
        require(0 <= self.hidden_share < 1, f"hidden_share is in [0, 1), got {self.hidden_share}")
        require(
            0 <= self.dropped_words < 1, f"dropped_words is in [0, 1), got {self.dropped_words}"
        )


class WindowBatch(NamedTuple):
    """Parts of histories; every marked item is to be written from the items before it."""

    domains: Tensor  # (B,), int64, domain tokens that are read; may be that of any domain
    shops: Tensor  # (B,), int64, tokens of the domains that the items belong to
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

    items: ItemVectors | None
    words: ItemWords | None

    def __init__(
        self,
        sizes: CausalSizes,
        vocabulary: Vocabulary,
        label_smoothing: float = 0.0,
        *,
        known: Tensor | None = None,
        ranking: RankingConfig | None = None,
    ) -> None:
        """Random weights, from torch's current seed.

        `known` (n,) are the keys of the items that get a vector of their own; none is none.
        """
        super().__init__()
        self.sizes = sizes
        self.length = vocabulary.code_length
        self.label_smoothing = label_smoothing
        self.ranking = ranking or RankingConfig()
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
        self.items = None
        if sizes.item_vectors:
            keys = torch.zeros(0, dtype=torch.int64) if known is None else known
            self.items = ItemVectors(keys, width, token_bits(vocabulary), self.length)
            self.rank_join = nn.Linear(self.length * width, width, bias=False)
            self.rank_state = nn.Linear(width, width)
            nn.init.eye_(self.rank_state.weight)  # states are near vectors from the start
        self.words = None
        if sizes.item_vectors and sizes.item_words:
            self.words = ItemWords(width, token_bits(vocabulary))

    @classmethod
    def load(cls, folder: Path, sizes: CausalSizes, vocabulary: Vocabulary) -> "CausalRecommender":
        """Open what `save` wrote, ready to recommend.

        Raises:
            FormatVersionError: the weights are those of another version's network.
        """
        weights = load_file(folder / WEIGHTS)
        model = cls(sizes, vocabulary, known=weights.get("items.keys"))
        if model.words is not None and "words.table" in weights:
            model.words.read(weights["words.table"])
        own = model.state_dict()
        both = own.keys() & weights.keys()
        other = {name for name in both if own[name].shape != weights[name].shape}
        if differs := sorted((own.keys() ^ weights.keys()) | other):
            raise FormatVersionError(
                f"{folder} holds the network of another version of UTGRec ({differs[0]} differs); "
                "train the recommender again, or install the version that wrote it"
            )
        model.load_state_dict(weights)
        return model.eval()

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors, and the sizes as JSON for whoever reads them alone."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / WEIGHTS)
        storage.write_json(folder / CONFIG, {"network": "causal", **to_dict(self.sizes)})

    def know(self, known: Tensor) -> None:
        """Let these items have vectors of their own, (n,) keys; those of all others are forgotten.

        Items that had one keep it; new ones start at zero.
        """
        if self.items is not None:
            self.items = self.items.knowing(known)

    def taking_for_new(self, keys: Tensor) -> Self:
        """See `GenerativeRecommender`; all other weights are shared."""
        if self.items is None:
            return self
        shared = {id(one): one for one in (*self.parameters(), *self.buffers())}
        other = copy.deepcopy(self, shared)
        other.know(self.items.keys[~torch.isin(self.items.keys, keys)])
        return other

    def forward(self, batch: WindowBatch) -> dict[str, Tensor]:
        """Cross-entropy of the codes of all targets, by position, and of the ranking of items.

        "codes" is the mean over positions; "loss" adds the weighted ranking.
        """
        hidden = self._draw_hidden(batch)
        states = self.read(batch.domains, batch.items[:, :-1], hidden)  # (B, T, M)
        wanted = batch.items[batch.targets]  # (N, L)
        logits = self.head(self.write(states[batch.targets], wanted[:, :-1])).float()
        each = F.cross_entropy(
            logits.flatten(0, 1),
            wanted.flatten(),
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        ).view(wanted.shape)
        losses = {f"code_{place + 1}": each[:, place].mean() for place in range(self.length)}
        codes = each.mean()
        if self.items is None or self.items.count == 0 or self.ranking.weight == 0:
            return {"loss": codes, **losses}
        ranking = self._ranking_loss(states, batch, hidden)
        loss = codes + self.ranking.weight * ranking
        return {"loss": loss, "codes": codes, "ranking": ranking, **losses}

    def read(self, domains: Tensor, items: Tensor, hidden: Tensor | None = None) -> Tensor:
        """What is known before every item, and after the last one.

        Shapes: domains (B,), items (B, T, L) token ids, hidden (B,), bool, histories whose items
        are read by their codes alone → (B, T + 1, M); place t has seen t items.
        """
        joined = self.join(self.embedding(items).flatten(2)).float()  # (B, T, M)
        if self.words is not None:
            joined = joined + self.words(domains, items, self._words_dropped)
        if self.items is not None:
            own = self.items(domains, items)
            joined = joined + (own if hidden is None else own * ~hidden[:, None, None])
        states = torch.cat([self.embedding(domains)[:, None], joined], dim=1)
        states = drop(states, self.sizes.dropout if self.training else 0.0)
        bias = self._nearness(states.shape[1])
        for layer in self.trunk:
            states = layer(states, bias)
        out: Tensor = self.trunk_norm(states)
        return out

    @property
    def _words_dropped(self) -> float:
        """Share of words that are left out, in training."""
        return self.ranking.dropped_words if self.training else 0.0

    def vectors_of(self, domains: Tensor, items: Tensor) -> Tensor:
        """Vectors of whole items of a catalogue. Shapes: (n,), (n, L) token ids → (n, M)."""
        assert self.items is not None
        out: Tensor = self.code_vectors(items) + self.items(domains, items)
        return out if self.words is None else out + self.words(domains, items)

    def code_vectors(self, tokens: Tensor) -> Tensor:
        """Vectors that any items have by their codes. Shapes: (n, L) token ids → (n, M)."""
        out: Tensor = self.rank_join(self.embedding(tokens).flatten(1)).float()
        return out

    def _draw_hidden(self, batch: WindowBatch) -> Tensor:
        """Histories whose items' own vectors are not shown: a share in training. (B,), bool"""
        unnamed = batch.domains != batch.shops
        if not self.training:
            return unnamed
        chance = torch.rand(len(batch.domains), device=batch.domains.device)
        return unnamed | (chance < self.ranking.hidden_share)

    def _ranking_loss(self, states: Tensor, batch: WindowBatch, hidden: Tensor) -> Tensor:
        """Cross-entropy of every known target among the known items. (B, T, M) → scalar"""
        assert self.items is not None
        rows = self.items.rows(batch.shops, batch.items)  # (B, T)
        ranked = batch.targets & (rows < self.items.count)
        alone = hidden[:, None].expand_as(ranked)[ranked]  # (N,)
        rows = rows[ranked]  # (N,)
        wanted, place = self._candidates(rows)
        vectors = self.code_vectors(self.items.tokens()[wanted])  # (n, M)
        if self.words is not None:
            vectors = vectors + self.words.of_keys(self.items.keys[wanted], self._words_dropped)
        own = vectors + self.items.own.weight[wanted]
        asked = self.rank_state(states[ranked]).float()  # (N, M)
        total: Tensor = asked.new_zeros(())
        for chosen, table in ((~alone, own), (alone, vectors)):
            total = total + self._softmax_loss(asked[chosen], table, place[chosen]).sum()
        return total / max(len(rows), 1)

    def _candidates(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Known items to tell the targets from, and where each target is among them: (n,), (N,).

        Of more than `most_items`, the targets of the batch and a random draw of the others.
        """
        assert self.items is not None
        count = self.items.count
        if count <= self.ranking.most_items:
            return torch.arange(count, device=rows.device), rows
        drawn = torch.randint(count, (self.ranking.most_items,), device=rows.device)
        wanted = torch.unique(torch.cat([rows, drawn]))
        return wanted, torch.searchsorted(wanted, rows)

    def _softmax_loss(self, asked: Tensor, vectors: Tensor, place: Tensor) -> Tensor:
        """Cross-entropy of each target. Shapes: asked (N, M), vectors (n, M), place (N,) → (N,)."""
        wanted = (asked * vectors[place]).sum(dim=1)  # (N,)
        if torch.is_autocast_enabled(asked.device.type):
            dtype = torch.get_autocast_dtype(asked.device.type)
            asked, vectors = asked.to(dtype), vectors.to(dtype)
        return chunked_logsumexp(asked, vectors) - wanted

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
