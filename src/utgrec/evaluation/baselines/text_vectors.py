"""Item texts as vectors: a latent semantic analysis that needs nothing, or a sentence model.

Shapes: N items · V words · D width.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

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
    places, weights = [], []
    for row, counts in enumerate(words):
        for word, count in counts.items():
            if word in column:
                places.append((row, column[word]))
                weights.append((1 + np.log(count)) * idf[column[word]])
    matrix = torch.sparse_coo_tensor(
        torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T,
        torch.tensor(weights, dtype=torch.float32),
        (len(texts), len(column)),
    ).coalesce()
    lengths = torch.sparse.sum(matrix * matrix, dim=1).to_dense().sqrt().clamp(min=1e-9)  # (N,)
    matrix = matrix * (1 / lengths)[:, None]
    taught = matrix.index_select(0, torch.from_numpy(np.asarray(known, np.int64)))
    wanted = min(width + _OVERSAMPLED, *taught.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, _, directions = torch.svd_lowrank(taught, q=wanted, niter=4)  # (V, wanted)
    return _unit(torch.sparse.mm(matrix, directions[:, :width]).numpy())


def sentence_vectors(texts: Sequence[str], model: str, family: str) -> Vectors:
    """Unit vectors of a sentence-transformers model, by name or folder. Shapes: N → (N, D).

    Raises:
        MissingDependency: sentence-transformers is not installed.
    """
    library = import_optional("sentence_transformers", family)
    encoder = library.SentenceTransformer(model)
    return _unit(np.asarray(encoder.encode(list(texts), show_progress_bar=False)))


def _unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)
    return unit
