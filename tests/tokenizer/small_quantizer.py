"""Small quantisers and random states."""

import torch

from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer

KINDS = ["simvq", "vq", "ema"]


def make(kind: str = "simvq", **settings) -> TreeQuantizer:
    """A small quantiser that is past its warm-up."""
    torch.manual_seed(0)
    values = {"root_size": 5, "leaf_size": 7, "dim": 4, "warmup_steps": 0, **settings}
    return TreeQuantizer(QuantizerConfig(kind=kind, **values))


def draw(count: int = 6, length: int = 3, dim: int = 4, seed: int = 1) -> torch.Tensor:
    """Random states."""
    return torch.randn(count, length, dim, generator=torch.Generator().manual_seed(seed))


def train_step(quantizer: TreeQuantizer, states: torch.Tensor):
    """What the model does with its quantiser in one training step."""
    quantizer.prepare_step()
    out = quantizer(states)
    quantizer.count_step()
    return out
