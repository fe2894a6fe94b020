"""Every row of a list is used or rejected, in any dialect; labels that are no single class of a few are named."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from humeris.cache.errors import DataError
from humeris.extract.images.dataset import Dataset
from humeris.extract.images.image_list import ImageList
from humeris.extract.images.registry import detect, open_source, reopen_source


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\xff\xd8\xff" + name.encode())


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def labels(dataset: Dataset) -> dict[str, str | None]:
    return {item.name: item.label for item in dataset.items}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    touch(tmp_path, *(f"{number}.png" for number in range(24)))
    return tmp_path


@pytest.mark.parametrize("is_closed", [True, False])
def test_the_row_in_which_a_quote_opens_is_refused_and_all_others_are_used(is_closed: bool, photos: Path) -> None:
    rows = [f"{number}.png,{'ab'[number % 2]}" for number in range(24)]
    rows[2] = '2.png,"a'
    rows[20] += '"' * is_closed
    dataset = detect(write(photos / "list.csv", "\n".join(["path,label", *rows]) + "\n"))
    assert [each.name for each in dataset.rejections] == ["list.csv:4"]
    assert "a quote opens here and is " + ("closed in a later row" if is_closed else "never closed") in (
        dataset.rejections[0].detail
    )
    assert labels(dataset) == {f"{number}.png": "ab"[number % 2] for number in range(24) if number != 2}


def test_a_quoted_field_may_have_line_breaks(photos: Path) -> None:
    text = 'path,caption,label\n0.png,"one, two\nthree, ""four"", five\n",a\n1.png,six,b\n'
    assert labels(detect(write(photos / "list.csv", text))) == {"0.png": "a", "1.png": "b"}


def test_a_row_with_more_fields_than_the_header_is_refused(photos: Path) -> None:
    dataset = detect(write(photos / "list.csv", "path,label\n0.png,cat, small\n1.png,cat,\n2.png,dog\n"))
    assert labels(dataset) == {"1.png": "cat", "2.png": "dog"}
    assert dataset.rejections[0].detail == ("line 2: 3 fields, but the header has 2; put fields that contain ',' in quotes")


@pytest.mark.parametrize("seed", range(40))
def test_used_and_rejected_rows_are_all_rows_of_any_list(seed: int, photos: Path) -> None:
    draw = random.Random(seed)
    encoding = draw.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
    buffer = io.StringIO()
    writer = csv.writer(
        buffer, delimiter=draw.choice(",;\t|"), lineterminator=draw.choice(["\n", "\r\n"]),
        quoting=draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    )  # fmt: skip
    writer.writerow(["path", "note", "label"])
    n_rows = draw.randint(1, 30)
    for _ in range(n_rows):
        path = draw.choice([f"{draw.randint(0, 23)}.png", "none.png", "", "../x.png", "0", "a\\0.png"])
        note = draw.choice(["", "plain", 'with "quotes"', "line\nbreak", "line\r\nbreak, and\nmore", "caf\u00e9", ",;\t|"])
        writer.writerow([path, note, draw.choice(["cat", "dog", "", "k\u00e4se", "a b", "nan"])])
    listing = open_source(write(photos / "list.csv", buffer.getvalue(), encoding)).list_items()
    assert len(listing.items) + len(listing.rejections) == n_rows


@pytest.mark.parametrize("seed", range(20))
def test_rows_with_stray_quotes_are_each_used_or_rejected(seed: int, photos: Path) -> None:
    draw = random.Random(seed)
    rows = [f"{number}.png,{draw.choice(['cat', 'dog'])}" for number in range(24)]
    for number in draw.sample(range(24), draw.randint(1, 4)):
        position = draw.choice([0, rows[number].index(",") + 1, len(rows[number])])
        rows[number] = f'{rows[number][:position]}"{rows[number][position:]}'
    dataset = detect(write(photos / "list.csv", "\n".join(["path,label", *rows])))
    assert len(dataset.items) + len(dataset.rejections) == 24
    assert {item.label for item in dataset.items} <= {"cat", "dog", 'cat"', 'dog"'}


def test_rows_that_contradict_each_other_are_each_refused(photos: Path) -> None:
    dataset = detect(write(photos / "list.csv", "path,label\n0.png,a\n0.png,b\n1.png,a\n1.png,a\n"))
    assert [(each.name, each.reason) for each in dataset.rejections] == [
        ("0.png", "conflicting_rows"), ("0.png", "conflicting_rows"), ("1.png", "listed_twice"),
    ]  # fmt: skip


TEXT = "file_name,label\n0.png,caf\u00e9\n1.png,bar\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TEXT.replace(",", ";"), "utf-8"),
        (TEXT.replace(",", "\t"), "utf-8"),
        (TEXT.replace(",", "|"), "utf-8-sig"),
        (f"sep=;\n{TEXT.replace(',', ';')}", "utf-8"),
        (f"sep=,\r\n{TEXT}", "utf-16"),
        (TEXT, "utf-16-le"),
        (TEXT, "utf-16-be"),
        (TEXT, "utf-32"),
        (TEXT, "cp1252"),
        (TEXT.replace("\u00e9", "e\u0301"), "utf-8"),
        ('"file_name";"label"\n"0.png";"caf\u00e9"\n"1.png";"bar"\n', "utf-8"),
    ],
)
def test_every_dialect_gives_the_same_labels(text: str, encoding: str, photos: Path) -> None:
    dataset = detect(write(photos / "list.csv", text, encoding))
    assert labels(dataset) == {"0.png": "caf\u00e9", "1.png": "bar"}
    assert dataset.rejections == ()
    assert [note for note in dataset.notes if "read as" in note] == (
        [f"{photos}/list.csv: read as cp1252, because it is not UTF-8; save it as UTF-8 if names look wrong"]
        if encoding == "cp1252"
        else []
    )


def test_columns_can_be_named_and_extensions_left_out(photos: Path) -> None:
    path = write(photos / "list.csv", "id,breed,fold,owner\n0,x,train,p\n1,y,test,q\n")
    dataset = detect(ImageList(path, path_column="ID", label_column="breed", split_column="fold", group_column="owner"))
    assert [(item.name, item.label, item.split, item.group) for item in dataset.items] == [
        ("0.png", "x", "train", "p"),
        ("1.png", "y", "test", "q"),
    ]
    with pytest.raises(DataError, match=r"no column named bred \(columns: id, breed, fold, owner\); did you mean breed\?"):
        detect(ImageList(path, path_column="id", label_column="bred"))
    (photos / "0.jpg").write_bytes(b"\xff\xd8\xff")
    (rejection,) = detect(ImageList(path, path_column="id", label_column="breed")).rejections
    assert rejection.detail == "line 2: several files have this name (0.jpg, 0.png); add the extension"


def test_one_hot_columns_are_labels_when_they_are_named_and_named_when_they_are_not(photos: Path) -> None:
    path = write(photos / "list.csv", "image_id,healthy,rust,scab\n0,1,0,0\n1,0,1.0,0\n2,0,0,1\n3,0,0,0\n4,0,0.5,0\n")
    dataset = detect(ImageList(path, label_columns="healthy, rust,scab"))
    assert labels(dataset) == {"0.png": "healthy", "1.png": "rust", "2.png": "scab"}
    assert [(each.name, each.reason) for each in dataset.rejections] == [("3.png", "no_label"), ("list.csv:6", "bad_row")]
    write(path, "image_id,healthy,rust,scab\n0,1,0,0\n1,0,1,0\n")
    with pytest.raises(DataError, match="if healthy, rust, scab are one-hot labels, give --label-columns healthy,rust,scab"):
        detect(path)


@pytest.mark.parametrize("images", [".", "a"])
def test_paths_of_another_machine_are_looked_for_below_the_folder_that_is_named(images: str, tmp_path: Path) -> None:
    touch(tmp_path, "photos/a/0.png", "photos/a/1.png")
    rows = ["C:\\Users\\me\\photos\\a\\0.png,x", "/content/drive/photos/a/1.png,y"]
    path = write(tmp_path / "list.csv", "\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match=r"no images: 2 rejected \(2 not_found, .*give it with --images"):
        detect(path)
    dataset = detect(ImageList(path, images=tmp_path / "photos" / images))
    prefix = "a/" if images == "." else ""
    assert labels(dataset) == {f"{prefix}0.png": "x", f"{prefix}1.png": "y"}
    again = reopen_source(dataset.source.describe())
    assert again.list_items() == dataset.source.list_items()
    assert again.read(dataset.items[0]) == dataset.source.read(dataset.items[0])


def test_backslashes_and_other_unicode_forms_are_understood(tmp_path: Path) -> None:
    touch(tmp_path, "a/0.png", "a/cafe\u0301.png")
    dataset = detect(write(tmp_path / "list.csv", "path,label\na\\0.png,x\na/caf\u00e9.png,y\n"))
    assert labels(dataset) == {"a/0.png": "x", "a/cafe\u0301.png": "y"}


def test_a_class_called_nan_is_a_class_in_folders_and_lists(tmp_path: Path) -> None:
    touch(tmp_path / "folders", "nan/0.png", "roti/1.png")
    assert detect(tmp_path / "folders").classes == ["nan", "roti"]
    dataset = detect(write(tmp_path / "folders" / "list.csv", "path,label\nnan/0.png,nan\nroti/1.png,roti\n"))
    assert dataset.classes == ["nan", "roti"]
    assert dataset.notes == ("nan used as a class; leave the cell empty where the label is unknown",)


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        (
            [f"{number * 1.37:.2f}" for number in range(24)],
            "list.csv",
            "24 different decimal numbers, such as 0.00: regression",
        ),
        (["['cat', 'dog']"] * 24, "list.csv", "labels are lists, such as .*: multi-label targets are not supported"),
    ],
)
def test_targets_that_are_no_classes_are_named_and_nothing_is_trained(
    values: Sequence[str], name: str, message: str, photos: Path
) -> None:
    rows = [f'{number}.png,"{value}"' for number, value in enumerate(values)]
    with pytest.raises(DataError, match=message):
        detect(write(photos / name, "\n".join(["path,label", *rows])))


def test_several_labels_of_one_row_are_named(photos: Path) -> None:
    path = write(photos / "list.jsonl", '{"path": "0.png", "label": ["cat"]}\n{"path": "1.png", "label": ["cat", "dog"]}\n')
    with pytest.raises(DataError, match=r"line 2 has several labels \(cat, dog\): multi-label targets are not supported"):
        detect(path)
    path = write(photos / "list.csv", "path,cat,dog\n0.png,1,0\n1.png,1,1\n")
    with pytest.raises(DataError, match=r"line 3 has several labels \(cat, dog\): multi-label"):
        detect(ImageList(path, label_columns=["cat", "dog"]))


def test_labels_that_combine_others_and_many_whole_numbers_are_doubts_that_are_said(photos: Path) -> None:
    combined = ["scab", "rust", "scab rust", "healthy"] * 6
    rows = [f"{number}.png,{label}" for number, label in enumerate(combined)]
    (note,) = detect(write(photos / "list.csv", "\n".join(["path,label", *rows]))).notes
    assert note.startswith("1 labels combine others, such as 'scab rust': each is used as a class of its own")
    rows = [f"{number}.png,{number}" for number in range(24)]
    (note,) = detect(write(photos / "list.csv", "\n".join(["path,age".replace("age", "label"), *rows]))).notes
    assert note == "labels are 24 different whole numbers, each used as a class of its own"


def test_the_settings_of_a_list_are_refused_for_data_that_is_none(photos: Path) -> None:
    with pytest.raises(DataError, match=r"is no list, so --path-column has no effect; leave it out"):
        detect(ImageList(photos, path_column="id"))


def test_the_arguments_of_a_list_open_it_again(photos: Path) -> None:
    path = write(photos / "list.csv", "id,cat,dog\n0,1,0\n1,0,1\n")
    source = open_source(ImageList(path, path_column="id", label_columns=["cat", "dog"]))
    assert source.arguments == [str(path), "--path-column", "id", "--label-columns", "cat", "--label-columns", "dog"]
    assert open_source(photos).arguments == [str(photos)]


def test_capitals_in_extensions_are_understood(tmp_path: Path) -> None:
    touch(tmp_path, "0.JPG", "1.jpg")
    assert labels(detect(write(tmp_path / "list.csv", "path,label\n0.jpg,x\n1.JPG,y\n"))) == {"0.JPG": "x", "1.jpg": "y"}
