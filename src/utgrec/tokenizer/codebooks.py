"""Code vectors and how they learn: three kinds of codebook with one contract, `Codebook`.

Shapes: K codebook entries · D code dimension · M steps that a codebook quantises.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN = 8.0


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

    def settle(self, vectors: Tensor, points: Tensor) -> None:
        """Move to these vectors, (K, D), which stand for so many points each, (K,)."""
        self.place(vectors)

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
        self.projection.weight.copy_(GAIN * torch.eye(vectors.shape[1], device=vectors.device))

    @torch.no_grad()
    def settle(self, vectors: Tensor, points: Tensor) -> None:
        """Move to these vectors, (K, D), or with a frozen basis as near as a projection gets.

        The projection is the least-squares one, weighted by points (K,), held to the one before by
        as much as one point in a hundred weighs.
        """
        if self.basis.requires_grad:
            self.place(vectors)
            return
        weighted = self.basis.double() * points[:, None]  # (K, D)
        held = 0.01 * float(points.sum()) * self.basis.double().square().mean()
        eye = torch.eye(self.basis.shape[1], device=self.basis.device).double()
        inner = weighted.T @ self.basis.double() + held * eye
        outer = weighted.T @ vectors.double() + held * self.projection.weight.T.double()
        self.projection.weight.copy_(torch.linalg.solve(inner, outer).T)

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
