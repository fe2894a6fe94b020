"""Which images train, choose and are scored: stable, stratified, without leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from humeris.cache.errors import DataError
from humeris.cache.store import Store
from humeris.cache.typed_json import to_json
from humeris.classify.data.splits import FOLDS, Splits, split
from humeris.extract.images.class_folders import ClassFolders
from humeris.extract.images.dataset import Dataset
from humeris.extract.images.images import Image, Images
from humeris.extract.images.item import Item
from humeris.extract.images.load import load_images

Row = tuple[str, str, str | None, str | None]  # content, label, split, group


def images_of(rows: Sequence[Row], prefix: str = "") -> Images:
    """Images whose bytes are the contents; `prefix` changes the names alone."""
    root = Path("photos")
    used = []
    for content, label, role, group in rows:
        name = f"{prefix}{label}/{content}.png"
        item = Item(name, root / name, label or None, role, group)
        used.append(Image(item, hashlib.sha256(content.encode()).digest(), "PNG"))
    dataset = Dataset(ClassFolders(root), tuple(image.item for image in used))
    return Images(dataset, tuple(used), (), ())


def unsplit(count: int, classes: Sequence[str] = ("cat", "dog", "owl"), start: int = 0) -> list[Row]:
    return [(f"{label}{number}", label, None, None) for label in classes for number in range(start, start + count)]


def roles(images: Images, splits: Splits) -> dict[bytes, str]:
    return {images.used[row].digest: role for role in ("train", "val", "test") for row in getattr(splits, role)}


def test_without_a_split_about_a_fifth_of_the_images_are_tested_on() -> None:
    images = images_of(unsplit(400))
    splits = split(images)
    share = len(splits.test) / len(images.used)
    assert 0.16 < share < 0.24
    assert splits.select == "cv"
    assert not len(splits.val)
    assert splits.note == "no splits: 20% of the images, chosen by content hash, are the test split"


def test_where_all_is_marked_train_the_note_says_that_some_of_it_is_tested_on() -> None:
    splits = split(images_of([(f"{label}{i}", label, "train", None) for label in "ab" for i in range(100)]))
    assert len(splits.test)
    assert splits.note == "only a train split: 20% of the images, chosen by content hash, are the test split"


def test_every_image_has_exactly_one_role() -> None:
    rows = [(f"{label}{i}", label, role, None) for label in "ab" for i, role in enumerate(["train", "val", "test"] * 4)]
    splits = split(images_of(rows))
    together = np.concatenate([splits.train, splits.val, splits.test])
    assert sorted(together.tolist()) == list(range(len(rows)))


def test_adding_images_moves_none_between_splits() -> None:
    few, many = images_of(unsplit(30)), images_of(unsplit(90))
    before, after = roles(few, split(few)), roles(many, split(many))
    assert before == {digest: after[digest] for digest in before}
    assert set(after.values()) == {"train", "test"}


def test_names_labels_and_order_of_the_images_do_not_decide_their_split() -> None:
    rows = unsplit(40)
    plain, other = images_of(rows), images_of(rows[::-1], prefix="renamed/")
    assert roles(plain, split(plain)) == roles(other, split(other))


def test_train_and_val_make_val_the_test_split_and_choose_by_cross_validation_on_train() -> None:
    rows = [(f"{label}{i}", label, role, None) for label in "ab" for i, role in enumerate(["train"] * 8 + ["val"] * 3)]
    splits = split(images_of(rows))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (16, 0, 6)
    assert splits.select == "cv"
    assert "the validation split is used as test" in splits.note
    for fit, score in splits.iter_folds(0):
        assert not set(splits.test) & (set(fit) | set(score))


def three_splits() -> list[Row]:
    return [
        (f"{label}{number}", label, role, None)
        for label in "ab"
        for number, role in enumerate(["train"] * 8 + ["val"] * 3 + ["test"] * 2)
    ]


def test_all_three_splits_choose_on_val() -> None:
    splits = split(images_of(three_splits()))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (16, 6, 4)
    assert splits.select == "val"
    ((fit, score),) = splits.iter_folds(0)
    assert fit.tolist() == splits.train.tolist()
    assert score.tolist() == splits.val.tolist()
    assert splits.development.tolist() == sorted([*splits.train, *splits.val])


def test_select_cv_cross_validates_on_train_and_val_where_all_three_are_given() -> None:
    splits = split(images_of(three_splits()), "cv")
    folds = list(splits.iter_folds(0))
    assert len(folds) == FOLDS
    scored = sorted(row for _, score in folds for row in score.tolist())
    assert scored == splits.development.tolist()


def test_select_val_without_three_splits_says_what_there_is_and_what_to_use() -> None:
    rows = [(f"{label}{i}", label, role, None) for label in "ab" for i, role in enumerate(["train"] * 8 + ["val"] * 3)]
    with pytest.raises(
        DataError,
        match=r"--select val needs separate train, val and test splits \(train 16, val 0, test 6\); use --select cv",
    ):
        split(images_of(rows), "val")


def test_a_select_that_is_neither_cv_nor_val_is_refused() -> None:
    with pytest.raises(DataError, match="cv"):
        split(images_of(unsplit(40)), "guess")


def test_folds_are_stratified_disjoint_repeatable_and_cover_every_training_image() -> None:
    rows = [*unsplit(50, ("common",)), *unsplit(20, ("rare",))]
    splits = split(images_of(rows))
    folds = list(splits.iter_folds(3))
    share = np.bincount(splits.labels[splits.train]) / len(splits.train)
    scored: list[int] = []
    for fit, score in folds:
        assert not set(fit) & set(score)
        assert sorted([*fit, *score]) == splits.development.tolist()
        found = np.bincount(splits.labels[score], minlength=2)
        assert np.abs(found - share * len(score)).max() <= 1
        scored.extend(score.tolist())
    assert sorted(scored) == splits.development.tolist()
    again = list(splits.iter_folds(3))
    assert all((one[1] == two[1]).all() for one, two in zip(folds, again, strict=True))
    assert any(
        (one[1] != two[1]).any() for one, two in zip(folds, splits.iter_folds(4), strict=True) if len(one[1]) == len(two[1])
    )


def test_a_class_with_three_training_images_makes_three_folds() -> None:
    rows = [(f"{label}{i}", label, role, None) for label, n in (("a", 9), ("b", 3)) for i in range(n) for role in ["train"]]
    rows += [("a99", "a", "test", None), ("b99", "b", "test", None)]
    splits = split(images_of(rows))
    folds = list(splits.iter_folds(0))
    assert len(folds) == 3
    assert all(1 in splits.labels[score] for _, score in folds)


def grouped(count: int = 60, size: int = 4) -> list[Row]:
    return [(f"{label}{i}", label, None, f"{label}-patient{i // size}") for label in "ab" for i in range(count)]


def test_a_group_never_straddles_train_and_test() -> None:
    images = images_of(grouped())
    splits = split(images)
    assert splits.groups is not None
    assert len(splits.test)
    assert not set(splits.groups[splits.train]) & set(splits.groups[splits.test])


def test_a_group_never_straddles_folds() -> None:
    splits = split(images_of(grouped()))
    assert splits.groups is not None
    for fit, score in splits.iter_folds(0):
        assert len(score)
        assert not set(splits.groups[fit]) & set(splits.groups[score])


def test_images_without_a_group_are_not_one_group_together() -> None:
    rows = [*grouped(20), *[(f"lone{label}{i}", label, None, None) for label in "ab" for i in range(40)]]
    images = images_of(rows)
    splits = split(images)
    lone = np.array([image.item.group is None for image in images.used])
    assert lone[splits.test].any()
    assert lone[splits.train].any()


def test_the_labels_number_the_sorted_class_names() -> None:
    images = images_of(unsplit(20, ("zebra", "ant", "Bee")))
    splits = split(images)
    assert splits.classes == ("Bee", "ant", "zebra")
    assert [splits.classes[number] for number in splits.labels] == images.labels


def test_a_summary_counts_the_roles() -> None:
    splits = split(images_of(three_splits()))
    assert to_json(splits.summarize()) == {
        "classes": ["a", "b"], "train": 16, "val": 6, "test": 4, "select": "val", "note": "test split as given",
            "target_name": "single_label",
    }  # fmt: skip


def test_one_class_only_is_refused_with_its_name() -> None:
    with pytest.raises(DataError, match=r": only one class, 'cat'; add a folder per class"):
        split(images_of(unsplit(10, ("cat",))))


def test_images_without_labels_are_refused_with_the_layout_that_is_expected() -> None:
    rows: list[Row] = [(f"{i}", "", None, None) for i in range(10)]
    with pytest.raises(DataError, match=r"the images have no labels; put them in a folder per class \(root/cat/1.jpg\)"):
        split(images_of(rows))


def test_a_class_with_one_image_is_refused_with_its_name_and_file() -> None:
    with pytest.raises(
        DataError, match=r"class 'owl': .* \(1 in all, e.g. owl/owl0.png; no splits: 20% .*\); add images, remove the class"
    ):
        split(images_of([*unsplit(40, ("cat", "dog")), *unsplit(1, ("owl",))]))


def test_a_class_that_is_only_in_the_test_split_is_refused() -> None:
    rows = [(f"{label}{i}", label, role, None) for label in "ab" for i, role in enumerate(["train"] * 5 + ["test"] * 3)]
    with pytest.raises(DataError, match=r"too few training images of class 'new': 0, at least 2 needed \(2 in all"):
        split(images_of([*rows, ("new0", "new", "test", None), ("new1", "new", "test", None)]))


def test_a_class_that_is_only_in_val_is_refused_when_choosing_on_val() -> None:
    rows = [*three_splits(), ("new0", "new", "val", None), ("new1", "new", "val", None)]
    with pytest.raises(DataError, match=r"too few training images of class 'new': 0, at least 1 needed"):
        split(images_of(rows))


def test_a_cut_that_leaves_nothing_to_test_on_is_refused() -> None:
    trained = [row for row in unsplit(60) if _is_train(row[0])]
    with pytest.raises(DataError, match=r"none of the \d+ images is in the test split"):
        split(images_of(trained))


def _is_train(content: str) -> bool:
    """Whether an image of these bytes lies in train, asked of the function itself."""
    images = images_of([*unsplit(40), (content, "cat", None, None)])
    return len(images.used) - 1 in split(images).train


def test_a_test_split_without_a_train_split_is_refused() -> None:
    rows = [(f"{label}{i}", label, "test", None) for label in "ab" for i in range(5)]
    with pytest.raises(DataError, match=r"the data has no train split, only test; add a train split"):
        split(images_of(rows))


def test_classes_that_all_lie_in_one_group_are_an_error_and_no_traceback() -> None:
    rows: list[Row] = [(f"{label}{i}", label, "train", f"group-{label}") for label in "ab" for i in range(6)]
    rows += [(f"t{label}{i}", label, "test", f"test-{label}") for label in "ab" for i in range(2)]
    with pytest.raises(DataError, match="group"):
        list(split(images_of(rows)).iter_folds(0))


def test_classes_of_five_images_without_splits_are_cut_class_by_class(tmp_path: Path) -> None:
    for label in range(200):
        for number in range(5):
            path = tmp_path / "data" / f"{label:03}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + f"{label} {number}".encode())
    images = load_images(tmp_path / "data", Store(tmp_path / "cache", write=True), jobs=1)
    splits = split(images)
    labels = np.array(images.labels)
    assert set(np.unique(labels[splits.test], return_counts=True)[1]) == {1}
    assert set(np.unique(labels[splits.train], return_counts=True)[1]) == {4}
    assert "20% of the images of each class, chosen by content hash" in splits.note
    again = split(images.sort_by_digest())
    names = [image.name for image in images.used]
    assert {names[row] for row in splits.test} == {images.sort_by_digest().used[row].name for row in again.test}
