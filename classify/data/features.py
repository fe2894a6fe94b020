"""The cached features of one tap as arrays, for other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...cache.errors import LayerError
from ...cache.store import Store
from ...extract.images.images import Images
from .select_features import FeatureQuery, build_matrix, find_features
from .splits import split

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, repr=False, eq=False)
class Features:
    """Features with labels and splits, ready for scikit-learn: ``LogisticRegression().fit(*features.select("train"))``.

    Parameters
    ----------
    X : ndarray
        (n, d) float32; rows of maps are flattened in row-major order.
    y : ndarray
        (n,) int, indices into `class_names`, -1 if the data has no labels; or (n, …), as the `Target` of the data encodes
        labels.
    class_names : tuple of str
        Sorted.
    paths : tuple of str
        The images; files by their paths.
    splits : ndarray
        (n,) str: ``train``, ``val`` or ``test``, as in a sweep; "" if the data has no labels.
    tap : str
        Source of the features: BACKBONE/LAYER:POOL, or several of these with + between them.
    """

    X: np.ndarray
    y: np.ndarray
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    splits: np.ndarray
    tap: str

    def select(self, *names: str) -> Features:
        """Return the rows of these splits.

        Parameters
        ----------
        *names : str
            ``train``, ``val`` or ``test``.

        Raises
        ------
        ValueError
            For another name.
        """
        unknown_names = set(names) - set(_SPLITS)
        if unknown_names or not names:
            raise ValueError(f"no split {', '.join(sorted(unknown_names)) or 'given'}; choose from {', '.join(_SPLITS)}")
        mask = np.isin(self.splits, names)
        paths = tuple(path for path, is_selected in zip(self.paths, mask, strict=True) if is_selected)
        return replace(self, X=self.X[mask], y=self.y[mask], paths=paths, splits=self.splits[mask])

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield X and y, so that ``X, y = features``."""
        yield self.X
        yield self.y

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        counts = [f"{name} {count}" for name in _SPLITS if (count := int((self.splits == name).sum()))]
        labels = f", {len(self.class_names)} classes, {', '.join(counts)}" if self.class_names else ", no labels"
        return f"<Features of {self.tap}: {self.X.shape[0]} x {self.X.shape[1]}{labels}>"


def load_features(images: Images, store: Store, query: FeatureQuery, select: str | None = None) -> Features:
    """Read the features of one tap, or of several side by side.

    Parameters
    ----------
    images : Images
        As `load_images` returns them.
    store : Store
        The cache; ignored if `images` come from a feature file.
    query : FeatureQuery
        The tap; it must match exactly one.
    select : {"val", "cv"}, optional
        As for a sweep; it decides whether there is a validation split.

    Returns
    -------
    Features
        In the order of `images`, without those whose features are not finite.

    Raises
    ------
    DataError
        If the features are not cached, or the images cannot be divided into splits.
    LayerError
        If the query matches no tap or several.
    """
    selection = find_features(images.feature_file or store, images.keys, query)
    if len(selection.inputs) > 1:
        taps = ["+".join(map(str, tap_refs)) for tap_refs in selection.inputs]
        more = f" and {len(taps) - 5} more" if len(taps) > 5 else ""
        raise LayerError(f"{len(taps)} cached taps match ({', '.join(taps[:5])}{more}); name one of them")
    images = selection.drop_non_finite(images)
    (tap_refs,) = selection.inputs
    matrix = build_matrix([selection.row_readers[tap_ref] for tap_ref in tap_refs], images.keys)
    labels, split_names = np.full(len(images), -1), np.full(len(images), "", "<U5")
    class_names: tuple[str, ...] = ()
    if images.dataset.has_labels:
        splits = split(images, select)
        labels, class_names = splits.labels, splits.classes
        for name in _SPLITS:
            split_names[getattr(splits, name)] = name
    return Features(
        X=matrix.to_array(),
        y=labels,
        class_names=class_names,
        paths=_list_paths(images),
        splits=split_names,
        tap="+".join(map(str, tap_refs)),
    )


def _list_paths(images: Images) -> tuple[str, ...]:
    root = images.dataset.root
    is_folder = isinstance(root, Path) and root.is_dir()
    return tuple(str(root / image.name) if isinstance(root, Path) and is_folder else image.name for image in images.used)
