"""Eigendecompositions with minimal memory."""

from __future__ import annotations

import numpy as np


def decompose_symmetric(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (n,), ascending, and eigenvectors as columns (n, n) of a symmetric matrix, which is overwritten.

    `numpy.linalg.eigh` keeps the matrix besides its vectors and takes four times its memory with LAPACK's workspace.
    """
    from scipy.linalg import eigh

    values, vectors = eigh(matrix.T, overwrite_a=True, check_finite=False, driver="evd")
    return values, vectors
