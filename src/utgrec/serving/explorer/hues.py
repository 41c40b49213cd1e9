"""A colour for every code, so that codes that mean alike look alike.

The vectors of a codebook are laid on a plane (their two main directions); the angle on it, evened
out, is the hue. Shapes: K codebook entries · D code dimension.
"""

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open

from utgrec import storage
from utgrec.config import from_dict
from utgrec.errors import UTGRecError
from utgrec.runs import RunFolder
from utgrec.tokenizer.pretrained import STAGE
from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer

GOLDEN_ANGLE = 137.508  # degrees; apart for neighbouring numbers, whatever their count


def code_hues(run: RunFolder, sizes: tuple[int, ...]) -> list[list[int]]:
    """The hue of every code by position, in degrees; (L, K of the position).

    Only the codebooks are read, not the backbone. A run without them gets hues that say nothing.
    """
    try:
        quantizer = _read_quantizer(run)
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


def _read_quantizer(run: RunFolder) -> TreeQuantizer:
    manifest = storage.read_manifest(run.tokenizer, STAGE)
    quantizer = TreeQuantizer(from_dict(QuantizerConfig, manifest.config["quantizer"]))
    path = storage.check_file(run.tokenizer, manifest, "heads.safetensors")
    start = "quantizer."
    with safe_open(path, framework="pt") as file:
        state = {
            name.removeprefix(start): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118 - not a dict
            if name.startswith(start)
        }
    quantizer.load_state_dict(state)
    return quantizer.eval()
