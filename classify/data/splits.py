"""Which images train, which choose and which are scored once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from ...extract.images.images import Image, Images
from ..evaluate.single_label import SingleLabel
from ..evaluate.target import Target
from ..evaluate.target_registry import detect_target, restore_target

TEST_FRACTION = 0.2
FOLDS = 5


@dataclass(frozen=True)
class SplitsSummary:
    """The class names, how many images are in each split, how heads are chosen (`cv` or `val`), and a note in words.

    target_name: what kind of label it is, see `get_target`.
    """

    classes: tuple[str, ...]
    train: int
    val: int
    test: int
    select: str
    note: str
    target_name: str = SingleLabel.name

    def get_target(self) -> Target:
        """What a label is; raises `DataError` where no such kind is registered."""
        return restore_target(self.target_name, self.classes)

    @property
    def n_development(self) -> int:
        """How many images may be learnt from."""
        return self.train + self.val

    @property
    def n_selection(self) -> int:
        """How many images heads are chosen by."""
        return self.val if self.select == "val" else self.n_development


@dataclass(frozen=True)
class Splits:
    """Row numbers of the used images, by role.

    target: what a label is. labels (n, …): encoded label of each image. train, val, test: rows; val is empty when choosing
    is by cross-validation.
    select: `cv` or `val`. note: how the roles were given, in words. root: where the images are.
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
        """Rows that may be learnt from: train, and val."""
        return np.sort(np.concatenate([self.train, self.val]))

    @property
    def selection_rows(self) -> np.ndarray:
        """Rows that heads are chosen by: the validation split, or with cross-validation all that may be learnt from."""
        return self.development if self.select == "cv" else self.val

    def get_group_ids(self, rows: np.ndarray) -> np.ndarray | None:
        """The group number of each of the images `rows`; None where each stands for itself."""
        if self.groups is None:
            return None
        group_ids = np.unique(self.groups[rows], return_inverse=True)[1]
        return None if len(np.unique(group_ids)) == len(rows) else group_ids

    def get_selection_group_ids(self) -> np.ndarray | None:
        """The group number of each image of `development`, -1 outside `selection_rows`; None as `get_group_ids` says."""
        selected_ids = self.get_group_ids(self.selection_rows)
        if selected_ids is None:
            return None
        group_ids = np.full(len(self.development), -1)
        group_ids[np.searchsorted(self.development, self.selection_rows)] = selected_ids
        return group_ids

    def iter_folds(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(fit, score) rows: one pair with a validation split, five stratified pairs with cross-validation."""
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
            if len(np.unique(strata[fit])) < len(self.target.stratum_names):  # large groups can leave a class nowhere else
                raise DataError(
                    f"{self.root}: expected every class in every training part of {n_splits} folds, found one that lies in "
                    "too few groups; use smaller ones, or give a validation split"
                )
            yield rows[fit], rows[score]

    @property
    def _smallest_class(self) -> tuple[int, int]:
        """The smallest number of parts that a class can be divided into, its images or its groups, and that class."""
        rows = self.development
        strata = self.target.stratify(self.labels[rows])
        parts_per_class = _count_parts(strata, None if self.groups is None else self.groups[rows])
        return min((parts_per_class[stratum], stratum) for stratum in range(len(self.target.stratum_names)))

    @property
    def folds_note(self) -> str:
        """Why there are fewer folds than usual; "" where there are not."""
        n_splits, class_index = self._smallest_class
        if self.select == "val" or n_splits >= FOLDS:
            return ""
        parts = "training images" if self.groups is None else "groups of training images"
        return f"{n_splits} folds instead of {FOLDS}: {self.target.stratum_names[class_index]!r} has only {n_splits} {parts}"

    def summarize(self) -> SplitsSummary:
        """What a run records of them."""
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
    """The roles of `images`: as the data gives them, else a test split cut by content.

    `select` is `cv` or `val`; None takes `val` where train, val and test are all given, else `cv`. Raises `DataError`.
    """
    root = images.dataset.root
    if select not in {None, "cv", "val"}:
        raise DataError(f"{root}: expected to choose by cv or on val, found --select {select}")
    target = _detect_target(images)
    split_names = np.array([image.item.split or "" for image in images.used], dtype="<U5")
    given_splits = set(split_names) - {""}
    if given_splits and "train" not in given_splits and "" not in split_names:
        raise DataError(f"{root}: expected a train split, found only {', '.join(sorted(given_splits))}")
    split_names[split_names == ""] = "train"
    if "test" in given_splits:
        note = "test split as given"
    elif "val" in given_splits:
        split_names[split_names == "val"] = "test"
        note = "no test split given: the validation split is scored once, choosing is by cross-validation on train"
    else:
        split_names[[_is_test_image(image) for image in images.used]] = "test"
        reason = "only a train split given" if given_splits else "no split given"
        note = f"{reason}: {TEST_FRACTION:.0%} of the images, cut by content, are the test split"
    roles = {role: np.nonzero(split_names == role)[0] for role in ("train", "val", "test")}
    select = select or ("val" if len(roles["val"]) else "cv")
    if select == "val" and not len(roles["val"]):
        raise DataError(
            f"{root}: choosing on a validation split needs train, val and test, found {_format_counts(roles)}; use --select "
            "cv"
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
            f"{root}: expected class folders (root/cat/1.jpg), found images without labels; "
            "put them in a folder per class, or list them in a CSV with the columns path,label"
        )
    target = detect_target(images.labels)
    classes = target.class_names
    if len(classes) < target.min_classes:
        is_feature_file = images.source.holds_features
        finding = f"one class, {classes[0]!r}" if classes else f"no usable {'row' if is_feature_file else 'image'}"
        remedy = (
            "put rows of another class, with finite features, into the file"
            if is_feature_file
            else "add a folder per class, or check that DATA is the folder that holds the class folders"
        )
        raise DataError(f"{root}: expected at least two classes, found {finding}; {remedy}")
    return target


def _is_test_image(image: Image) -> bool:
    """Whether an image is in the test split: decided by its own bytes (or its group), so others cannot move it."""
    identity = image.item.group.encode("utf-8", "surrogateescape") if image.item.group else image.digest
    draw = hashlib.sha256(b"humeris test split" + identity).digest()[:8]
    return int.from_bytes(draw, "big") < TEST_FRACTION * 2**64


def _check_splits(splits: Splits, images: Images) -> None:
    root = images.dataset.root
    if not len(splits.test):
        raise DataError(
            f"{root}: expected images to test on, found none among {len(images.used)} ({splits.note}); add images"
        )
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
                f"{root}: expected at least {min_count} training images of each class, found {counts[stratum]} of "
                f"{name!r} ({total} in all, {first_name} the first; {splits.note}); add images, take the class out, or give "
                "splits"
            )
        if parts_per_class[stratum] < min_count:
            raise DataError(
                f"{root}: expected training images of each class in at least {min_count} groups, for cross-validation "
                f"without a leak, found all {counts[stratum]} of {name!r} in one; use smaller groups or take the class "
                "out"
            )


def _count_parts(labels: np.ndarray, groups: np.ndarray | None) -> Counter[int]:
    """Into how many parts each class can be divided: its images, or its groups."""
    if groups is None:
        return Counter(labels.tolist())
    return Counter(label for label, _ in set(zip(labels.tolist(), groups.tolist(), strict=True)))


def _format_counts(roles: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{role} {len(rows)}" for role, rows in roles.items())
