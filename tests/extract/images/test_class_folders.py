"""Layouts that look like class folders and are not, and class folders that do not look like it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from humeris.cache.errors import DataError
from humeris.extract.images.dataset import Dataset
from humeris.extract.images.registry import detect

JPEG = b"\xff\xd8\xff"


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)


def count(dataset: Dataset) -> dict[tuple[str | None, str | None], int]:
    return dict(Counter((item.split, item.label) for item in dataset.items))


def test_split_folders_of_loose_images_are_never_classes_and_their_lists_are_named(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        touch(tmp_path, *(f"{split}/{number}.png" for number in range(12)))
        (tmp_path / split / "labels.csv").write_text("filename,cat,dog\n0.png,1,0\n")
    with pytest.raises(DataError) as caught:
        detect(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no class folders: test, train, valid contain 36 images (not read: test/labels.csv, train/labels.csv, "
        "valid/labels.csv); put the images into class folders, such as test/cat/1.jpg, or give a list with the columns "
        "path,label"
    )


@pytest.mark.parametrize(("train", "test"), [("training_set", "test_set"), ("train_data", "test1"), ("X_train", "X_test")])
def test_split_words_in_longer_names_are_splits(train: str, test: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{label}/1.png" for split in (train, test) for label in ("cats", "dogs")))
    dataset = detect(tmp_path)
    assert count(dataset) == {(split, label): 1 for split in ("train", "test") for label in ("cats", "dogs")}
    assert dataset.source.describe()["kind"] == "splits"


@pytest.mark.parametrize("inner", ["seg_{}", "{}", "{}_images"])
def test_a_folder_of_the_same_split_inside_a_split_folder_is_no_class(inner: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        touch(tmp_path, *(f"seg_{split}/{inner.format(split)}/{label}/1.png" for label in ("sea", "street")))
    assert count(detect(tmp_path)) == {(split, label): 1 for split in ("train", "test") for label in ("sea", "street")}


def test_what_network_drives_and_authors_leave_behind_is_counted_and_not_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png", "cat/@eaDir/1.png/thumb.png", "#recycle/gone.png", "__MACOSX/cat/._1.png")
    touch(
        tmp_path, "$RECYCLE.BIN/S-1/1.png", "lost+found/x", "Thumbs.db", ".ipynb_checkpoints/1.png", "LICENSE", "README.md"
    )
    touch(tmp_path, "cat/1.txt", "dog/1.xml", "dog/notes.pdf")
    dataset = detect(tmp_path)
    assert count(dataset) == {(None, "cat"): 1, (None, "dog"): 1}
    assert dataset.rejections == ()
    assert set(dataset.ignored) == {
        "#recycle", "$RECYCLE.BIN", "LICENSE", "README.md", "Thumbs.db", "__MACOSX", "cat/1.txt", "cat/@eaDir", "dog/1.xml",
        "dog/notes.pdf", "lost+found",
    }  # fmt: skip
    assert dataset.notes == ()


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/caf\u00e9/1.png", "test/cafe\u0301/2.png", "train/bar/3.png", "test/bar/4.png")
    assert detect(tmp_path).classes == ["bar", "caf\u00e9"]


def test_a_list_beside_class_folders_is_said_not_to_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "labels.csv").write_text("path,label\ncat/1.png,x\ndog/1.png,y\n")
    (note,) = detect(tmp_path).notes
    assert note == (
        "labels.csv not read: labels are the names of the folders; to use the labels of the list, give "
        f"{tmp_path}/labels.csv"
    )
    assert set(detect(tmp_path / "labels.csv").classes) == {"x", "y"}


def test_a_class_that_is_named_like_a_split_or_like_another_class_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.png", "bus/1.png", "Bus/1.png")
    notes = detect(tmp_path).notes
    assert "train used as a class, although it is named like a split" in notes
    assert "the classes Bus and bus differ only in upper and lower case" in notes


@pytest.mark.parametrize("layout", ["train/{}/1.png", "{}/1.png"])
def test_one_folder_too_high_is_one_line_that_names_the_folder_to_give(layout: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"pets/{layout.format(label)}" for label in ("cat", "dog")))
    if "train" in layout:
        touch(tmp_path, *(f"insects/{layout.format(label)}" for label in ("ant", "bee")))
    with pytest.raises(DataError, match=r"one folder too high: .*; give .*/(pets|insects)$"):
        detect(tmp_path)


def test_classes_of_nothing_but_further_folders_are_a_doubt_that_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "flowers/rose/1.png", "flowers/tulip/1.png", "animals/cat/1.png", "animals/dog/1.png")
    (note,) = detect(tmp_path).notes
    assert note.startswith("the classes animals, flowers contain only further folders (cat, dog, rose, …); if those are")


def test_split_folders_inside_class_folders_give_the_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{split}/{n}.png" for label in ("cat", "dog") for split in ("train", "test") for n in "12"))
    assert count(detect(tmp_path)) == {(split, label): 2 for label in ("cat", "dog") for split in ("train", "test")}


def test_images_and_labels_in_split_folders_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/images/{n}.png" for split in ("train", "val") for n in "123"))
    for split in ("train", "val"):
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "1.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match="no class folders: train, val contain only images, labels; put"):
        detect(tmp_path)


def test_folders_without_images_are_no_classes_and_no_refusals(tmp_path: Path) -> None:
    touch(tmp_path / "splits", "train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png")
    (tmp_path / "splits" / "runs" / "weights").mkdir(parents=True)
    touch(tmp_path / "classes", "cat/1.png", "dog/2.png")
    (tmp_path / "classes" / "empty").mkdir()
    for name, folder in (("splits", "runs"), ("classes", "empty")):
        dataset = detect(tmp_path / name)
        assert (dataset.classes, dataset.rejections, dataset.ignored) == (["cat", "dog"], (), (folder,))
