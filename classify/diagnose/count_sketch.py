"""Wide rows made narrow, so that a page is made in seconds whatever the network."""

from __future__ import annotations

import numpy as np

from ..data.feature_matrix import FeatureMatrix

_MAX_NUMBERS = 100_000_000  # that are read of the cache for one section, at most


def count_readable_rows(features: FeatureMatrix, max_rows: int) -> int:
    """How many rows may be looked at, `max_rows` or fewer where they are very wide, but always 200."""
    return min(max_rows, max(200, _MAX_NUMBERS // max(1, features.shape[1])))


def sketch_features(features: FeatureMatrix, rows: np.ndarray, width: int) -> np.ndarray:
    """The `rows` of `features` in at most `width` columns (len(rows), width) float32; as they are where they are no wider.

    Each column is added, with a random sign, to one of `width` sums: a count sketch, which keeps inner products on average
    (Charikar, Chen, Farach-Colton, Finding frequent items in data streams, 2002; Weinberger, Dasgupta, Langford, Smola,
    Attenberg, Feature hashing for large scale multitask learning, 2009, arXiv 0902.2206). Seeded; blocks of rows at a time.
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
