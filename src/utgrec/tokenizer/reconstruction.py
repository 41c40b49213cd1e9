"""Rebuild an item's words and picture from its codes alone (paper §3.2, raw reconstruction).

Every target position is a mask token with a position, so what a decoder says depends on the codes
only. That is why one pass serves two targets: the item itself and its partner.

Shapes: B items · L codes per item · D code dimension · T text positions · V vocabulary ·
G latents of a picture · C latent channels · W decoder width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utgrec.tokenizer.diffusion import DiffusionHead
from utgrec.tokenizer.logsumexp import CHUNK, chunked_logsumexp
from utgrec.tokenizer.shapes import round_up


class Reconstruction(NamedTuple):
    """Loss of rebuilding the item itself, and of rebuilding its partner."""

    own: Tensor  # scalar
    partner: Tensor  # scalar


class Noised(NamedTuple):
    """Latents of some pictures, and the noise with which they are to be learned."""

    latents: Tensor  # (M, G, C)
    time: Tensor  # (M, draws, G), int64, steps of the diffusion
    noise: Tensor  # (M, draws, G, C)

    def of(self, rows: Tensor) -> "Noised":
        """Those of some rows."""
        return Noised(self.latents[rows], self.time[rows], self.noise[rows])


class MaskDecoder(nn.Module):
    """One bidirectional Transformer layer over [states; mask tokens with positions].

    Masks are the same for all items, so what they see of one another is computed once for all; an
    item adds its codes. All masks are seen always, so what is said of an item does not depend on
    the items beside it. Rows of the codes are left out: nothing reads them after the attention.
    """

    def __init__(self, dim: int, width: int, heads: int, code_length: int, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(dim, width)
        self.code_position = nn.Parameter(torch.randn(code_length, width) * 0.02)  # (L, W)
        self.mask = nn.Parameter(torch.randn(positions, width) * 0.02)  # (P, W)
        self.attention_norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, places: Tensor | None = None) -> Tensor:
        """What stands at all positions, or only at some places: position + P · row of an item.

        Shapes: states (B, L, D), places (M,) → (B, P, W) or (M, W).
        """
        hidden = self._attend(self.enter(states) + self.code_position)  # (B, P, W)
        mask: Tensor = self.mask
        if places is not None:
            hidden = hidden.flatten(0, 1).index_select(0, places)
            mask = F.embedding(places % len(mask), mask)
        hidden = mask + self.out(hidden)
        out: Tensor = self.norm(hidden + self.feed_forward(hidden))
        return out

    def _attend(self, codes: Tensor) -> Tensor:
        """What every mask takes from masks and codes. Shapes: (B, L, W) → (B, P, W)."""
        width = codes.shape[-1]
        query, key, value = (
            self._by_head(part)
            for part in self.mix(self.attention_norm(self.mask))[None].chunk(3, dim=-1)
        )  # (1, heads, P, W / heads)
        _, code_key, code_value = (
            self._by_head(part) for part in self.mix(self.attention_norm(codes)).chunk(3, dim=-1)
        )  # (B, heads, L, W / heads)
        query = query * (width // self.heads) ** -0.5
        among = (query @ key.transpose(2, 3)).float()  # (1, heads, P, P)
        masks = among.softmax(dim=-1).to(value.dtype) @ value  # (1, heads, P, W / heads)
        # All masks together weigh as much as one key with the log-sum-exp of their scores.
        together = among.logsumexp(dim=-1, keepdim=True)  # (1, heads, P, 1)
        scores = (query @ code_key.transpose(2, 3)).float()  # (B, heads, P, L)
        weights = torch.cat([scores, together.expand(len(codes), -1, -1, -1)], dim=-1)
        weights = weights.softmax(dim=-1).to(value.dtype)
        mixed: Tensor = weights[..., :-1] @ code_value + weights[..., -1:] * masks
        return mixed.transpose(1, 2).flatten(2)

    def _by_head(self, part: Tensor) -> Tensor:
        """Shapes: (B, n, W) → (B, heads, n, W / heads)."""
        batch, length, width = part.shape
        return part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class TextDecoder(nn.Module):
    """Every text token from the codes; the output matrix is the backbone's embedding matrix."""

    def __init__(
        self, dim: int, width: int, heads: int, code_length: int, positions: int, hidden: int
    ) -> None:
        super().__init__()
        # Batches are as wide as the next round number (see `shapes`), so the masks must be, too.
        self.decoder = MaskDecoder(dim, width, heads, code_length, round_up(positions))
        self.up = nn.Linear(width, hidden)

    def forward(
        self, states: Tensor, tokens: Tensor, others: Tensor, embeddings: Tensor
    ) -> Reconstruction:
        """Cross-entropy per text token, of the item's own text and of its partner's.

        Shapes: (B, L, D), tokens and others (B, T), the item's and its partner's, with -100 beyond
        the text and without partner; embeddings (V, H) → scalars.
        """
        wanted = (tokens >= 0) | (others >= 0)  # (B, T)
        if not bool(wanted.any()):
            zero = states.sum() * 0.0
            return Reconstruction(zero, zero)
        items, positions = torch.nonzero(wanted, as_tuple=True)  # (M,) twice
        places, own, other = (
            items * len(self.decoder.mask) + positions,
            tokens[wanted],
            others[wanted],
        )
        # Filled up to whole chunks, with rows that have no target: fewer shapes to compile.
        spare = (0, round_up(len(places), CHUNK) - len(places))
        own, other = (F.pad(target, spare, value=-100) for target in (own, other))
        hidden = self.up(self.decoder(states, F.pad(places, spare)))  # (M, H)
        embeddings = embeddings.to(hidden.dtype)
        # -log p(target) = log-sum-exp - logit of the target; the sum serves both targets.
        total = chunked_logsumexp(hidden, embeddings)  # (M,)
        return Reconstruction(
            _mean_loss(total, hidden, own, embeddings),
            _mean_loss(total, hidden, other, embeddings),
        )


class ImageDecoder(nn.Module):
    """The picture's latents from the codes, through a diffusion head."""

    def __init__(
        self, dim: int, width: int, heads: int, code_length: int, grid: int, head: DiffusionHead
    ) -> None:
        super().__init__()
        self.decoder = MaskDecoder(dim, width, heads, code_length, grid)
        self.head = head
        self.grid = grid

    def forward(
        self, states: Tensor, own: Noised, own_rows: Tensor, other: Noised, other_rows: Tensor
    ) -> Reconstruction:
        """Noise-prediction error of the item's own latents and of its partner's.

        Args:
            states: (B, L, D).
            own: latents of those items that have a picture, (M, G, C), and their noise.
            own_rows: (M,), rows of `states` that they belong to.
            other: the same of those items' partners that have a picture.
            other_rows: rows of `states` whose partners they are.

        Returns:
            Scalars; exactly 0 where nobody has a picture.
        """
        used, place = torch.unique(torch.cat([own_rows, other_rows]), return_inverse=True)
        hidden = self.decoder(states[used])  # (used, G, W)
        return Reconstruction(
            self.loss(hidden[place[: len(own_rows)]], own),
            self.loss(hidden[place[len(own_rows) :]], other),
        )

    def loss(self, hidden: Tensor, target: Noised) -> Tensor:
        """Noise-prediction error of some pictures. Shape: (M, G, W) → scalar."""
        return self.head.loss(
            target.latents.flatten(0, 1),
            hidden.flatten(0, 1),
            target.time.transpose(0, 1).flatten(),
            target.noise.transpose(0, 1).flatten(0, 2),
        )


def _mean_loss(total: Tensor, hidden: Tensor, targets: Tensor, embeddings: Tensor) -> Tensor:
    """Mean cross-entropy over targets that are not -100; 0 if there is none.

    Shapes: total (M,), the log-sum-exp of the logits; hidden (M, H), targets (M,),
    embeddings (V, H) → scalar.
    """
    given = targets >= 0
    logits = (hidden[given] * embeddings[targets[given]]).float().sum(dim=-1)
    return (total[given] - logits).sum() / given.sum().clamp(min=1)
