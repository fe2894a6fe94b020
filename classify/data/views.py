"""Augmented views: which rows of an image heads are trained on, and which they are scored on."""

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
    """So many augmented views of each image, made by `policy`, are learnt from beside the plain one.

    All of them are cached, for taps that lack some are not swept over; only those that gave NaN or infinity are not there.

    average: whether an image is scored on the mean of the probabilities of all its views; else on its plain view.
    version: the policy as the features of these views are keyed by it; of today unless given.
    """

    count: int = 0
    policy: Policy | None = field(default=None, metadata=as_text(Policy.parse))
    average: bool = False
    version: str = ""

    def __post_init__(self) -> None:
        if self.average and self.policy is None:
            raise DataError("--average-views: there are no views to average; give --views and --augment")
        if self.policy is not None and not self.version:
            object.__setattr__(self, "version", self.policy.version)


@dataclass(frozen=True)
class ViewReader:
    """The rows of one tap, the plain view from one extraction and the augmented ones from another."""

    plain: RowReader
    augmented: RowReader

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Rows (n, ...) of `view`, or (n, columns) of the flattened rows."""
        return (self.augmented if view else self.plain).read(keys, view, columns)

    def find_missing(self, keys: np.ndarray, view: int = 0) -> np.ndarray:
        """Mask (n,) of the keys that have no row of `view`."""
        row_reader: Any = self.augmented if view else self.plain
        return np.asarray(row_reader.find_missing(keys, view))


@dataclass(frozen=True)
class ViewRows:
    """Rows of features, and which image (its number) in which view each shows: every image in its plain view at least."""

    features: FeatureMatrix
    images: np.ndarray
    views: np.ndarray

    @classmethod
    def from_readers(cls, row_readers: Sequence[RowReader], keys: np.ndarray, count: int = 0) -> ViewRows:
        """The images `keys` (n,) in the plain view and in those of `count` augmented ones that are finite at every tap.

        The taps lie side by side; nothing is read but one row of each.
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
        """The rows that show `images`, in every view or in the plain one."""
        mask = np.isin(self.images, images)
        return np.nonzero(mask if average else mask & (self.views == 0))[0]

    def average_views(self, probabilities: np.ndarray) -> np.ndarray:
        """The mean (images, classes) of answers (rows, classes) over the views of each image."""
        total = np.zeros((int(self.images[-1]) + 1, probabilities.shape[1]))
        np.add.at(total, self.images, probabilities)
        return np.asarray((total / np.bincount(self.images)[:, None]).astype(probabilities.dtype))
