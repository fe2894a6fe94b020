"""The nearest rows by cosine similarity, found a block at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .feature_matrix import FeatureMatrix

_ROWS, _NUMBERS = 1024, 1 << 22  # in a block, at most
_QUERY_FACTOR, _SHARE = (
    4,
    1 / 16,
)  # times as many rows are asked for at once, that the others are read seldom: a share of those


def find_neighbors(
    queries: FeatureMatrix,
    query_rows: np.ndarray,
    features: FeatureMatrix,
    rows: np.ndarray,
    count: int,
    center: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` rows of `features` most similar to each row `query_rows` of `queries`: (similarities, places), best first.

    Both are (len(query_rows), min(count, len(rows))); places count within `rows`. Similarity is the cosine of the angle seen
    from `center` (d,), or from zero; a row that lies there is similar to none. Blocks of both are in memory, never a whole.
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
    """The rows in `blocks` nearest to each of `query_values` (n, d), all of length one: (cosines, positions), best first.

    A block is (positions, rows). Both answers are (n, count), or of fewer columns where there are fewer rows; of equals the
    first come first.
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
    """The `count` largest of each row (n, m), largest first, and where they are; of equals the first."""
    n_columns = similarity.shape[1]
    if count < n_columns:
        indices = np.argpartition(similarity, n_columns - count, axis=1)[:, n_columns - count :]
        threshold = np.take_along_axis(similarity, indices, axis=1).min(axis=1, keepdims=True)
        tied_rows = np.nonzero((similarity >= threshold).sum(axis=1) > count)[0]  # equals on the edge: the first ones
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
    """(positions, values): rows of length one seen from `center`, those that lie there left at zero."""
    for positions, values in features.iter_blocks(rows, size or _get_block_size(features.shape[1])):
        if center is not None:
            values -= center  # of an index array of rows, a block is a copy
        lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        values /= np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]
        yield positions, values


def _get_block_size(width: int) -> int:
    """Rows in a block."""
    return min(_ROWS, max(1, _NUMBERS // max(1, width)))
