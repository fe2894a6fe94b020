"""Reduction of wide rows, so that a report is computed in seconds for every network."""

from __future__ import annotations

import numpy as np

from ..data.feature_matrix import FeatureMatrix

_MAX_NUMBERS = 100_000_000  # numbers read from the cache for one section of the report, at most


def count_readable_rows(features: FeatureMatrix, max_rows: int) -> int:
    """Return how many rows may be read: `max_rows`, or fewer if they are very wide, but at least 200."""
    return min(max_rows, max(200, _MAX_NUMBERS // max(1, features.shape[1])))


def sketch_features(features: FeatureMatrix, rows: np.ndarray, width: int) -> np.ndarray:
    """Reduce the `rows` of `features` to at most `width` columns, (len(rows), width) float32.

    Narrower rows stay as they are. Each column is added with a random sign to one of `width` sums: a count sketch, which
    preserves inner products in expectation (Charikar, Chen, Farach-Colton, Finding frequent items in data streams, 2002;
    Weinberger, Dasgupta, Langford, Smola, Attenberg, Feature hashing for large scale multitask learning, 2009, arXiv
    0902.2206). The signs and sums are seeded; rows are read in blocks.
    """
    columns = features.shape[1]
    if columns <= width:
        return features[rows]
    rng = np.random.default_rng(0)
    order, signs = rng.permutation(columns), rng.choice(np.array([-1, 1], np.float32), columns)
    starts = np.arange(width) * columns // width
    out = np.empty((len(rows), width), np.float32)
    for positions, values in features.iter_blocks(rows):
        out[positions] = np.add.reduceat(values[:, order] * signs, starts, axis=1)
    return out
