"""A colour for every code, so that codes that mean alike look alike.

The vectors of a codebook are laid on a plane (their two main directions); the angle on it, evened
out, is the hue. Shapes: K codebook entries · D code dimension.
"""

import numpy as np
import numpy.typing as npt
import torch

from utgrec.errors import UTGRecError
from utgrec.serving.coder import Coder

GOLDEN_ANGLE = 137.508  # degrees; apart for neighbouring numbers, whatever their count


def code_hues(coder: Coder, sizes: tuple[int, ...]) -> list[list[int]]:
    """The hue of every code by position, in degrees; (L, K of the position).

    A run without codebooks gets hues that say nothing.
    """
    try:
        quantizer = coder.quantizer
    except (UTGRecError, OSError, KeyError, RuntimeError):
        return [[round(code * GOLDEN_ANGLE) % 360 for code in range(size)] for size in sizes]
    with torch.no_grad():
        root = hues_of(quantizer.root.vectors.numpy())
        leaf = hues_of(quantizer.leaf.vectors.numpy())
    return [root, *[leaf] * (len(sizes) - 1)]


def hues_of(vectors: npt.NDArray[np.float32]) -> list[int]:
    """Alike vectors get alike hues, and all hues are used evenly. (K, D) → K degrees."""
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ directions[:2].T  # (K, 2), or (K, 1) if D is 1
    angle = np.arctan2(flat[:, 1], flat[:, 0]) if flat.shape[1] == 2 else flat[:, 0]
    rank = np.empty(len(angle), dtype=np.int64)
    rank[np.argsort(angle, kind="stable")] = np.arange(len(angle))
    return [int(hue) for hue in rank * 360 // len(angle)]
