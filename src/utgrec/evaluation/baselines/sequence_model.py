"""SASRec and BERT4Rec: one Transformer over item ids, read forwards or both ways.

SASRec (Kang and McAuley 2018, arXiv 1808.09781) guesses the item after each item of a window;
BERT4Rec (Sun et al. 2019, arXiv 1904.06690) hides items and guesses them from both sides. The loss
is the softmax over the catalogue, which is what made tuned SASRec beat BERT4Rec (Klenitskiy and
Vasilev 2023, arXiv 2309.07602), or over a sample of it. Layers are normalised at their entrance,
and positions are counted from the newest item.

Attention is written out: rows are padded on the right, so a causal mask hides the padding too, and
the fused kernels are slower in the backward pass on a CPU.

Shapes: B windows · T items · M guessed places · N items of the catalogue · D width · A heads.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utgrec.catalog import Ints
from utgrec.data.split import Split
from utgrec.evaluation.baselines.sequence_config import (
    BERT4RecConfig,
    SASRecConfig,
    SequenceConfig,
)
from utgrec.evaluation.baselines.windows import Windows, cut_windows, pad_right
from utgrec.evaluation.protocol import Query, Recommendations
from utgrec.evaluation.topk import rank_scores
from utgrec.tokenizer.logsumexp import chunked_logsumexp

_EXTRA = 2  # rows of the embedding that are no items: padding, and the hidden item


class SequenceModel(nn.Module):
    """Item vectors, positions and layers; a subclass says what is guessed."""

    causal: bool

    def __init__(self, item_count: int, config: SequenceConfig) -> None:
        super().__init__()
        self.item_count = item_count
        self.config = config
        self.padding, self.hidden_item = item_count, item_count + 1
        self.items = nn.Embedding(item_count + _EXTRA, config.width)
        self.positions = nn.Embedding(config.max_items + 1, config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=config.width**-0.5)

    def windows(self, split: Split) -> Windows:
        """What the model trains on."""
        raise NotImplementedError

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """The loss of a batch of windows. Shapes: (B, T) → {"loss": scalar}."""
        raise NotImplementedError

    def encode_histories(self, histories: Sequence[Ints]) -> Tensor:
        """What is expected after each history, as a vector. Shapes: B histories → (B, D)."""
        raise NotImplementedError

    def read(self, tokens: Tensor) -> Tensor:
        """What every place says after reading its window. Shapes: (B, T) → (B, T, D)."""
        present = tokens != self.padding  # (B, T)
        lengths = present.sum(dim=1, keepdim=True)  # (B, 1)
        ages = (lengths - 1 - torch.arange(tokens.shape[1], device=tokens.device)).clamp(min=0)
        vectors = self.items(tokens) + self.positions(ages)  # (B, T, D)
        states = F.dropout(vectors, self.config.dropout, self.training)
        mask = self._mask(present)
        for layer in self.layers:
            states = layer(states, mask)
        return self.norm(states)  # type: ignore[no-any-return]

    def softmax_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the catalogue. Shapes: (M, D), (M,) → scalar."""
        vectors = self.items.weight[: self.item_count]  # (N, D)
        wanted = (states * vectors[targets]).sum(dim=1)  # (M,)
        if torch.is_autocast_enabled(states.device.type):
            dtype = torch.get_autocast_dtype(states.device.type)
            states, vectors = states.to(dtype), vectors.to(dtype)
        return (chunked_logsumexp(states, vectors) - wanted).mean()

    @torch.no_grad()
    def scores(self, histories: Sequence[Ints]) -> Tensor:
        """How likely each item is next, up to a constant. Shapes: B histories → (B, N)."""
        return self.encode_histories(histories) @ self.items.weight[: self.item_count].T

    def _mask(self, present: Tensor) -> Tensor:
        """Added to attention scores: 0, or -inf where a place must not be read."""
        if self.causal:  # padding comes last, so nothing looks at it
            length = present.shape[1]
            hide = torch.ones(length, length, dtype=torch.bool, device=present.device).triu(1)
            return torch.zeros(length, length, device=present.device).masked_fill(hide, -torch.inf)
        return torch.zeros(present.shape, device=present.device).masked_fill(
            ~present, torch.finfo(torch.float32).min
        )[:, None, None]  # (B, 1, 1, T)


class SASRec(SequenceModel):
    """Reads forwards; every place guesses the item after it."""

    causal = True

    def __init__(self, item_count: int, config: SASRecConfig) -> None:
        super().__init__(item_count, config)
        self.negatives = config.negatives

    def windows(self, split: Split) -> Windows:
        """One item longer than what is read: the last one is only guessed."""
        return cut_windows(split, self.config.max_items + 1, overlap=1)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of every item but the first of each window."""
        targets = tokens[:, 1:]
        guessed = targets != self.padding  # (B, T - 1)
        states = self.read(tokens[:, :-1].masked_fill(~guessed, self.padding))
        loss = self.sampled_loss if self.negatives else self.softmax_loss
        return {"loss": loss(states[guessed], targets[guessed])}

    def sampled_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy against items drawn evenly, the same for all places of the batch.

        The drawn ones stand for all others, so they count (N - 1) / drawn times: the expected sum
        is that of the whole softmax. Shapes: (M, D), (M,) → scalar.
        """
        vectors = self.items.weight
        drawn = torch.randint(self.item_count, (self.negatives,), device=states.device)
        wanted = (states * vectors[targets]).sum(dim=1, keepdim=True)  # (M, 1)
        others = (states @ vectors[drawn].T).float()  # (M, negatives)
        same = targets[:, None] == drawn
        kept = (~same).sum(dim=1, keepdim=True).clamp(min=1)
        others = others + torch.log(torch.tensor(float(self.item_count - 1)) / kept)
        logits = torch.cat([wanted.float(), others.masked_fill(same, -torch.inf)], dim=1)
        return (logits.logsumexp(dim=1) - logits[:, 0]).mean()

    def encode_histories(self, histories: Sequence[Ints]) -> Tensor:
        """The state of the newest item."""
        kept = [np.asarray(history[-self.config.max_items :]) for history in histories]
        states = self.read(pad_right(kept, self.padding))
        newest = torch.tensor([max(len(row), 1) - 1 for row in kept])
        return states[torch.arange(len(kept)), newest]


class BERT4Rec(SequenceModel):
    """Reads both ways; hidden places guess what was there."""

    causal = False

    def __init__(self, item_count: int, config: BERT4RecConfig) -> None:
        super().__init__(item_count, config)
        self.mask_share, self.last_share = config.mask_share, config.last_share

    def windows(self, split: Split) -> Windows:
        """As long as what is read."""
        return cut_windows(split, self.config.max_items, overlap=0)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the hidden items; one per window at least."""
        present = tokens != self.padding
        chance = torch.rand(tokens.shape, device=tokens.device).masked_fill(~present, 2.0)
        hidden = chance < self.mask_share
        # A window without a hidden item would teach nothing: hide the one that came nearest.
        hidden |= chance == chance.min(dim=1, keepdim=True).values
        # Some windows hide their newest item alone: that is what is asked later.
        newest = torch.arange(tokens.shape[1], device=tokens.device) == present.sum(1, True) - 1
        alone = torch.rand(len(tokens), 1, device=tokens.device) < self.last_share
        hidden = torch.where(alone, newest, hidden)
        states = self.read(tokens.masked_fill(hidden, self.hidden_item))
        return {"loss": self.softmax_loss(states[hidden], tokens[hidden])}

    def encode_histories(self, histories: Sequence[Ints]) -> Tensor:
        """The state of a hidden item after the newest one."""
        room = self.config.max_items - 1
        rows = [np.append(history[-room:], self.hidden_item) for history in histories]
        states = self.read(pad_right(rows, self.padding))
        return states[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]


class SequenceSystem:
    """A trained sequence model in the harness."""

    def __init__(self, model: SequenceModel, name: str) -> None:
        self.name = name
        self.model = model.eval()

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        """The k best-scored items of the whole catalogue."""
        training = self.model.training
        self.model.eval()
        scores = self.model.scores(query.histories).numpy()
        self.model.train(training)
        return Recommendations(*rank_scores(scores, query.histories, k, exclude_seen=exclude_seen))


class _Layer(nn.Module):
    """Self-attention and a feed-forward, each normalised at its entrance and added."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.dropout = config.dropout
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Shapes: (B, T, D), mask that broadcasts to (B, A, T, T) → (B, T, D)."""
        mixed = self.queries_keys_values(self.attention_norm(states))  # (B, T, 3 D)
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in mixed.chunk(3, dim=2)
        )  # each (B, A, T, D / A)
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5  # (B, A, T, T)
        shares = (scores.float() + mask).softmax(dim=-1).to(value.dtype)
        read = self.out((shares @ value).transpose(1, 2).flatten(2))
        states = states + F.dropout(read, self.dropout, self.training)
        fed = self.feed(self.feed_norm(states))
        return states + F.dropout(fed, self.dropout, self.training)
