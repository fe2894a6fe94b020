"""Augmented views: which rows of an image heads are trained on, and which they are scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...cache.errors import DataError
from ...extract.pixels.augment import Policy
from .feature_matrix import Matrix, Part, Stored


@dataclass(frozen=True)
class Views:
    """So many augmented views of each image, made by `policy`, are learnt from beside the plain one.

    All of them are cached, for taps that lack some are not swept over; only those that gave NaN or infinity are not there.

    version: the policy as features are keyed by it. average: whether an image is scored on the mean of the probabilities of
    all its views; else on its plain view.
    """

    count: int = 0
    policy: str = ""
    version: str = ""
    average: bool = False

    @classmethod
    def of(cls, count: int, policy: Policy | None, average: bool = False) -> Views | None:
        """So many views by `policy`, None without one; raises `DataError` where there are none to average."""
        if policy is not None:
            return cls(count, str(policy), policy.version, average)
        if average:
            raise DataError("--average-views: there are no views to average; give --views and --augment")
        return None

    @property
    def parsed(self) -> Policy | None:
        """The policy that they are made by; None without views."""
        return Policy.parse(self.policy) if self.count else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Views:
        """The views that `to_dict` wrote."""
        return cls(**value)


@dataclass(frozen=True)
class Viewed:
    """The rows of one tap, the plain view from one extraction and the augmented ones from another."""

    plain: Stored
    augmented: Stored

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Rows (n, ...) of `view`, or (n, columns) of the flattened rows."""
        return (self.augmented if view else self.plain).read(keys, view, columns)

    def missing(self, keys: np.ndarray, view: int = 0) -> np.ndarray:
        """Mask (n,) of the keys that have no row of `view`."""
        stored: Any = self.augmented if view else self.plain
        return np.asarray(stored.missing(keys, view))


@dataclass(frozen=True)
class Shown:
    """Rows of features, and which image (its number) in which view each shows: every image in its plain view at least."""

    features: Matrix
    images: np.ndarray
    views: np.ndarray

    @classmethod
    def of(cls, stored: Sequence[Stored], keys: np.ndarray, count: int = 0) -> Shown:
        """The images `keys` (n,) in the plain view and in those of `count` augmented ones that are finite at every tap.

        The taps lie side by side; nothing is read but one row of each.
        """
        images, views = [np.arange(len(keys))], [np.zeros(len(keys), np.intp)]
        for view in range(1, count + 1):
            lacking = np.logical_or.reduce([each.missing(keys, view) for each in stored if isinstance(each, Viewed)])
            here = np.nonzero(~lacking)[0]
            images.append(here)
            views.append(np.full(len(here), view))
        image, view_of = np.concatenate(images), np.concatenate(views)
        order = np.lexsort((view_of, image))
        image, view_of = image[order], view_of[order]
        return cls(Matrix.stored([Part(each, keys[image], view_of) for each in stored]), image, view_of)

    def rows(self, images: np.ndarray, average: bool = True) -> np.ndarray:
        """The rows that show `images`, in every view or in the plain one."""
        wanted = np.isin(self.images, images)
        return np.nonzero(wanted if average else wanted & (self.views == 0))[0]

    def mean(self, answers: np.ndarray) -> np.ndarray:
        """The mean (images, classes) of answers (rows, classes) over the views of each image."""
        total = np.zeros((int(self.images[-1]) + 1, answers.shape[1]))
        np.add.at(total, self.images, answers)
        return np.asarray((total / np.bincount(self.images)[:, None]).astype(answers.dtype))
