"""Mixup and CutMix: a batch mixed with itself in reverse order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mix:
    """The mix of one batch with itself in reverse order, for each head.

    Rows are shuffled, so that pairs are random. Mixup: Zhang et al., 2018, arXiv:1710.09412. CutMix: Yun et al., 2019,
    arXiv:1905.04899.

    Parameters
    ----------
    row_shares : ndarray of shape (heads,)
        Weight of the row itself, in mixup.
    label_shares : ndarray of shape (heads,)
        Weight of its label.
    box
        For CutMix (top, bottom, left, right) of the region taken from the other row, the same for all heads; else None.
    """

    row_shares: np.ndarray
    label_shares: np.ndarray
    box: tuple[int, int, int, int] | None = None

    def apply_cutmix(self, batch: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Replace the box, if there is one, in a batch (n, d) of maps with the shape (height, width, channels)."""
        if self.box is None:
            return batch
        top, bottom, left, right = self.box
        maps = batch.reshape(-1, *shape)
        mixed_maps = maps.copy()
        mixed_maps[:, top:bottom, left:right] = maps[::-1, top:bottom, left:right]
        return mixed_maps.reshape(batch.shape)


def draw_mixes(
    hyperparameter_sets: Sequence[Mapping[str, Any]], shape: tuple[int, ...], steps: int, seed: Sequence[int]
) -> list[Mix]:
    """Draw the mixes of an epoch, with weights from Beta(alpha, alpha).

    A head draws the same mixes whatever heads it is trained with. With both mixup and CutMix, each batch uses one of
    them, with equal probability.

    Parameters
    ----------
    hyperparameter_sets
        Those of each head; they agree on ``cutmix``, and on whether ``mixup`` is 0.
    shape
        (height, width, channels) of a row, for CutMix.
    steps
        Number of batches in the epoch.
    seed
        Seed of the draws.
    """
    alphas = [hyperparameters["mixup"] for hyperparameters in hyperparameter_sets]
    shares_by_step = np.ones((steps, len(alphas)))
    for index, alpha in enumerate(alphas):
        if alpha:
            shares_by_step[:, index] = np.random.default_rng([*seed, 0]).beta(alpha, alpha, steps)
    alpha = hyperparameter_sets[0]["cutmix"]
    if not alpha:
        return [Mix(step_shares, step_shares) for step_shares in shares_by_step]
    rng = np.random.default_rng([*seed, 1])
    takes_cutmix = rng.random(steps) < (0.5 if alphas[0] else 1.0)
    shares, centers = rng.beta(alpha, alpha, steps), rng.random((steps, 2))
    boxes = [_build_box(share, center, shape) for share, center in zip(shares, centers, strict=True)]
    return [
        cutmix if is_cutmix else Mix(step_shares, step_shares)
        for is_cutmix, cutmix, step_shares in zip(
            takes_cutmix, _build_cutmixes(boxes, len(alphas)), shares_by_step, strict=True
        )
    ]


def _build_box(share: float, center: np.ndarray, shape: tuple[int, ...]) -> tuple[float, tuple[int, int, int, int]]:
    """Return a box around `center` with the fraction 1 - share of the area, and the fraction that remains outside.

    The box is clipped at the edges.
    """
    height, width = shape[:2]
    sides = np.sqrt(1 - share) * np.array([height, width])
    low = np.clip(np.rint(center * (height, width) - sides / 2), 0, (height, width)).astype(int)
    high = np.clip(np.rint(center * (height, width) + sides / 2), 0, (height, width)).astype(int)
    area = np.prod(high - low) / (height * width)
    return float(1 - area), (int(low[0]), int(high[0]), int(low[1]), int(high[1]))


def _build_cutmixes(boxes: Sequence[tuple[float, tuple[int, int, int, int]]], n_heads: int) -> list[Mix]:
    return [Mix(np.ones(n_heads), np.full(n_heads, share), box) for share, box in boxes]
