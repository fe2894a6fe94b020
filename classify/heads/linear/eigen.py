"""Eigendecompositions that take no more memory than they must."""

from __future__ import annotations

import numpy as np


def decompose_symmetric(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (n,), ascending, and eigenvectors as columns (n, n) of a symmetric matrix, which is overwritten.

    NumPy's own keeps the matrix beside its vectors, which are four times as much as the matrix with LAPACK's workspace.
    """
    from scipy.linalg import eigh

    values, vectors = eigh(matrix.T, overwrite_a=True, check_finite=False, driver="evd")
    return values, vectors
