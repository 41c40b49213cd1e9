"""Vectors → codes from coarse to fine: residual k-means, or a residual-quantised autoencoder.

Both learn from the vectors of the items that occur in training, and code all.

Shapes: N items · D width · K entries of a codebook · L codes per item.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utgrec.catalog import Ints
from utgrec.evaluation.baselines.family import import_optional
from utgrec.evaluation.baselines.text_vectors import Vectors
from utgrec.progress import Progress
from utgrec.training.trainer import TrainerConfig, train

Codes = npt.NDArray[np.int64]


def residual_kmeans(
    vectors: Vectors, known: Ints, *, size: int, levels: int, iterations: int, seed: int
) -> Codes:
    """Cluster, subtract the centre, cluster what is left. Shapes: (N, D) → (N, L)."""
    from scipy.cluster.vq import kmeans2, vq

    left = vectors.astype(np.float64)
    codes = np.zeros((len(vectors), levels), dtype=np.int64)
    rng = np.random.default_rng([seed, 5])
    for level in range(levels):
        with warnings.catch_warnings():
            # A centre that loses its last item stays where it was; the code is then unused.
            warnings.filterwarnings("ignore", "One of the clusters is empty")
            taught = left[known]
            # k-means++ cannot choose more centres than there are different places.
            entries = min(size, len(np.unique(taught, axis=0)))
            centres, _ = kmeans2(taught, entries, iter=iterations, minit="++", rng=rng)
        codes[:, level], _ = vq(left, centres)
        left -= centres[codes[:, level]]
    return codes


def rqvae_codes(
    vectors: Vectors,
    known: Ints,
    *,
    size: int,
    levels: int,
    width: int,
    batch_size: int,
    trainer: TrainerConfig,
    work: Path,
    family: str,
    progress: Progress,
) -> Codes:
    """Train a residual-quantised autoencoder and read its codes. Shapes: (N, D) → (N, L).

    Args:
        width: of what is quantised, between encoder and decoder.
        work: folder for checkpoints; an interrupted training goes on.

    Raises:
        MissingDependency: vector-quantize-pytorch is not installed.
    """
    library = import_optional("vector_quantize_pytorch", family)
    data = torch.from_numpy(vectors)
    taught = data[torch.from_numpy(np.asarray(known, np.int64))]

    def batch(step: int) -> Tensor:
        rng = np.random.default_rng([trainer.seed, 6, step])
        return taught[torch.from_numpy(rng.integers(0, len(taught), batch_size))]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trainer.seed)
        quantizer = library.ResidualVQ(
            dim=width,
            num_quantizers=levels,
            codebook_size=size,
            kmeans_init=True,
            threshold_ema_dead_code=1,  # an entry that nobody chooses moves to where items are
        )
        model = _RQVAE(quantizer, vectors.shape[1], width)
        train(
            model,
            batch=batch,
            config=trainer,
            work=work,
            inputs={"vectors": work.name},
            progress=progress,
            title="Training the RQ-VAE",
        )
        model.eval()
        with torch.no_grad():
            codes: Tensor = quantizer(model.encoder(data))[1]  # (N, L)
    return codes.numpy().astype(np.int64)


def number_collisions(codes: Codes) -> Codes:
    """A last code that counts the items of equal codes: 0, 1, 2 … in item order. → (N, L + 1)."""
    order = np.lexsort(codes.T[::-1])
    ranked = codes[order]
    fresh = np.ones(len(codes), dtype=bool)
    fresh[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    starts = np.flatnonzero(fresh)
    digits = np.empty(len(codes), dtype=np.int64)
    digits[order] = np.arange(len(codes)) - starts[np.cumsum(fresh) - 1]
    return np.concatenate([codes, digits[:, None]], axis=1)


class _RQVAE(nn.Module):
    """Encoder, residual quantiser and decoder, with the loss that trains them."""

    def __init__(self, quantizer: Any, outside: int, width: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.encoder = nn.Sequential(
            nn.Linear(outside, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )
        self.quantizer = quantizer
        self.decoder = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outside)
        )

    def forward(self, vectors: Tensor) -> dict[str, Tensor]:
        """Shapes: (B, D) → scalars by name."""
        quantized, _, commitments = self.quantizer(self.encoder(vectors))
        # Summed over the width, as in the paper, so that the commitment keeps its weight.
        rebuilt = F.mse_loss(self.decoder(quantized), vectors, reduction="none").sum(dim=1).mean()
        commitment = commitments.sum()
        return {"loss": rebuilt + commitment, "rebuilt": rebuilt, "commitment": commitment}
