"""JSON Lines, Parquet and metadata files: every row has one outcome, and an invalid row does not affect the others."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from humeris.cache.errors import DataError
from humeris.extract.images.dataset import Dataset
from humeris.extract.images.registry import detect

Cell = object


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    touch(folder, "a.jpg", "b.jpg", "images/c.jpg", "d.jpg", "caf\udce9.jpg")
    touch(tmp_path, "outside.jpg")
    return folder


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def outcomes(dataset: Dataset) -> dict[str, str]:
    found = [(item.name, "used") for item in dataset.items] + [(each.name, each.reason) for each in dataset.rejections]
    assert max(Counter(name for name, _ in found).values()) == 1, found
    return dict(found)


def lines(root: Path, *values: Any, name: str = "list.jsonl") -> Dataset:
    texts = [value if isinstance(value, str | bytes) else json.dumps(value) for value in values]
    (root / name).write_bytes(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts))
    return detect(root / name)


def parquet(root: Path, name: str = "list.parquet", **columns: Any) -> Dataset:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    pyarrow.write_table(pytest.importorskip("pyarrow").table(columns), root / name)
    return detect(root / name)


@pytest.mark.parametrize("name", ["list.jsonl", "list.ndjson", "LIST.JSONL"])
def test_json_lines_name_images_as_a_csv_does(name: str, root: Path) -> None:
    found = lines(
        root,
        {"file_name": "a.jpg", "Label": "cat", "split": "valid", "group": 7},
        {" path ": "./images/c.jpg", "class": "dog", "other": [1, {"x": 2}]},
        name=name,
    )
    assert [(item.name, item.label, item.split, item.group) for item in found.items] == [
        ("a.jpg", "cat", "val", "7"),
        ("images/c.jpg", "dog", None, None),
    ]
    assert (found.source.describe()["kind"], found.root) == ("manifest", root)
    assert found.rejections == ()


@pytest.mark.parametrize(
    ("label", "text"), [(3, "3"), (3.0, "3"), (2.5, "2.5"), (True, "true"), (" cat ", "cat"), (10**30, "1" + "0" * 30)]
)
def test_a_label_may_be_a_number(label: Cell, text: str, root: Path) -> None:
    assert lines(root, {"path": "a.jpg", "label": label}).classes == [text]


BAD = [
    "{",
    "[]",
    "7",
    "null",
    "not json",
    '{"path": ["b.jpg"], "label": "x"}',
    '{"path": "b.jpg", "label": {"x": 1}}',
    '{"path": "b.jpg", "label": "\\ud800"}',
    '{"path": "b.jpg", "label": ' + "9" * 5000 + "}",
    "[" * 100_000,
    '{"path": "b.jpg", "label": "' + "x" * (1 << 20) + '"}',
    b"\xff\xfe\0{",
    b'{"path": "b.jpg\0", "label',
]


@pytest.mark.parametrize("bad", BAD)
def test_a_line_that_is_no_object_is_refused_by_its_number_and_the_rest_is_used(bad: str | bytes, root: Path) -> None:
    found = lines(root, {"path": "a.jpg", "label": "cat"}, bad, "", {"path": "d.jpg", "label": "cat"})
    assert outcomes(found) == {"a.jpg": "used", "list.jsonl:2": "bad_row", "d.jpg": "used"}
    (refusal,) = found.rejections
    faults = (
        "invalid JSON: ",
        "list in place of ",
        "int in place of a JSON object",
        "NoneType in place of a JSON object",
        "dict in place of text or a number",
        "invalid text: ",
        "the line is",
    )
    assert refusal.detail.startswith(tuple(f"line 2: {fault}" for fault in faults)) or "integer string" in refusal.detail
    assert len(refusal.detail) < 300


@pytest.mark.parametrize("missing", ["NaN", "null", '""', '" "'])
def test_a_missing_label_is_no_class(missing: str, root: Path) -> None:
    found = lines(root, '{"path": "a.jpg", "label": "cat"}', f'{{"path": "b.jpg", "label": {missing}}}')
    assert outcomes(found) == {"a.jpg": "used", "b.jpg": "no_label"}


def test_a_csv_that_pandas_wrote_with_missing_values_keeps_its_sound_rows(root: Path) -> None:
    (root / "list.csv").write_text("path,label,split,group\na.jpg,cat,nan,nan\nb.jpg,nan,train,1\n,cat,,\nd.jpg,,,\n")
    found = detect(root / "list.csv")
    assert outcomes(found) == {"a.jpg": "used", "b.jpg": "used", "list.csv:4": "no_path", "d.jpg": "no_label"}
    assert (found.items[0].split, found.items[0].group) == (None, None)
    assert (found.items[1].label, found.notes) == (
        "nan",
        ("nan used as a class; leave the cell empty where the label is unknown",),
    )


def test_a_bad_line_of_a_csv_is_refused_by_its_number_and_the_rest_is_used(root: Path) -> None:
    huge = "x" * 200_000
    (root / "list.csv").write_text(f'path,label\na.jpg,cat\n"b.jpg"x,cat\n{huge},cat\nd.jpg,dog\n"images/c.jpg,cat\n')
    found = detect(root / "list.csv")
    assert outcomes(found) == {"a.jpg": "used", "d.jpg": "used"} | {f"list.csv:{line}": "bad_row" for line in (3, 4, 6)}


def test_bytes_that_are_no_utf_8_and_a_byte_order_mark_are_read(root: Path) -> None:
    found = lines(root, b'\xef\xbb\xbf{"path": "caf\xe9.jpg", "label": "k\xe4se"}')
    assert [(item.name, item.label) for item in found.items] == [("caf\udce9.jpg", "k\udce4se")]


def test_relative_paths_of_json_lines_stay_inside(root: Path) -> None:
    (root / "link.jpg").symlink_to(root.parent / "outside.jpg")
    paths = ["a.jpg", "../outside.jpg", "/etc/passwd", "link.jpg", "none.jpg", "b.jpg"]
    found = lines(root, *({"path": path, "label": "x", "split": "holdout" if path == "b.jpg" else ""} for path in paths))
    assert outcomes(found) == {
        "a.jpg": "used",
        "../outside.jpg": "outside",
        "/etc/passwd": "used",
        "link.jpg": "used",
        "none.jpg": "not_found",
        "b.jpg": "unknown_split",
    }


def test_another_spelling_of_the_folder_names_the_same_image(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    (link / "list.csv").write_text(f"path,label\n{os.path.realpath(root)}/images/c.jpg,cat\nimages/c.jpg,cat\n")
    found = detect(link / "list.csv")
    assert [item.name for item in found.items] == ["images/c.jpg"]
    assert [each.reason for each in found.rejections] == ["listed_twice"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (['{"text": "a caption", "label": "cat"}'], r"no column named path.* \(columns: text, label\)"),
        (
            ['{"path": "a.jpg"}', '{"path": "b.jpg"}'],
            r"no column named label, class or target \(columns: path\); give its name with",
        ),
        (["oops", "{"], "no images: 2 rejected .2 bad_row, such as list.jsonl:1: line 1: invalid JSON: "),
        ([""], "no images; give"),
    ],
)
def test_json_lines_without_images_are_one_line_that_says_why(texts: list[str], said: str, root: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        lines(root, *texts)
    assert "\n" not in str(caught.value)


def test_parquet_names_images_as_a_csv_does(root: Path) -> None:
    found = parquet(
        root,
        extra=[{"deep": 1}] * 5,
        file_name=["a.jpg", "b.jpg", "images/c.jpg", "d.jpg", None],
        label=[1.0, float("nan"), 0.0, None, 1.0],
        split=["train", "train", "test", None, None],
    )
    assert [(item.name, item.label, item.split) for item in found.items] == [
        ("a.jpg", "1", "train"),
        ("images/c.jpg", "0", "test"),
    ]
    assert outcomes(found) == {
        "a.jpg": "used", "b.jpg": "no_label", "images/c.jpg": "used", "d.jpg": "no_label", "list.parquet:5": "no_path",
    }  # fmt: skip


def test_parquet_holds_text_as_categories_or_bytes_too(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    label = pyarrow.array(["cat", "dog", "cat"]).dictionary_encode()
    found = parquet(root, path=pyarrow.array([b"a.jpg", b"caf\xe9.jpg", b"d.jpg"], pyarrow.binary()), label=label)
    assert {item.name: item.label for item in found.items} == {"a.jpg": "cat", "caf\udce9.jpg": "dog", "d.jpg": "cat"}


def test_parquet_rows_of_odd_types_are_refused_by_their_number(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    dates = pyarrow.array([None, 1, 2], pyarrow.timestamp("s"))
    assert outcomes(parquet(root, path=["a.jpg", "b.jpg", "d.jpg"], label=["x"] * 3, group=dates)) == {
        "a.jpg": "used",
        "list.parquet:2": "bad_row",
        "list.parquet:3": "bad_row",
    }


def test_parquet_with_the_images_inside_is_one_line(root: Path) -> None:
    with pytest.raises(DataError, match="column image is of the nested type struct"):
        parquet(root, image=[{"bytes": b"x", "path": "a.jpg"}], label=["cat"])
    with pytest.raises(DataError, match="no column named label"):
        parquet(root, image=["a.jpg"], caption=["a cat"])


def test_damaged_parquet_is_a_data_error_in_one_line(root: Path) -> None:
    parquet(root, path=["a.jpg"] * 50, label=["cat"] * 50)
    good = (root / "list.parquet").read_bytes()
    for number in range(0, len(good), 7):
        for damaged in (good[:number], good[:number] + bytes([good[number] ^ 255]) + good[number + 1 :]):
            (root / "list.parquet").write_bytes(damaged)
            with suppress(DataError):
                detect(root / "list.parquet")
    (root / "list.parquet").write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError) as caught:
        detect(root / "list.parquet")
    assert "\n" not in str(caught.value)


def test_without_pyarrow_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "list.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'humeris\[parquet\]'"):
        detect(root / "list.parquet")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_metadata_file_beside_images_labels_them(form: str, root: Path) -> None:
    rows = [{"file_name": "a.jpg", "label": "cat"}, {"file_name": "images/c.jpg", "label": "dog"}]
    if form == "csv":
        (root / "metadata.csv").write_text("file_name,label\na.jpg,cat\nimages/c.jpg,dog\n")
    elif form == "jsonl":
        (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet(root, "metadata.parquet", file_name=["a.jpg", "images/c.jpg"], label=["cat", "dog"])
    found = detect(root)
    assert (found.source.describe()["kind"], found.source.data, found.root) == ("manifest", str(root), root)
    assert {item.name: item.label for item in found.items} == {"a.jpg": "cat", "images/c.jpg": "dog"}
    assert outcomes(found) == {"a.jpg": "used", "images/c.jpg": "used"} | dict.fromkeys(
        ["b.jpg", "d.jpg", "caf\udce9.jpg"], "not_listed"
    )


def test_metadata_in_split_folders_gives_the_split_and_paths_relative_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "train/x/2.jpg", "validation/1.jpg", "test/1.jpg", "loose.jpg")
    (tmp_path / "train/metadata.csv").write_text("file_name,label,split\n1.jpg,cat,\nx/2.jpg,dog,val\n../test/1.jpg,cat,\n")
    (tmp_path / "validation/metadata.jsonl").write_text('{"file_name": "1.jpg", "label": "dog"}\n')
    found = detect(tmp_path)
    assert {item.name: (item.label, item.split) for item in found.items} == {
        "train/1.jpg": ("cat", "train"),
        "train/x/2.jpg": ("dog", "val"),
        "validation/1.jpg": ("dog", "val"),
    }
    assert {each.name: each.reason for each in found.rejections} == {
        "../test/1.jpg": "outside",
        "test/1.jpg": "not_listed",
        "loose.jpg": "not_listed",
    }
    assert all(Path(item.location).is_file() for item in found.items)


def test_metadata_without_labels_leaves_class_folders_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,text\ncat/1.jpg,a cat\n")
    found = detect(tmp_path)
    assert found.source.describe()["kind"] == "folders"
    assert outcomes(found) == {"cat/1.jpg": "used", "dog/1.jpg": "used"}
    assert found.ignored == ("metadata.csv",)
    assert "metadata.csv not read: labels are the names of the folders" in found.notes[0]


def test_metadata_without_labels_beside_loose_images_is_one_line(root: Path) -> None:
    (root / "images/c.jpg").unlink()
    (root / "images").rmdir()
    (root / "metadata.csv").write_text("file_name,text\na.jpg,a cat\n")
    with pytest.raises(DataError, match=r"metadata.csv: no column named label"):
        detect(root)


def test_two_metadata_files_in_one_folder_are_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    for form in ("csv", "jsonl"):
        (tmp_path / f"metadata.{form}").write_text("")
    with pytest.raises(DataError, match=r"more than one metadata file, metadata.csv and metadata.jsonl; keep one"):
        detect(tmp_path)


@pytest.mark.parametrize("content", ["file_name,text\n0.jpg,a cat\n", 'file_name,label\n"0.jpg,cat\n'])
def test_metadata_that_cannot_be_used_never_makes_classes_of_splits(content: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "0.jpg").write_bytes(b"\xff\xd8\xff")
        (tmp_path / split / "metadata.csv").write_text(content)
    with pytest.raises(DataError, match=r"metadata.csv.*: (no column named label|invalid CSV)"):
        detect(tmp_path)
