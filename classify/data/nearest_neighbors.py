"""Nearest rows by cosine similarity, computed in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .feature_matrix import FeatureMatrix

_ROWS, _NUMBERS = 1024, 1 << 22  # per block, at most
_QUERY_FACTOR = 4  # query blocks may be so many times larger, since each reads all other rows
_SHARE = 1 / 16  # of the searched rows: size of a query block


def find_neighbors(
    queries: FeatureMatrix,
    query_rows: np.ndarray,
    features: FeatureMatrix,
    rows: np.ndarray,
    count: int,
    center: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of `features` most similar to each query row.

    Parameters
    ----------
    queries : FeatureMatrix
        Matrix that holds the query rows.
    query_rows : np.ndarray
        Rows of `queries`, (m,).
    features : FeatureMatrix
        Matrix to search; read in blocks.
    rows : np.ndarray
        Rows of `features` to search, (n,).
    count : int
        Number of neighbors.
    center : np.ndarray, optional
        Point (d,) from which angles are measured; zero by default. A row equal to it has similarity 0 to all.

    Returns
    -------
    similarities, positions : np.ndarray
        Cosine similarities and positions within `rows`, both (m, min(count, n)), best first.
    """
    n_neighbors = min(count, len(rows))
    similarities, positions = (
        np.zeros((len(query_rows), n_neighbors), np.float32),
        np.zeros((len(query_rows), n_neighbors), np.intp),
    )
    block_size = _get_block_size(features.shape[1])
    query_block_size = min(_QUERY_FACTOR * _ROWS, max(block_size, int(_SHARE * features.shape[0])))
    for query_slice, query_values in iter_unit_rows(queries, query_rows, center, query_block_size):
        similarities[query_slice], positions[query_slice] = find_neighbors_in_blocks(
            query_values, iter_unit_rows(features, rows, center), n_neighbors
        )
    return similarities, positions


def find_neighbors_in_blocks(
    query_values: np.ndarray, blocks: Iterable[tuple[slice, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (cosines, positions) of the rows in `blocks` nearest to each of `query_values` (n, d), best first.

    All rows have unit length; a block is (positions, rows). Both results are (n, count), with fewer columns if there are
    fewer rows. Ties keep the order of the rows.
    """
    best_similarities, best_positions = (
        np.empty((len(query_values), 0), np.float32),
        np.empty((len(query_values), 0), np.intp),
    )
    for block_slice, block_values in blocks:
        similarities = query_values @ block_values.T
        block_positions = np.broadcast_to(np.arange(block_slice.start, block_slice.stop), similarities.shape)
        best_similarities, indices = top_k(np.hstack([best_similarities, similarities]), count)
        best_positions = np.take_along_axis(np.hstack([best_positions, block_positions]), indices, axis=1)
    return best_similarities, best_positions


def top_k(similarity: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` largest values of each row (n, m), in descending order, and their columns; ties stay in order."""
    n_columns = similarity.shape[1]
    if count < n_columns:
        indices = np.argpartition(similarity, n_columns - count, axis=1)[:, n_columns - count :]
        threshold = np.take_along_axis(similarity, indices, axis=1).min(axis=1, keepdims=True)
        tied_rows = np.nonzero((similarity >= threshold).sum(axis=1) > count)[
            0
        ]  # ties at the threshold: keep the first ones
        indices[tied_rows] = np.argsort(-similarity[tied_rows], axis=1, kind="stable")[:, :count]
        indices.sort(axis=1)
    else:
        indices = np.broadcast_to(np.arange(n_columns), similarity.shape)
    values = np.take_along_axis(similarity, indices, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(indices, order, axis=1)


def iter_unit_rows(
    features: FeatureMatrix, rows: np.ndarray, center: np.ndarray | None = None, size: int | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (positions, values): rows minus `center`, scaled to unit length; rows equal to it stay zero."""
    for positions, values in features.iter_blocks(rows, size or _get_block_size(features.shape[1])):
        if center is not None:
            values -= center  # safe: a block selected by an index array is a copy
        lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        values /= np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]
        yield positions, values


def _get_block_size(width: int) -> int:
    """Return the number of rows of a block."""
    return min(_ROWS, max(1, _NUMBERS // max(1, width)))
