"""The nearest rows by cosine similarity, found a block at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .feature_matrix import Matrix

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
        found[here], places[here] = among(ours, unit(features, rows, middle), kept)
    return found, places


def among(ours: np.ndarray, blocks: Iterable[tuple[slice, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows in `blocks` nearest to each of `ours` (n, d), all of length one: (cosines, positions), best first.

    A block is (positions, rows). Both answers are (n, count), or of fewer columns where there are fewer rows; of equals the
    first come first.
    """
    near, where = np.empty((len(ours), 0), np.float32), np.empty((len(ours), 0), np.intp)
    for there, theirs in blocks:
        found = ours @ theirs.T
        seen = np.broadcast_to(np.arange(there.start, there.stop), found.shape)
        near, chosen = top(np.hstack([near, found]), count)
        where = np.take_along_axis(np.hstack([where, seen]), chosen, axis=1)
    return near, where


def top(similarity: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest of each row (n, m), largest first, and where they are; of equals the first."""
    columns = similarity.shape[1]
    if count < columns:
        chosen = np.argpartition(similarity, columns - count, axis=1)[:, columns - count :]
        least = np.take_along_axis(similarity, chosen, axis=1).min(axis=1, keepdims=True)
        tied = np.nonzero((similarity >= least).sum(axis=1) > count)[0]  # equals on the edge: the first ones
        chosen[tied] = np.argsort(-similarity[tied], axis=1, kind="stable")[:, :count]
        chosen.sort(axis=1)
    else:
        chosen = np.broadcast_to(np.arange(columns), similarity.shape)
    values = np.take_along_axis(similarity, chosen, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(chosen, order, axis=1)


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
