"""Augmented views: which rows heads are trained on, and which rows are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...cache.errors import DataError
from ...cache.typed_json import as_text
from ...extract.pixels.augment import Policy
from .feature_matrix import FeatureMatrix, RowReader, TapColumns


@dataclass(frozen=True)
class Views:
    """The augmented views that heads are trained on besides the plain one.

    Taps that lack a view are left out of a sweep, so every view is cached except those that gave NaN or infinity.

    count: number of augmented views per image. policy: how they are made. average: whether an image is scored on the mean
    probabilities over all its views, instead of its plain view only. version: the policy's version in the features' keys;
    the
    current one by default.
    """

    count: int = 0
    policy: Policy | None = field(default=None, metadata=as_text(Policy.parse))
    average: bool = False
    version: str = ""

    def __post_init__(self) -> None:
        if self.average and self.policy is None:
            raise DataError("--average-views is given without --views; give --views and --augment too")
        if self.policy is not None and not self.version:
            object.__setattr__(self, "version", self.policy.version)


@dataclass(frozen=True)
class ViewReader:
    """The rows of one tap: the plain view from one extraction, augmented views from another."""

    plain: RowReader
    augmented: RowReader

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Return rows (n, ...) of `view`, or (n, columns) of the flattened rows."""
        return (self.augmented if view else self.plain).read(keys, view, columns)

    def find_missing(self, keys: np.ndarray, view: int = 0) -> np.ndarray:
        """Return the mask (n,) of the keys that have no row of `view`."""
        row_reader: Any = self.augmented if view else self.plain
        return np.asarray(row_reader.find_missing(keys, view))


@dataclass(frozen=True)
class ViewRows:
    """Rows of features with the image number and view number of each; every image has at least its plain view."""

    features: FeatureMatrix
    images: np.ndarray
    views: np.ndarray

    @classmethod
    def from_readers(cls, row_readers: Sequence[RowReader], keys: np.ndarray, count: int = 0) -> ViewRows:
        """Return the rows of the images `keys` (n,): the plain view and those of `count` augmented views that are finite.

        Taps lie side by side; a view must be finite at all of them. Only one row of each tap is read.
        """
        images, views = [np.arange(len(keys))], [np.zeros(len(keys), np.intp)]
        for view in range(1, count + 1):
            missing_mask = np.logical_or.reduce(
                [row_reader.find_missing(keys, view) for row_reader in row_readers if isinstance(row_reader, ViewReader)]
            )
            image_indices = np.nonzero(~missing_mask)[0]
            images.append(image_indices)
            views.append(np.full(len(image_indices), view))
        image_ids, view_ids = np.concatenate(images), np.concatenate(views)
        order = np.lexsort((view_ids, image_ids))
        image_ids, view_ids = image_ids[order], view_ids[order]
        return cls(
            FeatureMatrix.from_tap_columns(
                [TapColumns(row_reader, keys[image_ids], view_ids) for row_reader in row_readers]
            ),
            image_ids,
            view_ids,
        )

    def select_rows(self, images: np.ndarray, average: bool = True) -> np.ndarray:
        """Return the rows of `images`, of all views or of the plain view only."""
        mask = np.isin(self.images, images)
        return np.nonzero(mask if average else mask & (self.views == 0))[0]

    def average_views(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the mean (images, classes) of probabilities (rows, classes) over the views of each image."""
        total = np.zeros((int(self.images[-1]) + 1, probabilities.shape[1]))
        np.add.at(total, self.images, probabilities)
        return np.asarray((total / np.bincount(self.images)[:, None]).astype(probabilities.dtype))
