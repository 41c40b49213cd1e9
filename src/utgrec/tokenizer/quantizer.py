"""Turn item states into codes, and codes back into vectors.

A *root* codebook quantises the first step, one *leaf* codebook all later ones (paper §3.2).
Without a tree both are one codebook.

Shapes: B items · L codes per item · D code dimension · K codebook entries · M points.
"""

import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utgrec.config import require
from utgrec.tokenizer.codebooks import CODEBOOKS, Codebook, SimVQCodebook


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Sizes and kind of the two codebooks."""

    kind: str = "simvq"
    """simvq (basis × projection), vq (plain vectors) or ema (moving averages of states)."""
    root_size: int = 256
    """Entries of the root codebook."""
    leaf_size: int = 512
    """Entries of the leaf codebook."""
    code_length: int = 3
    """Codes per item, L."""
    dim: int = 128
    """Width of states and code vectors, D."""
    commitment: float = 0.25
    """Weight of pulling states to their code vectors."""
    warmup_steps: int = 300
    """Optimiser steps in which states pass through unquantised."""
    start_from_states: bool = True
    """After the warm-up, place the code vectors on states seen in it, instead of at random."""
    revive_every: int = 50
    """Optimiser steps after which codes that nothing chose get a state as vector; 0 = never."""
    settle_rounds: int = 12
    """Rounds of k-means over all items after training; 0 leaves the codes as trained."""
    tree: bool = True
    """Whether the first code has a codebook of its own; otherwise all positions share one."""
    freeze_basis: bool = False
    """Whether the basis of simvq codebooks stays as it is and only its projection is trained."""

    def __post_init__(self) -> None:
        require(self.kind in CODEBOOKS, f"kind is one of {', '.join(CODEBOOKS)}, got {self.kind!r}")
        require(
            2 <= self.root_size <= 32768 and 2 <= self.leaf_size <= 32768,
            f"codebooks have 2 to 32768 entries, got {self.root_size} and {self.leaf_size}",
        )
        require(self.code_length >= 2, f"code_length must be at least 2, got {self.code_length}")
        require(self.dim >= 1, f"dim must be at least 1, got {self.dim}")
        require(self.warmup_steps >= 0, f"warmup_steps is at least 0, got {self.warmup_steps}")
        require(self.revive_every >= 0, f"revive_every is at least 0, got {self.revive_every}")
        require(self.settle_rounds >= 0, f"settle_rounds is at least 0, got {self.settle_rounds}")
        require(
            self.tree or self.root_size == self.leaf_size,
            "without a tree all positions share one codebook, so root_size and leaf_size must be "
            f"equal, got {self.root_size} and {self.leaf_size}",
        )
        # Both would write new vectors into the basis.
        require(
            not self.freeze_basis
            or (self.kind == "simvq" and not self.start_from_states and self.revive_every == 0),
            "a frozen basis needs kind='simvq', start_from_states=False and revive_every=0, got "
            f"kind={self.kind!r}, start_from_states={self.start_from_states}, "
            f"revive_every={self.revive_every}",
        )

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Entries of the codebook of each position, (L,)."""
        return (self.root_size, *[self.leaf_size] * (self.code_length - 1))


class Quantized(NamedTuple):
    """States rebuilt from codes."""

    states: Tensor  # (B, L, D), sums of code vectors, with the gradient of the input
    codes: Tensor  # (B, L), int64, each counted within its own codebook
    loss: Tensor  # scalar


class TreeQuantizer(nn.Module):
    """States → codes → states, with a root codebook for the first step and a leaf for the others.

    Each later step is the difference to what the codes so far rebuild, so it also carries what they
    missed. (The paper takes differences of states; the error of the first code is then lost for
    good. docs/tokenizer.md has the measurement.)

    Everything is computed in float32, whatever the caller's autocast: nearest neighbours found in
    bfloat16 are wrong for up to 4 % of the codes.
    """

    # Codes are placed by writing into the weights, which therefore must not be cut into shards.
    whole = True

    step: Tensor
    seen: Tensor
    seen_count: Tensor
    root_chosen: Tensor
    leaf_chosen: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        kind = CODEBOOKS[config.kind]
        self.root: Codebook = kind(config.root_size, config.dim)
        self.leaf: Codebook = kind(config.leaf_size, config.dim) if config.tree else self.root
        if config.freeze_basis:
            for book in (self.root, self.leaf):
                assert isinstance(book, SimVQCodebook)
                book.basis.requires_grad_(False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        # The newest states seen in training: enough to give every leaf one of its own.
        keep = 4 * max(config.root_size, config.leaf_size)
        self.register_buffer("seen", torch.zeros(keep, config.code_length, config.dim))
        self.register_buffer("seen_count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("root_chosen", torch.zeros(config.root_size, dtype=torch.bool))
        self.register_buffer("leaf_chosen", torch.zeros(config.leaf_size, dtype=torch.bool))

    @property
    def warming_up(self) -> bool:
        """Whether states still pass through unquantised in training."""
        return self.training and int(self.step) < self.config.warmup_steps

    def forward(self, states: Tensor) -> Quantized:
        """Quantise states. Shapes: (B, L, D) → (B, L, D), (B, L), scalar."""
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            codes = self.nearest(states)  # (B, L)
            if self.training:
                self._remember(states.detach(), codes)
            if self.warming_up:
                return Quantized(states, codes, states.new_zeros(()))
            chosen = self.embed(codes)  # (B, L, D)
            rebuilt = chosen.cumsum(dim=1)  # (B, L, D)
            steps = states - (rebuilt - chosen).detach()  # (B, L, D)
            loss = 0.5 * (
                self._loss(self.root, steps[:, :1], codes[:, :1], chosen[:, :1])
                + self._loss(self.leaf, steps[:, 1:], codes[:, 1:], chosen[:, 1:])
            )
            through = states + (rebuilt - states).detach()
            return Quantized(through, codes, loss)

    @torch.no_grad()
    def nearest(self, states: Tensor) -> Tensor:
        """The nearest code at every position, one after the other. Shapes: (B, L, D) → (B, L)."""
        rebuilt = torch.zeros_like(states[:, 0])  # (B, D)
        codes = []
        for place in range(states.shape[1]):
            vectors = (self.leaf if place else self.root).vectors
            code = squared_distances(states[:, place] - rebuilt, vectors).argmin(dim=-1)  # (B,)
            rebuilt = rebuilt + vectors[code]
            codes.append(code)
        return torch.stack(codes, dim=1)

    def embed(self, codes: Tensor) -> Tensor:
        """Code vectors of codes; their running sum along L is the state. (B, L) → (B, L, D)."""
        root = F.embedding(codes[:, :1], self.root.vectors)
        leaf = F.embedding(codes[:, 1:], self.leaf.vectors)
        return torch.cat([root, leaf], dim=1)

    @torch.no_grad()
    def to_steps(self, states: Tensor) -> Tensor:
        """What each position's codebook has to quantise. Shapes: (B, L, D) → (B, L, D)."""
        chosen = self.embed(self.nearest(states))
        return states - (chosen.cumsum(dim=1) - chosen)

    @torch.no_grad()
    def prepare_step(self) -> bool:
        """Before a training step: place the codebooks after the warm-up, revive dead codes.

        Returns whether codes were moved.
        """
        config, after = self.config, int(self.step) - self.config.warmup_steps
        seen = self.seen[: int(self.seen_count)]  # (M, L, D)
        if len(seen) == 0 or after < 0:
            return False
        if after == 0 and config.start_from_states:
            self.root.place(_spread(seen[:, 0], config.root_size))
            # Later positions see what the earlier ones leave, so they are placed one by one.
            first = 1 if config.tree else 0
            for place in range(1, seen.shape[1]):
                steps = self.to_steps(seen)[:, first : place + 1]
                self.leaf.place(_spread(steps.flatten(0, 1), config.leaf_size))
        elif config.revive_every and after > 0 and after % config.revive_every == 0:
            steps = self.to_steps(seen)
            if config.tree:
                _revive(self.root, self.root_chosen, steps[:, 0])
                _revive(self.leaf, self.leaf_chosen, steps[:, 1:].flatten(0, 1))
            else:
                _revive(self.root, self.root_chosen | self.leaf_chosen, steps.flatten(0, 1))
        elif after > 0:
            return False
        self.root_chosen.zero_()
        self.leaf_chosen.zero_()
        return True

    @torch.no_grad()
    def settle(self, states: Tensor) -> None:
        """After training, move every code vector to the middle of what it stands for: k-means.

        In training a codebook runs after states that move; once they rest, a few rounds over all
        items find codes that lose much less (docs/tokenizer.md has figures). The leaf serves all
        later positions at once, each with what the codes before it leave. Vectors of a frozen basis
        only move together, through the projection. Shape: (M, L, D).
        """
        states, first = states.float(), 1 if self.config.tree else 0
        for _ in range(self.config.settle_rounds if self.config.tree else 0):
            _settle(self.root, states[:, 0])
        for _ in range(self.config.settle_rounds):
            _settle(self.leaf, self.to_steps(states)[:, first:].flatten(0, 1))

    def count_step(self) -> None:
        """Note that a training step was taken."""
        self.step += 1

    def _loss(self, book: Codebook, steps: Tensor, codes: Tensor, chosen: Tensor) -> Tensor:
        flat, vectors = steps.flatten(0, 1), chosen.flatten(0, 1)
        if self.training:
            book.observe(flat.detach(), codes.flatten())
        commitment = F.mse_loss(flat, vectors.detach())
        return book.loss(flat, vectors) + self.config.commitment * commitment

    def _remember(self, states: Tensor, codes: Tensor) -> None:
        newest = torch.cat([states, self.seen[: int(self.seen_count)]])[: len(self.seen)]
        self.seen[: len(newest)] = newest
        self.seen_count.fill_(len(newest))
        self.root_chosen[codes[:, 0]] = True
        self.leaf_chosen[codes[:, 1:].flatten()] = True


def squared_distances(steps: Tensor, vectors: Tensor) -> Tensor:
    """Squared Euclidean distances. Shapes: (..., D), (K, D) → (..., K)."""
    return (
        steps.square().sum(dim=-1, keepdim=True)
        - 2 * steps @ vectors.T
        + vectors.square().sum(dim=-1)
    )


def _revive(book: Codebook, chosen: Tensor, points: Tensor) -> None:
    """Give codes that were not chosen the vectors of points that are badly served.

    A point is drawn with a probability proportional to its squared distance to its code, as
    k-means++ does. Shapes: chosen (K,), points (M, D).
    """
    dead = torch.nonzero(~chosen).squeeze(1)[: len(points)]
    if len(dead) == 0:
        return
    error = squared_distances(points, book.vectors).min(dim=-1).values.clamp(min=1e-12)  # (M,)
    drawn = torch.multinomial(error.cpu(), len(dead))  # on the CPU: the same on every device
    book.replace(dead, points[drawn])


def _settle(book: Codebook, points: Tensor) -> None:
    """One round of k-means. A code without points moves to a badly served one, where it may.

    Shape: (M, D).
    """
    centres = book.vectors.clone()
    nearest, error = _nearest_centre(points, centres)
    sums = torch.zeros_like(centres).index_add_(0, nearest, points)
    sizes = torch.bincount(nearest, minlength=len(centres))
    taken = sizes > 0
    centres[taken] = sums[taken] / sizes[taken, None]
    # The worst points first, each once, so that the result does not hang on chance.
    empty = torch.nonzero(~taken).squeeze(1)[: len(points)]
    centres[empty] = points[error.argsort(descending=True, stable=True)[: len(empty)]]
    book.settle(centres, sizes)


def _nearest_centre(points: Tensor, centres: Tensor, at_once: int = 4096) -> tuple[Tensor, Tensor]:
    """Nearest centre of every point and the squared distance to it. (M, D), (K, D) → (M,) twice."""
    found = [squared_distances(part, centres).min(dim=-1) for part in torch.split(points, at_once)]
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found])


def _spread(points: Tensor, count: int, rounds: int = 10) -> Tensor:
    """`count` cluster centres of `points` by k-means, started from a random choice of them.

    Centres without points, and centres beyond the number of points, get a random point with a
    little noise, so that no two are equal. Shapes: (M, D) → (count, D).
    """
    # Drawn on the CPU, so that the choice does not depend on the device.
    choice = torch.randint(len(points), (count,))
    choice[: min(count, len(points))] = torch.randperm(len(points))[:count]
    noise = torch.randn(count, points.shape[1]).to(points.device)
    noise = 0.01 * points.std(dim=0, correction=0) * noise
    centres = points[choice] + noise
    for _ in range(rounds):
        nearest = squared_distances(points, centres).argmin(dim=-1)  # (M,)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)
        taken = sizes > 0
        centres[taken] = sums[taken] / sizes[taken, None]
    return centres
