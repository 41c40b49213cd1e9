"""A small diffusion model of one latent given a condition, as in MAR (arXiv 2406.11838).

Shapes: M latents · C latent channels · W condition width.
"""

import math

import torch
from torch import Tensor, nn


def cosine_signal(steps: int) -> Tensor:
    """Share of signal kept (cumulative alpha) after each noising step. Returns (steps,), float32.

    The squared cosine of Nichol & Dhariwal (arXiv 2102.09672), single steps capped at 0.999.
    """

    def level(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - level((t + 1) / steps) / level(t / steps), 0.999) for t in range(steps)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32), dim=0)


class DiffusionHead(nn.Module):
    """Predicts the noise in a latent, from the noised latent, the time and a condition."""

    signal: Tensor

    def __init__(
        self, channels: int, condition: int, width: int, depth: int, steps: int, draws: int
    ) -> None:
        super().__init__()
        self.draws = draws
        self.register_buffer("signal", cosine_signal(steps), persistent=False)  # (steps,)
        self.enter = nn.Linear(channels, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(condition, width)
        self.blocks = nn.ModuleList([_Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, channels)
        # Starting from the identity and from zero noise keeps the first steps calm (MAR, DiT).
        for linear in (self.modulate, self.leave):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, noised: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """The noise in each latent. Shapes: (M, C), (M,), (M, W) → (M, C)."""
        context = self.time(_time_features(time, self.enter.out_features))
        context = torch.nn.functional.silu(context + self.condition(condition))  # (M, width)
        hidden: Tensor = self.enter(noised)
        for block in self.blocks:
            hidden = block(hidden, context)
        shift, scale = self.modulate(context).chunk(2, dim=-1)
        out: Tensor = self.leave(self.norm(hidden) * (1 + scale) + shift)
        return out

    def draw(self, pictures: int, grid: int, seed: int) -> tuple[Tensor, Tensor]:
        """Times and noises for some pictures, the same whoever uses which of them.

        Returns (pictures, draws, G) and (pictures, draws, G, C), on the CPU.
        """
        generator = torch.Generator().manual_seed(seed)
        size = (pictures, self.draws, grid)
        time = torch.randint(len(self.signal), size, generator=generator)
        return time, torch.randn(*size, self.enter.in_features, generator=generator)

    def loss(
        self,
        latents: Tensor,
        condition: Tensor,
        time: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the predicted noise, `draws` times and noises per latent.

        Shapes: (M, C), (M, W), time (draws · M,), noise (draws · M, C) → scalar; exactly 0, with a
        gradient of 0, when M is 0. Time and noise are drawn anew where they are not given.
        """
        if len(latents) == 0:
            return condition.sum() * 0.0 + self.leave.weight.sum() * 0.0
        latents = latents.repeat(self.draws, 1)
        condition = condition.repeat(self.draws, 1)
        if time is None:
            time = torch.randint(len(self.signal), (len(latents),), device=latents.device)
        if noise is None:
            noise = torch.randn_like(latents)
        kept = self.signal[time][:, None]
        noised = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        predicted = self(noised, time, condition)
        error: Tensor = predicted.float() - noise
        return error.square().mean()


class _Block(nn.Module):
    """A residual MLP whose norm is shifted, scaled and gated by the context."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        shift, scale, gate = self.modulate(context).chunk(3, dim=-1)
        out: Tensor = hidden + gate * self.mlp(self.norm(hidden) * (1 + scale) + shift)
        return out


def _time_features(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of the time at geometric frequencies. Shapes: (M,) → (M, width)."""
    half = (width + 1) // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)
    angles = time[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)[:, :width]
