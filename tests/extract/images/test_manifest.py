"""CSV and TSV manifests: every row is used or rejected, and no relative path leads outside the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from humeris.cache.errors import DataError
from humeris.extract.images.dataset import Dataset
from humeris.extract.images.registry import detect


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "images/c.jpg", "with space.jpg", "caf\udce9.jpg"):
        (folder / name).write_bytes(b"")
    (tmp_path / "outside.jpg").write_bytes(b"")
    return folder


def manifest(root: Path, text: str, name: str = "list.csv") -> Dataset:
    (root / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return detect(root / name)


def outcomes(dataset: Dataset) -> dict[str, str]:
    used = {item.name: "used" for item in dataset.items}
    refused = {each.name: each.reason for each in dataset.rejections}
    assert not set(used) & set(refused) - {each.name for each in dataset.rejections if each.reason == "listed_twice"}
    return refused | used


@pytest.mark.parametrize(
    "column", ["path", "file_name", "filename", "file", "image", "filepath", "image_path", "Path", " FILE "]
)
def test_every_usual_name_for_the_path(column: str, root: Path) -> None:
    (item,) = manifest(root, f"{column},label\na.jpg,cat\n").items
    assert (item.name, item.label, item.split, item.group) == ("a.jpg", "cat", None, None)
    assert item.location == str(root / "a.jpg")


@pytest.mark.parametrize("column", ["label", "class", "target", "category", "LABEL"])
def test_every_usual_name_for_the_label(column: str, root: Path) -> None:
    assert manifest(root, f"path,{column}\na.jpg,cat\n").classes == ["cat"]


@pytest.mark.parametrize("column", ["split", "subset", "set"])
def test_every_usual_name_for_the_split(column: str, root: Path) -> None:
    found = manifest(root, f"{column},path,label\nvalid,a.jpg,cat\nTRAIN,b.jpg,cat\n,images/c.jpg,cat\n")
    assert {item.name: item.split for item in found.items} == {"a.jpg": "val", "b.jpg": "train", "images/c.jpg": None}


def test_a_group(root: Path) -> None:
    found = manifest(root, "path,label,group\na.jpg,cat,p1\nb.jpg,cat,\n")
    assert [item.group for item in found.items] == ["p1", None]


def test_tabs_a_byte_order_mark_windows_line_ends_quotes_and_blank_lines(root: Path) -> None:
    assert manifest(root, "path\tlabel\r\na.jpg\tcat, small\r\n", "list.tsv").classes == ["cat, small"]
    found = manifest(root, '\ufeffpath,label\r\n\r\n"with space.jpg","a ""cat"""\r\n\r\n')
    assert [(item.name, item.label) for item in found.items] == [("with space.jpg", 'a "cat"')]


def test_relative_paths_stay_inside_and_absolute_ones_are_used_wherever_they_lead(root: Path) -> None:
    lines = ["./a.jpg", "images/../b.jpg", f"{root}/images/c.jpg", "../outside.jpg", f"{root.parent}/outside.jpg",
             "/etc/passwd", "images/../../outside.jpg"]  # fmt: skip
    found = manifest(root, "path,label\n" + "".join(f"{line},cat\n" for line in lines))
    assert outcomes(found) == {
        **dict.fromkeys(["a.jpg", "b.jpg", "images/c.jpg", lines[4], "/etc/passwd"], "used"),
        **dict.fromkeys([lines[3], lines[6]], "outside"),
    }
    assert found.notes == (f"2 rows list images outside {root} by absolute paths; they are used",)
    assert found.source.read(found.source.get_item(lines[4])) == b""


def test_a_link_that_is_listed_is_followed_as_in_class_folders(root: Path) -> None:
    (root / "link.jpg").symlink_to(root.parent / "outside.jpg")
    (root / "images" / "up").symlink_to(root.parent)
    found = manifest(root, "path,label\na.jpg,x\nlink.jpg,x\nimages/up/outside.jpg,x\n")
    assert outcomes(found) == dict.fromkeys(["a.jpg", "link.jpg", "images/up/outside.jpg"], "used")


def test_every_row_has_one_outcome(root: Path) -> None:
    found = manifest(
        root,
        "path,label,split\na.jpg,cat,train\nb.jpg,,train\nnone.jpg,cat,train\nimages/c.jpg,cat,holdout\n,cat,train\n"
        "images,cat,train\nwith space.jpg\n",
    )
    assert outcomes(found) == {
        "a.jpg": "used",
        "b.jpg": "no_label",
        "none.jpg": "not_found",
        "images/c.jpg": "unknown_split",
        "list.csv:6": "no_path",
        "images": "not_found",
        "with space.jpg": "no_label",
    }


def test_the_same_row_twice_is_used_once(root: Path) -> None:
    found = manifest(root, "path,label\na.jpg,cat\n./a.jpg,cat\n")
    assert [item.name for item in found.items] == ["a.jpg"]
    assert [(each.name, each.reason) for each in found.rejections] == [("a.jpg", "listed_twice")]


@pytest.mark.parametrize("second", ["a.jpg,dog,train,g", "a.jpg,cat,test,g", "a.jpg,cat,train,h"])
def test_the_same_path_with_another_label_split_or_group_is_refused(second: str, root: Path) -> None:
    found = manifest(root, f"path,label,split,group\na.jpg,cat,train,g\nb.jpg,cat,train,g\n{second}\n")
    assert outcomes(found) == {"a.jpg": "conflicting_rows", "b.jpg": "used"}


@pytest.mark.parametrize(
    "path",
    ["nul\0byte.jpg", "x" * 300, "/".join(["d"] * 3000), "loop/x.jpg", "a.jpg/b.jpg", "caf\udcff.jpg", "~/a.jpg", "."],
)
def test_a_path_that_cannot_be_a_file_is_refused_and_the_rest_is_used(path: str, root: Path) -> None:
    (root / "loop").symlink_to("loop")
    found = manifest(root, f"path,label\n{path},cat\na.jpg,cat\n")
    assert [item.name for item in found.items] == ["a.jpg"]
    assert [each.reason for each in found.rejections] in (["not_found"], ["outside"])


def test_a_link_that_is_a_loop_is_refused(root: Path) -> None:
    (root / "loop.jpg").symlink_to("loop.jpg")
    assert outcomes(manifest(root, "path,label\nloop.jpg,cat\na.jpg,cat\n"))["loop.jpg"] == "not_found"


def test_names_that_are_not_utf_8_are_found(root: Path) -> None:
    found = manifest(root, "path,label\ncaf\udce9.jpg,k\udce4se\n")
    (item,) = found.items
    assert (item.name, item.label) == ("caf\udce9.jpg", "k\u00e4se")
    assert found.notes[0].endswith("list.csv: read as cp1252, because it is not UTF-8; save it as UTF-8 if names look wrong")
    assert Path(item.location).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "none"),
        ("path\na.jpg\n", r"no column named label, class or target \(columns: path\)"),
        ("label\ncat\n", r"no column named path, file_name or filename \(columns: label\)"),
        ("a.jpg,cat\n", "no column named path"),
        ('path,label\n"a.jpg,cat\n', "no images: 1 rejected .1 bad_row, such as list.csv:2: line 2: invalid CSV"),
        ('path,label\n"a"b.jpg,cat\n', "no images: 1 rejected .1 bad_row, such as list.csv:2: line 2: invalid CSV"),
        (
            "path,label\n" + "x" * 200_000 + ",cat\n",
            "no images: 1 rejected .1 bad_row, such as list.csv:2: line 2: invalid CSV",
        ),
        ("path,label\n", "no images; give"),
        (
            "path,label\nnone.jpg,cat\n",
            "no images: 1 rejected .1 not_found, .*; if the images are in another folder, give it with --i",
        ),
    ],
)
def test_a_file_that_is_no_list_of_images_is_one_line(text: str, said: str, root: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        manifest(root, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"\xff\xfep\0a\0t\0h\0,\0l\0a\0b\0e\0l\0\n\0", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(100)]
)
def test_bytes_that_are_no_text_are_one_line(data: bytes, root: Path, humeris: Callable[..., Any]) -> None:
    (root / "list.csv").write_bytes(data)
    with pytest.raises(DataError):
        detect(root / "list.csv")
    result = humeris("extract", root / "list.csv", "-b", "nano")
    assert result.code == 2
    assert result.err.rstrip("\n").isprintable()
    assert len(result.err) < 1000


def test_the_folder_of_a_list_may_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert len(manifest(link, "path,label\na.jpg,cat\n").items) == 1


def test_a_list_in_the_working_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "list.csv").write_text("path,label\na.jpg,cat\n")
    monkeypatch.chdir(root)
    (item,) = detect("list.csv").items
    assert os.path.samefile(item.location, root / "a.jpg")
