"""Which images train, which choose and which are scored once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import DataError
from ...extract.images.load import Image, Images

TEST_FRACTION = 0.2
FOLDS = 5


@dataclass(frozen=True)
class Splits:
    """Row numbers of the used images, by role.

    labels (n,): class number of each image. train, val, test: rows; val is empty when choosing is by cross-validation.
    select: `cv` or `val`. note: how the roles were given, in words. root: where the images are.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray | None
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    select: str
    note: str
    root: Path

    @property
    def development(self) -> np.ndarray:
        """Rows that may be learnt from: train, and val."""
        return np.sort(np.concatenate([self.train, self.val]))

    def folds(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(fit, score) rows: one pair with a validation split, five stratified pairs with cross-validation."""
        if self.select == "val":
            yield self.train, self.val
            return
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        rows, labels = self.development, self.labels[self.development]
        groups = None if self.groups is None else self.groups[rows]
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        count, _ = self._fewest
        count = min(FOLDS, count)
        for fit, score in kind(count, shuffle=True, random_state=seed).split(rows, labels, groups):
            if len(np.unique(labels[fit])) < len(self.classes):  # large groups can leave a class nowhere else
                raise DataError(
                    f"{self.root}: expected every class in every training part of {count} folds, found one that lies in "
                    "too few groups; use smaller ones, or give a validation split"
                )
            yield rows[fit], rows[score]

    @property
    def _fewest(self) -> tuple[int, int]:
        """The smallest number of parts that a class can be divided into, its images or its groups, and that class."""
        rows = self.development
        parts = _parts(self.labels[rows], None if self.groups is None else self.groups[rows])
        return min((parts[number], number) for number in range(len(self.classes)))

    @property
    def folds_note(self) -> str:
        """Why there are fewer folds than usual; "" where there are not."""
        count, number = self._fewest
        if self.select == "val" or count >= FOLDS:
            return ""
        parts = "training images" if self.groups is None else "groups of training images"
        return f"{count} folds instead of {FOLDS}: {self.classes[number]!r} has only {count} {parts}"

    def summary(self) -> dict[str, Any]:
        """Counts, as JSON values."""
        return {
            "classes": list(self.classes),
            "train": len(self.train),
            "val": len(self.val),
            "test": len(self.test),
            "select": self.select,
            "note": "; ".join(note for note in (self.note, self.folds_note) if note),
        }


def split(images: Images, select: str | None = None) -> Splits:
    """The roles of `images`: as the data gives them, else a test split cut by content.

    `select` is `cv` or `val`; None takes `val` where train, val and test are all given, else `cv`. Raises `DataError`.
    """
    root = images.dataset.root
    if select not in {None, "cv", "val"}:
        raise DataError(f"{root}: expected to choose by cv or on val, found --select {select}")
    classes = _classes(images)
    given = np.array([image.item.split or "" for image in images.used], dtype="<U5")
    found = set(given) - {""}
    if found and "train" not in found and "" not in given:
        raise DataError(f"{root}: expected a train split, found only {', '.join(sorted(found))}")
    given[given == ""] = "train"
    if "test" in found:
        note = "test split as given"
    elif "val" in found:
        given[given == "val"] = "test"
        note = "no test split given: the validation split is scored once, choosing is by cross-validation on train"
    else:
        given[[_held_out(image) for image in images.used]] = "test"
        what = "only a train split given" if found else "no split given"
        note = f"{what}: {TEST_FRACTION:.0%} of the images, cut by content, are the test split"
    roles = {role: np.nonzero(given == role)[0] for role in ("train", "val", "test")}
    select = select or ("val" if len(roles["val"]) else "cv")
    if select == "val" and not len(roles["val"]):
        raise DataError(
            f"{root}: choosing on a validation split needs train, val and test, found {_counts(roles)}; use --select cv"
        )
    labels = np.array([classes.index(label) for label in images.labels])
    names = [image.item.group or image.name for image in images.used]
    grouped = any(image.item.group for image in images.used)
    groups = np.array(names) if grouped else None
    splits = Splits(classes, labels, groups, roles["train"], roles["val"], roles["test"], select, note, root)
    _check(splits, images)
    return splits


def _classes(images: Images) -> tuple[str, ...]:
    root, kind = images.dataset.root, images.dataset.kind
    if kind == "flat":
        raise DataError(
            f"{root}: expected class folders (root/cat/1.jpg), found images without labels; "
            "put them in a folder per class, or list them in a CSV with the columns path,label"
        )
    classes = tuple(sorted(set(images.labels)))
    if len(classes) < 2:
        features = kind == "features"
        found = f"one class, {classes[0]!r}" if classes else f"no usable {'row' if features else 'image'}"
        what = (
            "put rows of another class, with finite features, into the file"
            if features
            else "add a folder per class, or check that DATA is the folder that holds the class folders"
        )
        raise DataError(f"{root}: expected at least two classes, found {found}; {what}")
    return classes


def _held_out(image: Image) -> bool:
    """Whether an image is in the test split: decided by its own bytes (or its group), so others cannot move it."""
    identity = image.item.group.encode("utf-8", "surrogateescape") if image.item.group else image.digest
    draw = hashlib.sha256(b"humeris test split" + identity).digest()[:8]
    return int.from_bytes(draw, "big") < TEST_FRACTION * 2**64


def _check(splits: Splits, images: Images) -> None:
    root = images.dataset.root
    if not len(splits.test):
        raise DataError(
            f"{root}: expected images to test on, found none among {len(images.used)} ({splits.note}); add images"
        )
    learnt = splits.train if splits.select == "val" else splits.development
    counts = Counter(splits.labels[learnt].tolist())
    parts = _parts(splits.labels[learnt], None if splits.groups is None else splits.groups[learnt])
    least = 1 if splits.select == "val" else 2
    for number, name in enumerate(splits.classes):
        if counts[number] < least:
            total = int((splits.labels == number).sum())
            where = next(image.name for image in images.used if image.item.label == name)
            raise DataError(
                f"{root}: expected at least {least} training images of each class, found {counts[number]} of {name!r} "
                f"({total} in all, {where} the first; {splits.note}); add images, take the class out, or give splits"
            )
        if parts[number] < least:
            raise DataError(
                f"{root}: expected training images of each class in at least {least} groups, for cross-validation without "
                f"a leak, found all {counts[number]} of {name!r} in one; use smaller groups or take the class out"
            )


def _parts(labels: np.ndarray, groups: np.ndarray | None) -> Counter[int]:
    """Into how many parts each class can be divided: its images, or its groups."""
    if groups is None:
        return Counter(labels.tolist())
    return Counter(label for label, _ in set(zip(labels.tolist(), groups.tolist(), strict=True)))


def _counts(roles: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{role} {len(rows)}" for role, rows in roles.items())
