"""Turn item states into codes, and codes back into vectors.

A *root* codebook quantises the first step, one *leaf* codebook all later ones (paper §3.2). Three
kinds of codebook share one contract, `Codebook`.

Shapes: B items · L codes per item · D code dimension · K codebook entries · M steps of a codebook.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utgrec.config import require

GAIN = 8.0


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


class Quantized(NamedTuple):
    """States rebuilt from codes."""

    states: Tensor  # (B, L, D), sums of code vectors, with the gradient of the input
    codes: Tensor  # (B, L), int64, each counted within its own codebook
    loss: Tensor  # scalar


class Codebook(nn.Module, ABC):
    """K code vectors and how they learn."""

    @property
    @abstractmethod
    def vectors(self) -> Tensor:
        """The code vectors, (K, D)."""

    @abstractmethod
    def place(self, vectors: Tensor) -> None:
        """Start from these code vectors, (K, D)."""

    @abstractmethod
    def replace(self, codes: Tensor, vectors: Tensor) -> None:
        """Give some codes new vectors. Shapes: (M,), (M, D)."""

    def loss(self, steps: Tensor, chosen: Tensor) -> Tensor:
        """Pull the chosen code vectors to the steps. Shapes: (M, D), (M, D) → scalar."""
        return F.mse_loss(chosen, steps.detach())

    def observe(self, steps: Tensor, codes: Tensor) -> None:
        """See which codes were chosen in training. Shapes: (M, D), (M,)."""


class SimVQCodebook(Codebook):
    """K code vectors kept as basis × projection: one step on the projection moves all of them.

    Source: SimVQ (arXiv 2411.02038). Adapting to a new domain freezes the basis.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(size, dim) * dim**-0.5)  # (K, D)
        self.projection = nn.Linear(dim, dim, bias=False)

    @property
    def vectors(self) -> Tensor:
        """The code vectors, (K, D)."""
        projected: Tensor = self.projection(self.basis)
        return projected

    @torch.no_grad()
    def place(self, vectors: Tensor) -> None:
        """Start from these code vectors, (K, D)."""
        # Adam moves every entry by about the learning rate. A large projection over a small basis
        # lets code vectors follow states that move GAIN times as fast.
        self.basis.copy_(vectors / GAIN)
        self.projection.weight.copy_(GAIN * torch.eye(vectors.shape[1]))

    @torch.no_grad()
    def replace(self, codes: Tensor, vectors: Tensor) -> None:
        """Give some codes new vectors. Shapes: (M,), (M, D)."""
        # Not lstsq: its last bits depend on where its memory happens to lie, and a resumed run
        # would not be the run it continues.
        self.basis[codes] = torch.linalg.solve(self.projection.weight, vectors.T).T


class VQCodebook(Codebook):
    """K free code vectors, each moved only when it is chosen."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(size, dim) * dim**-0.5)  # (K, D)

    @property
    def vectors(self) -> Tensor:
        """The code vectors, (K, D)."""
        return self.table

    @torch.no_grad()
    def place(self, vectors: Tensor) -> None:
        """Start from these code vectors, (K, D)."""
        self.table.copy_(vectors)

    @torch.no_grad()
    def replace(self, codes: Tensor, vectors: Tensor) -> None:
        """Give some codes new vectors. Shapes: (M,), (M, D)."""
        self.table[codes] = vectors


class EMACodebook(Codebook):
    """K code vectors that are moving averages of the steps they were chosen for."""

    table: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("table", torch.randn(size, dim) * dim**-0.5)  # (K, D)
        self.register_buffer("counts", torch.ones(size))  # (K,)
        self.register_buffer("sums", self.table.clone())  # (K, D)

    @property
    def vectors(self) -> Tensor:
        """The code vectors, (K, D)."""
        return self.table

    def place(self, vectors: Tensor) -> None:
        """Start from these code vectors, (K, D)."""
        self.table.copy_(vectors)
        self.sums.copy_(vectors)
        self.counts.fill_(1.0)

    def replace(self, codes: Tensor, vectors: Tensor) -> None:
        """Give some codes new vectors. Shapes: (M,), (M, D)."""
        self.table[codes] = vectors
        self.sums[codes] = vectors
        self.counts[codes] = 1.0

    def loss(self, steps: Tensor, chosen: Tensor) -> Tensor:
        """Averages need no gradient, so there is nothing to pull. Returns 0."""
        return steps.new_zeros(())

    @torch.no_grad()
    def observe(self, steps: Tensor, codes: Tensor) -> None:
        """Move the averages. Shapes: (M, D), (M,)."""
        chosen = F.one_hot(codes, len(self.table)).to(steps.dtype)  # (M, K)
        self.counts.mul_(self.decay).add_(chosen.sum(dim=0), alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(chosen.T @ steps, alpha=1 - self.decay)
        self.table.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])


CODEBOOKS: dict[str, Callable[[int, int], Codebook]] = {
    "simvq": SimVQCodebook,
    "vq": VQCodebook,
    "ema": EMACodebook,
}


class TreeQuantizer(nn.Module):
    """States → codes → states, with a root codebook for the first step and a leaf for the others.

    Everything is computed in float32, whatever the caller's autocast: nearest neighbours found in
    bfloat16 are wrong for up to 4 % of the codes.
    """

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
        self.leaf: Codebook = kind(config.leaf_size, config.dim)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        # The newest steps seen in training: enough to give every leaf one of its own.
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
            steps = to_steps(states)  # (B, L, D)
            codes = self.nearest(steps)  # (B, L)
            if self.training:
                self._remember(steps.detach(), codes)
            if self.warming_up:
                return Quantized(states, codes, states.new_zeros(()))
            chosen = self.embed(codes)  # (B, L, D)
            loss = 0.5 * (
                self._loss(self.root, steps[:, :1], codes[:, :1], chosen[:, :1])
                + self._loss(self.leaf, steps[:, 1:], codes[:, 1:], chosen[:, 1:])
            )
            rebuilt = chosen.cumsum(dim=1)
            through = states + (rebuilt - states).detach()
            return Quantized(through, codes, loss)

    @torch.no_grad()
    def nearest(self, steps: Tensor) -> Tensor:
        """The nearest code of every step. Shapes: (B, L, D) → (B, L)."""
        root = squared_distances(steps[:, :1], self.root.vectors).argmin(dim=-1)
        leaf = squared_distances(steps[:, 1:], self.leaf.vectors).argmin(dim=-1)
        return torch.cat([root, leaf], dim=1)

    def embed(self, codes: Tensor) -> Tensor:
        """Code vectors of codes; their running sum along L is the state. (B, L) → (B, L, D)."""
        root = F.embedding(codes[:, :1], self.root.vectors)
        leaf = F.embedding(codes[:, 1:], self.leaf.vectors)
        return torch.cat([root, leaf], dim=1)

    @torch.no_grad()
    def prepare_step(self) -> None:
        """Before a training step: place the codebooks after the warm-up, revive dead codes."""
        config, after = self.config, int(self.step) - self.config.warmup_steps
        seen = self.seen[: int(self.seen_count)]  # (M, L, D)
        if len(seen) == 0 or after < 0:
            return
        if after == 0 and config.start_from_states:
            self.root.place(_spread(seen[:, 0], config.root_size))
            self.leaf.place(_spread(seen[:, 1:].flatten(0, 1), config.leaf_size))
        elif config.revive_every and after > 0 and after % config.revive_every == 0:
            _revive(self.root, self.root_chosen, seen[:, 0])
            _revive(self.leaf, self.leaf_chosen, seen[:, 1:].flatten(0, 1))
        elif after > 0:
            return
        self.root_chosen.zero_()
        self.leaf_chosen.zero_()

    def count_step(self) -> None:
        """Note that a training step was taken."""
        self.step += 1

    def _loss(self, book: Codebook, steps: Tensor, codes: Tensor, chosen: Tensor) -> Tensor:
        flat, vectors = steps.flatten(0, 1), chosen.flatten(0, 1)
        if self.training:
            book.observe(flat.detach(), codes.flatten())
        commitment = F.mse_loss(flat, vectors.detach())
        return book.loss(flat, vectors) + self.config.commitment * commitment

    def _remember(self, steps: Tensor, codes: Tensor) -> None:
        newest = torch.cat([steps, self.seen[: int(self.seen_count)]])[: len(self.seen)]
        self.seen[: len(newest)] = newest
        self.seen_count.fill_(len(newest))
        self.root_chosen[codes[:, 0]] = True
        self.leaf_chosen[codes[:, 1:].flatten()] = True


def to_steps(states: Tensor) -> Tensor:
    """Differences along the code axis: s_1 = z_1, s_l = z_l − z_(l−1). (B, L, D) → (B, L, D)."""
    return torch.cat([states[:, :1], states[:, 1:] - states[:, :-1]], dim=1)


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
    book.replace(dead, points[torch.multinomial(error, len(dead))])


def _spread(points: Tensor, count: int, rounds: int = 10) -> Tensor:
    """`count` cluster centres of `points` by k-means, started from a random choice of them.

    Centres without points, and centres beyond the number of points, get a random point with a
    little noise, so that no two are equal. Shapes: (M, D) → (count, D).
    """
    choice = torch.randint(len(points), (count,))
    choice[: min(count, len(points))] = torch.randperm(len(points))[:count]
    noise = 0.01 * points.std(dim=0, correction=0) * torch.randn(count, points.shape[1])
    centres = points[choice] + noise
    for _ in range(rounds):
        nearest = squared_distances(points, centres).argmin(dim=-1)  # (M,)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)
        taken = sizes > 0
        centres[taken] = sums[taken] / sizes[taken, None]
    return centres
