"""The nearest rows by cosine similarity, found a block of each matrix at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .matrix import Matrix

_ROWS, _NUMBERS = 1024, 1 << 22  # in a block, at most
_ASKED, _SHARE = 4, 1 / 16  # times as many rows are asked for at once, that the others are read seldom: a share of those


def nearest(
    queries: Matrix,
    asked: np.ndarray,
    features: Matrix,
    rows: np.ndarray,
    count: int,
    middle: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` rows of `features` most similar to each row `asked` of `queries`: (similarities, places), best first.

    Both are (len(asked), min(count, len(rows))); places count within `rows`. Similarity is the cosine of the angle seen from
    `middle` (d,), or from zero; a row that lies there is similar to none. Blocks of both are in memory, never a whole.
    """
    kept = min(count, len(rows))
    found, places = np.zeros((len(asked), kept), np.float32), np.zeros((len(asked), kept), np.intp)
    few = _size(features.shape[1])
    many = min(_ASKED * _ROWS, max(few, int(_SHARE * features.shape[0])))
    for here, ours in unit(queries, asked, middle, many):
        near, where = np.zeros((len(ours), 0), np.float32), np.zeros((len(ours), 0), np.intp)
        for there, theirs in unit(features, rows, middle):
            near = np.hstack([near, ours @ theirs.T])
            where = np.hstack([where, np.broadcast_to(np.arange(there.start, there.stop), (len(ours), len(theirs)))])
            if near.shape[1] > kept:
                top = np.argpartition(-near, kept - 1, axis=1)[:, :kept]
                near, where = np.take_along_axis(near, top, 1), np.take_along_axis(where, top, 1)
        order = np.argsort(-near, axis=1, kind="stable")
        found[here], places[here] = np.take_along_axis(near, order, 1), np.take_along_axis(where, order, 1)
    return found, places


def unit(
    features: Matrix, rows: np.ndarray, middle: np.ndarray | None = None, size: int | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """(positions, values): rows of length one seen from `middle`, those that lie there left at zero."""
    for places, values in features.blocks(rows, size or _size(features.shape[1])):
        if middle is not None:
            values -= middle  # of an index array of rows, a block is a copy
        lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        values /= np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]
        yield places, values


def _size(width: int) -> int:
    """Rows in a block."""
    return min(_ROWS, max(1, _NUMBERS // max(1, width)))
