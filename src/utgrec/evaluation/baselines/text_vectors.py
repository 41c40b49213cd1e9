"""Item texts as vectors: a latent semantic analysis that needs nothing, or a sentence model.

Shapes: N items · V words · D width.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from utgrec.catalog import Ints
from utgrec.errors import InputError
from utgrec.evaluation.baselines.family import import_optional

Vectors = npt.NDArray[np.float32]

_WORD = re.compile(r"[^\W_]+")
# Directions beyond those asked for make the leading ones exact (Halko et al. 2011).
_OVERSAMPLED = 16


def topic_vectors(texts: Sequence[str], known: Ints, width: int, seed: int) -> Vectors:
    """Unit vectors of the texts' leading topics: tf-idf, then a truncated SVD.

    Words and topics come from the texts of the `known` items alone; the others are placed among
    them. A text without known words is a zero vector. Shapes: N texts → (N, at most D).

    Raises:
        InputError: the known texts share no word.
    """
    words = [Counter(_WORD.findall(text.lower())) for text in texts]
    found: Counter[str] = Counter()
    for item in known:
        found.update(words[item].keys())
    # A word of a single item cannot say what two items have in common.
    column = {
        word: place for place, word in enumerate(sorted(w for w, n in found.items() if n > 1))
    }
    if not column:
        raise InputError(
            f"the texts of the {len(known)} training items share no word, so they say nothing "
            "about which items are alike; choose a baseline that reads no texts"
        )
    idf = np.log(len(known) / np.array([found[word] for word in column])) + 1.0  # (V,)
    entries = [
        (row, column[word], count)
        for row, counts in enumerate(words)
        for word, count in counts.items()
        if word in column
    ]
    rows, columns, counted = np.array(entries, dtype=np.int64).T
    weights = (1 + np.log(counted)) * idf[columns]
    lengths = np.sqrt(np.bincount(rows, weights**2, minlength=len(texts)))  # (N,)
    matrix = sparse.csr_matrix(
        ((weights / lengths[rows]).astype(np.float32), (rows, columns)),
        shape=(len(texts), len(column)),
    )
    return _unit(matrix @ _directions(matrix[known], width, seed))


def sentence_vectors(texts: Sequence[str], model: str, family: str) -> Vectors:
    """Unit vectors of a sentence-transformers model, by name or folder. Shapes: N → (N, D).

    Raises:
        MissingDependency: sentence-transformers is not installed.
    """
    library = import_optional("sentence_transformers", family)
    encoder = library.SentenceTransformer(model)
    return _unit(np.asarray(encoder.encode(list(texts), show_progress_bar=False)))


def _directions(matrix: Any, width: int, seed: int) -> Vectors:
    """Leading right singular vectors of a sparse matrix. Shapes: (M, V) → (V, at most D)."""
    places = torch.from_numpy(np.stack(matrix.nonzero()).astype(np.int64))
    values = torch.from_numpy(matrix.data)
    taught = torch.sparse_coo_tensor(places, values, matrix.shape, check_invariants=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wanted = min(width + _OVERSAMPLED, *matrix.shape)
        found: Vectors = torch.svd_lowrank(taught, q=wanted, niter=4)[2].numpy()  # (V, wanted)
    return found[:, :width]


def _unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)
    return unit
