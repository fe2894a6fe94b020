"""Listing of folders: the usual layouts are recognized, and no file is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from humeris.cache.errors import DataError
from humeris.extract.images.registry import detect
from humeris.extract.images.split_names import SPLITS


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def listed(root: Path, limit: int | None = None) -> list[tuple[str, str | None, str | None]]:
    return [(item.name, item.label, item.split) for item in detect(root, limit).items]


def refusals(root: Path) -> dict[str, str]:
    return {each.name: each.reason for each in detect(root).rejections}


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "cat/2.jpg", "cat/1.jpg", "dog/1.png")
    dataset = detect(tmp_path)
    assert dataset.source.describe()["kind"] == "folders"
    assert dataset.classes == ["cat", "dog"]
    assert listed(tmp_path) == [("cat/1.jpg", "cat", None), ("cat/2.jpg", "cat", None), ("dog/1.png", "dog", None)]


def test_a_class_is_the_first_folder_however_deep_the_images_lie(tmp_path: Path) -> None:
    touch(tmp_path, "cat/2024/may/1.jpg", "cat/0.jpg", "dog/1.png")
    assert listed(tmp_path)[:2] == [("cat/0.jpg", "cat", None), ("cat/2024/may/1.jpg", "cat", None)]


@pytest.mark.parametrize("name", [*SPLITS, *(name.upper() for name in SPLITS)])
def test_split_folders_under_every_name(name: str, tmp_path: Path) -> None:
    other = "train" if SPLITS[name.lower()] != "train" else "test"
    touch(tmp_path, f"{name}/cat/1.jpg", f"{other}/dog/1.jpg")
    dataset = detect(tmp_path)
    assert dataset.source.describe()["kind"] == "splits"
    assert {item.name: item.split for item in dataset.items} == {
        f"{name}/cat/1.jpg": SPLITS[name.lower()],
        f"{other}/dog/1.jpg": other,
    }


def test_a_folder_beside_split_folders_is_refused_and_so_are_loose_files(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg", "extra/1.jpg", "train/loose.jpg", "readme.txt")
    assert len(detect(tmp_path).items) == 2
    assert refusals(tmp_path) == {"extra": "not_a_split", "train/loose.jpg": "no_label"}
    assert detect(tmp_path).ignored == ("readme.txt",)


def test_a_class_called_test_is_a_class_when_nothing_lies_in_folders_below_it(tmp_path: Path) -> None:
    touch(tmp_path, "test/1.jpg", "rest/1.jpg")
    assert detect(tmp_path).classes == ["rest", "test"]


def test_a_file_beside_class_folders_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "loose.jpg")
    assert refusals(tmp_path) == {"loose.jpg": "no_label"}


def test_a_flat_folder_has_images_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg")
    assert detect(tmp_path).source.describe()["kind"] == "flat"
    assert listed(tmp_path) == [("a.jpg", None, None), ("b.jpg", None, None)]


@pytest.mark.parametrize("name", [".DS_Store", ".hidden.jpg", "Thumbs.db", "desktop.ini", ".git/config", "__MACOSX/1.jpg"])
def test_litter_is_passed_over(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", f"cat/{name}", name)
    assert listed(tmp_path) == [("cat/1.jpg", "cat", None)]
    assert refusals(tmp_path) == {}


ODD = [
    "new\nline.jpg",
    "=1+1.jpg",
    "-rf.jpg",
    "a b\t.jpg",
    "caf\udce9.jpg",
    "\u202egpj.exe",
    "日本.jpg",
    "x" * 251 + ".jpg",
    "*.jpg",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_names(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, f"cat/{name}")
    (item,) = detect(root).items
    assert item.name == f"cat/{name}"
    assert Path(item.location).read_bytes() == b""


def test_an_odd_class_name_is_a_class(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number, name in enumerate(ODD):
        touch(root, f"{name}/{number}")
    assert set(detect(root).classes) == set(ODD)


def test_the_order_is_by_bytes_and_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    names = ["b", "a", "Z", "ä", "\udcff", "10", "9"]
    touch(tmp_path, *(f"cat/{name}" for name in names))
    assert [Path(name).name for name, _, _ in listed(tmp_path)] == sorted(names, key=os.fsencode)


def test_links_to_folders_are_followed_but_not_into_loops(tmp_path: Path) -> None:
    touch(tmp_path / "data", "cat/1.jpg")
    touch(tmp_path, "outside/2.jpg")
    (tmp_path / "data" / "cat" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "cat" / "self").symlink_to("self")
    (tmp_path / "data" / "cat" / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "data" / "cat" / "pipe.jpg")
    (tmp_path / "data" / "ox").symlink_to(tmp_path / "outside")
    assert listed(tmp_path / "data") == [("cat/1.jpg", "cat", None), ("dog/2.jpg", "dog", None)]
    assert refusals(tmp_path / "data") == dict.fromkeys(
        ["cat/gone.jpg", "cat/loop", "cat/pipe.jpg", "cat/self", "ox"], "not_a_file"
    )


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/1", "data/cat/2.jpg")
    (tmp_path / "data" / "cat" / "1.jpg").symlink_to(tmp_path / "store" / "1")
    assert [name for name, _, _ in listed(tmp_path / "data")] == ["cat/1.jpg", "cat/2.jpg"]


def test_a_folder_named_like_an_image_is_searched_like_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "cat/x.jpg/1.jpg", "cat/2.jpg")
    assert [name for name, _, _ in listed(tmp_path)] == ["cat/2.jpg", "cat/x.jpg/1.jpg"]


def test_the_limit_is_per_class_and_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{label}/{number}" for split in ("train", "test") for label in "ab" for number in range(5)))
    found = listed(tmp_path, limit=2)
    assert len(found) == 8
    assert {name for name, _, _ in found if name.startswith("train/a")} == {"train/a/0", "train/a/1"}


def test_nothing_is_opened(tmp_path: Path) -> None:
    """A listed file need not be readable or an image, and opening a FIFO would block."""
    touch(tmp_path, "cat/1.jpg")
    os.mkfifo(tmp_path / "cat" / "2.jpg")
    (tmp_path / "cat" / "1.jpg").chmod(0)
    assert len(detect(tmp_path).items) == 1


@pytest.mark.parametrize("name", ["nothing", "file.txt", "file.zip", "empty", "hidden"])
def test_data_without_images_is_one_line_that_says_why(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "file.txt", "file.zip", "hidden/.x")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    fault = {
        "nothing": "no such file or folder; check",
        "file.txt": "a text file; save the list as CSV",
        "file.zip": "kind of data is not",
    }
    with pytest.raises(DataError, match=f"{name}: {fault.get(name, 'no images; give images in class folders')}") as caught:
        detect(tmp_path / name)
    assert "\n" not in str(caught.value)
