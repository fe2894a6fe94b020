"""Train, validation and test splits, and the folds of cross-validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from ...extract.images.images import Image, Images
from ...extract.images.item import describe_rejections
from ..evaluate.single_label import SingleLabel
from ..evaluate.target import Target
from ..evaluate.target_registry import detect_target, restore_target

TEST_FRACTION = 0.2
MIN_TRAINING_IMAGES = 2  # of each class, for cross-validation
FOLDS = 5


@dataclass(frozen=True)
class SplitsSummary:
    """Class names, number of images per split, how heads are selected (`cv` or `val`), and a note on the splits.

    target_name: the kind of labels, see `get_target`.
    """

    classes: tuple[str, ...]
    train: int
    val: int
    test: int
    select: str
    note: str
    target_name: str = SingleLabel.name

    def get_target(self) -> Target:
        """Return the kind of labels; raises `DataError` if no such kind is registered."""
        return restore_target(self.target_name, self.classes)

    @property
    def n_development(self) -> int:
        """Number of images outside the test split."""
        return self.train + self.val

    @property
    def n_selection(self) -> int:
        """Number of images that heads are selected on."""
        return self.val if self.select == "val" else self.n_development


@dataclass(frozen=True)
class Splits:
    """Row numbers of the used images, by split.

    target: kind of the labels. labels (n, …): encoded label of each image. groups (n,): group of each image, None without
    groups. train, val, test: rows; val is empty if heads are selected by cross-validation. select: `cv` or `val`. note: how
    the splits came about. root: where the images are.
    """

    target: Target
    labels: np.ndarray
    groups: np.ndarray | None
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    select: str
    note: str
    root: Path | str

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.target.class_names

    @property
    def development(self) -> np.ndarray:
        """Rows outside the test split: train and val."""
        return np.sort(np.concatenate([self.train, self.val]))

    @property
    def selection_rows(self) -> np.ndarray:
        """Rows that heads are selected on: the validation split, or all rows outside the test split for cross-validation."""
        return self.development if self.select == "cv" else self.val

    def get_group_ids(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the group number of each image in `rows`; None if every image is its own group."""
        if self.groups is None:
            return None
        group_ids = np.unique(self.groups[rows], return_inverse=True)[1]
        return None if len(np.unique(group_ids)) == len(rows) else group_ids

    def get_selection_group_ids(self) -> np.ndarray | None:
        """Return the group number of each image in `development`, -1 outside `selection_rows`; None without groups."""
        selected_ids = self.get_group_ids(self.selection_rows)
        if selected_ids is None:
            return None
        group_ids = np.full(len(self.development), -1)
        group_ids[np.searchsorted(self.development, self.selection_rows)] = selected_ids
        return group_ids

    def iter_folds(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (fit, score) rows: one pair with a validation split, else one per stratified fold (five by default)."""
        if self.select == "val":
            yield self.train, self.val
            return
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        rows = self.development
        strata = self.target.stratify(self.labels[rows])
        groups = None if self.groups is None else self.groups[rows]
        splitter_class = StratifiedKFold if groups is None else StratifiedGroupKFold
        n_splits, _ = self._smallest_class
        n_splits = min(FOLDS, n_splits)
        for fit, score in splitter_class(n_splits, shuffle=True, random_state=seed).split(rows, strata, groups):
            if len(np.unique(strata[fit])) < len(self.target.stratum_names):  # large groups: all of a class in one fold
                raise DataError(
                    f"{self.root}: in {n_splits}-fold cross-validation, some class has no training images in "
                    "one of the folds, since its groups are too large; use smaller groups, or give a "
                    "validation split"
                )
            yield rows[fit], rows[score]

    @property
    def _smallest_class(self) -> tuple[int, int]:
        """The smallest number of images, or groups, of any class outside the test split, and the class number."""
        rows = self.development
        strata = self.target.stratify(self.labels[rows])
        parts_per_class = _count_parts(strata, None if self.groups is None else self.groups[rows])
        return min((parts_per_class[stratum], stratum) for stratum in range(len(self.target.stratum_names)))

    @property
    def folds_note(self) -> str:
        """Why there are fewer folds than usual; "" if there are not."""
        n_splits, class_index = self._smallest_class
        if self.select == "val" or n_splits >= FOLDS:
            return ""
        parts = "training images" if self.groups is None else "groups of training images"
        return f"{n_splits} folds instead of {FOLDS}: {self.target.stratum_names[class_index]!r} has only {n_splits} {parts}"

    def summarize(self) -> SplitsSummary:
        """Return the summary that a run records."""
        return SplitsSummary(
            classes=self.classes,
            train=len(self.train),
            val=len(self.val),
            test=len(self.test),
            select=self.select,
            note="; ".join(note for note in (self.note, self.folds_note) if note),
            target_name=self.target.name,
        )


def split(images: Images, select: str | None = None) -> Splits:
    """Split images into train, validation and test.

    Splits given by the data are kept. Without a test split, the validation split is used as test; without either, a test
    split is chosen by content hash; of each class, where a cut over all images would leave one too few to train on.

    Parameters
    ----------
    images : Images
        The images, with labels.
    select : {"cv", "val"}, optional
        How heads are selected: by cross-validation or on the validation split. By default `val` if the data has train, val
        and test splits, else `cv`.

    Returns
    -------
    Splits
        The rows of each split.

    Raises
    ------
    DataError
        If there are no labels, fewer than two classes, or too few images of a class in a split.
    """
    root = images.dataset.root
    if select not in {None, "cv", "val"}:
        raise DataError(f"{root}: unknown --select {select}; use cv or val")
    target = _detect_target(images)
    split_names = np.array([image.item.split or "" for image in images.used], dtype="<U5")
    given_splits = set(split_names) - {""}
    if given_splits and "train" not in given_splits and "" not in split_names:
        raise DataError(f"{root}: the data has no train split, only {', '.join(sorted(given_splits))}; add a train split")
    split_names[split_names == ""] = "train"
    if "test" in given_splits:
        note = "test split as given"
    elif "val" in given_splits:
        split_names[split_names == "val"] = "test"
        note = "no test split: the validation split is used as test, model selection is by cross-validation on train"
    else:
        is_test = np.array([_draw_for_test(image) < TEST_FRACTION * 2**64 for image in images.used])
        reason = "only a train split" if given_splits else "no splits"
        note = f"{reason}: {TEST_FRACTION:.0%} of the images, chosen by content hash, are the test split"
        stratified = _cut_each_class(images, is_test)
        if stratified is not None:
            is_test = stratified
            note = (
                f"{reason}: {TEST_FRACTION:.0%} of the images of each class, chosen by content hash, are the test split "
                "(of all images, they would leave a class too few to train on)"
            )
        split_names[is_test] = "test"
    roles = {role: np.nonzero(split_names == role)[0] for role in ("train", "val", "test")}
    select = select or ("val" if len(roles["val"]) else "cv")
    if select == "val" and not len(roles["val"]):
        raise DataError(
            f"{root}: --select val needs separate train, val and test splits ({_format_counts(roles)}); use --select cv"
        )
    labels = target.encode(images.labels)
    names = [image.item.group or image.name for image in images.used]
    has_groups = any(image.item.group for image in images.used)
    groups = np.array(names) if has_groups else None
    splits = Splits(target, labels, groups, roles["train"], roles["val"], roles["test"], select, note, root)
    _check_splits(splits, images)
    return splits


def _detect_target(images: Images) -> Target:
    root = images.dataset.root
    if not images.dataset.has_labels:
        raise DataError(
            f"{root}: the images have no labels; put them in a folder per class (root/cat/1.jpg), or list them "
            "in a CSV with the columns path,label"
        )
    target = detect_target(images.labels)
    classes = target.class_names
    if len(classes) < target.min_classes:
        is_feature_file = images.source.holds_features
        finding = f"only one class, {classes[0]!r}" if classes else f"no usable {'rows' if is_feature_file else 'images'}"
        rejected = describe_rejections(images.rejections)
        finding += f" ({rejected})" if rejected else ""
        remedy = (
            "add rows of another class, with finite features, to the file"
            if is_feature_file
            else "add a folder per class, or check that DATA is the folder that holds the class folders"
        )
        raise DataError(f"{root}: {finding}; {remedy}")
    return target


def _draw_for_test(image: Image) -> int:
    """Return a number below 2**64 that depends only on the image's own bytes (or its group); low: test split."""
    identity = image.item.group.encode("utf-8", "surrogateescape") if image.item.group else image.digest
    draw = hashlib.sha256(b"humeris test split" + identity).digest()[:8]
    return int.from_bytes(draw, "big")


def _cut_each_class(images: Images, is_test: np.ndarray) -> np.ndarray | None:
    """Return a test split (n,) with its share of each class, where `is_test` leaves a class too few images to train on.

    None where `is_test` serves, or images have groups. A class of fewer than three images has none in the test split.
    """
    labels = np.array(images.labels)
    names, class_ids = np.unique(labels, return_inverse=True)
    n_training = np.bincount(class_ids[~is_test], minlength=len(names))
    if n_training.min(initial=MIN_TRAINING_IMAGES) >= MIN_TRAINING_IMAGES or any(image.item.group for image in images.used):
        return None
    draws = np.array([_draw_for_test(image) for image in images.used], np.uint64)
    result = np.zeros(len(labels), bool)
    for class_id in range(len(names)):
        members = np.nonzero(class_ids == class_id)[0]
        count = max(1, round(TEST_FRACTION * len(members))) if len(members) > MIN_TRAINING_IMAGES else 0
        result[members[np.argsort(draws[members], kind="stable")[:count]]] = True
    return result


def _check_splits(splits: Splits, images: Images) -> None:
    root = images.dataset.root
    if not len(splits.test):
        raise DataError(f"{root}: none of the {len(images.used)} images is in the test split ({splits.note}); add images")
    training_rows = splits.train if splits.select == "val" else splits.development
    strata = splits.target.stratify(splits.labels)
    counts = Counter(strata[training_rows].tolist())
    parts_per_class = _count_parts(strata[training_rows], None if splits.groups is None else splits.groups[training_rows])
    min_count = 1 if splits.select == "val" else 2
    for stratum, name in enumerate(splits.target.stratum_names):
        if counts[stratum] < min_count:
            in_stratum = np.nonzero(strata == stratum)[0]
            total, first_name = len(in_stratum), images.used[in_stratum[0]].name
            raise DataError(
                f"{root}: too few training images of class {name!r}: {counts[stratum]}, at least {min_count} needed "
                f"({total} in all, e.g. {first_name}; {splits.note}); add images, remove the class, or give splits"
            )
        if parts_per_class[stratum] < min_count:
            raise DataError(
                f"{root}: all {counts[stratum]} training images of class {name!r} are in one group, but cross-validation "
                f"needs at least {min_count} groups per class; use smaller groups or remove the class"
            )


def _count_parts(labels: np.ndarray, groups: np.ndarray | None) -> Counter[int]:
    """Count the parts that each class can be divided into: its images, or its groups."""
    if groups is None:
        return Counter(labels.tolist())
    return Counter(label for label, _ in set(zip(labels.tolist(), groups.tolist(), strict=True)))


def _format_counts(roles: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{role} {len(rows)}" for role, rows in roles.items())
