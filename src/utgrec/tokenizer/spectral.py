"""Leading directions of large sparse matrices, the same in every run.

Shapes: n rows · V columns · R directions.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def leading_directions(matrix: Any, rank: int) -> tuple[Floats, Floats]:
    """The leading right singular vectors of a sparse matrix, and their singular values.

    Block Krylov iteration from a seeded start. ARPACK draws unseeded vectors where a matrix has
    fewer directions than are asked for, as small catalogues with repeated texts have, and equal
    runs would differ. Shapes: (documents, V) → (V, rank), (rank,), the strongest first.
    """
    columns = min(rank + 10, *matrix.shape)
    block = np.random.default_rng(0).standard_normal((matrix.shape[1], columns))
    for _ in range(2):
        blocks = [np.linalg.qr(block)[0]]
        for _ in range(3):
            blocks.append(np.linalg.qr(matrix.T @ (matrix @ blocks[-1]))[0])
        basis = np.linalg.qr(np.concatenate(blocks, axis=1))[0]
        seen = matrix @ basis
        squares, turn = np.linalg.eigh(seen.T @ seen)  # ascending
        block = basis @ turn[:, ::-1][:, :columns]
    strengths = np.sqrt(np.maximum(squares[::-1][:rank], 0))
    return block[:, :rank], strengths
