"""What cannot be swept, as a user types it: one line that says where, what was expected, what was found and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn import model_selection

from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.classify.runs.metadata import FORMAT_VERSION
from humeris.extract.images.load import load_images

PNG = b"\x89PNG\r\n\x1a\n"
Humeris = Callable[..., Any]
SPEC = ExtractionSpec("made_up", "test", "none", "0" * 64, (8, 8), "none", "1")


def photos(root: Path, counts: dict[str, dict[str, int]]) -> Path:
    """Files for each split and class."""
    for role, classes in counts.items():
        for label, count in classes.items():
            for number in range(count):
                path = root / role / label / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(PNG + f"{role} {label} {number}".encode())
    return root


def cached(root: Path, cache: Path, *shards: tuple[slice, int]) -> Path:
    """The cache with a tap of the images at `root`: rows of so many columns for each part of them."""
    store = Store(cache, write=True)
    images = load_images(root, store, jobs=1)
    for number, (part, columns) in enumerate(shards or [(slice(None), 4)]):
        keys = images.keys[part]
        rows = np.random.default_rng(number).normal(size=(len(keys), columns)).astype(np.float32)
        store.get_extraction(SPEC).add("layer", "avg", keys, rows)
    return cache


def refused(result: Any, *words: str) -> None:
    assert result.code == 2, (result.out, result.err)
    assert len(result.err.splitlines()) == 1, result.err
    for word in words:
        assert word in result.err


TWO = {"train": {"cat": 12, "dog": 12}, "test": {"cat": 6, "dog": 6}}


def test_one_class(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", {"train": {"cat": 9}, "test": {"cat": 3}})
    refused(humeris("sweep", root), "only one class, 'cat'", "add a folder per class")


def test_a_class_with_fewer_images_than_folds_makes_fewer_folds_and_says_so(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", {"train": {"cat": 12, "owl": 3}, "test": {"cat": 6, "owl": 2}})
    cache = cached(root, tmp_path / "cache")
    result = humeris("sweep", root, "--cache", cache, "--head", "logreg,C=1", "-o", tmp_path / "run", "-j", 1)
    assert result.code == 0, result.err
    assert "test split as given; 3 folds instead of 5: 'owl' has only 3 training images" in result.out
    assert {
        len(json.loads(line)["score"]["folds"]) for line in (tmp_path / "run/trials.jsonl").read_text().splitlines()
    } == {3}


def test_a_class_in_fewer_groups_than_folds_makes_fewer_folds_and_says_so(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", {"all": {"cat": 40, "dog": 40}})
    lines = ["path,label,split,group"]
    for label in ("cat", "dog"):
        for number in range(40):
            role = "test" if number >= 30 else "train"
            lines.append(f"all/{label}/{number:03}.png,{label},{role},{role}{label}{number // 8}")
    (root / "list.csv").write_text("\n".join(lines))
    cache = cached(root / "list.csv", tmp_path / "cache")
    result = humeris("sweep", root / "list.csv", "--cache", cache, "--head", "logreg,C=1", "-o", tmp_path / "run", "-j", 1)
    assert result.code == 0, result.err
    assert "4 folds instead of 5: 'cat' has only 4 groups of training images" in result.out
    assert "note: the test images come from only 4 groups" in result.out
    assert "note: only 20 test images" in result.out


def test_a_class_without_test_images_is_noted(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", {"train": {"cat": 12, "dog": 12, "owl": 9}, "test": {"cat": 6, "dog": 6}})
    cache = cached(root, tmp_path / "cache")
    result = humeris("sweep", root, "--cache", cache, "--head", "logreg,C=1", "-o", tmp_path / "run", "-j", 1)
    assert result.code == 0, result.err
    assert "note: no test images of owl: test accuracy says nothing about these classes" in result.out


def test_a_class_with_one_image(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", {"train": {"cat": 12, "owl": 1}, "test": {"cat": 6, "owl": 2}})
    refused(humeris("sweep", root), "too few training images of class 'owl': 1, at least 2 needed")


def test_rows_of_mixed_widths_in_one_tap(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", TWO)
    cache = cached(root, tmp_path / "cache", (slice(0, 20), 4), (slice(20, None), 6))
    result = humeris("sweep", root, "--cache", cache, "-o", tmp_path / "run", "-j", 1)
    refused(result, "layer.avg: rows differ in shape: [(4,), (6,)]", "run `humeris extract` again")


def feature_file(path: Path, features: np.ndarray, labels: list[str], **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["labels"] = labels
        for name, value in more.items():
            file[name] = value
    return path


def test_rows_of_nan_are_listed_and_the_others_swept(tmp_path: Path, humeris: Humeris) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    rows[[3, 17]] = np.nan
    rows[40, 2] = np.inf
    file = feature_file(tmp_path / "rows.h5", rows, ["a", "b"] * 30)
    result = humeris("sweep", file, "--head", "logreg,C=1", "-o", tmp_path / "run", "-j", 1)
    assert result.code == 1, result.err
    assert "57 images used" in result.out
    assert "3 images rejected: 3 not_finite" in result.out


def test_a_file_without_a_finite_row(tmp_path: Path, humeris: Humeris) -> None:
    file = feature_file(tmp_path / "rows.h5", np.full((60, 5), np.nan, np.float32), ["a", "b"] * 30)
    result = humeris("sweep", file, "--head", "ridge", "-o", tmp_path / "run")
    refused(result, "no usable rows (60 rejected")
    refused(result, "; add rows of another class, with finite features")
    assert "folder" not in result.err


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("mlp,cutmix=1", "cutmix needs whole maps (height, width, channels), but rows have the shape (4,)"),
        ("mlp,hidden=999999999", "head mlp: hidden=999999999: training needs "),
        ("triplet,embedding=9999999999", "head triplet: hidden=0,embedding=9999999999: training needs "),
        ("supcon,hidden=9999999999", "head supcon: hidden=9999999999,embedding=64: training needs "),
    ],
)
def test_a_head_that_cannot_be_trained_leaves_no_run(tmp_path: Path, humeris: Humeris, head: str, words: str) -> None:
    root = photos(tmp_path / "photos", TWO)
    command = ["sweep", root, "--cache", cached(root, tmp_path / "cache"), "-o", tmp_path / "run", "-j", 1]
    refused(humeris(*command, "--head", "ridge", "--head", head), words)
    assert not (tmp_path / "run").exists()
    assert humeris(*command, "--head", "ridge").code == 0


def test_groups_that_cannot_be_divided_leave_no_run(
    tmp_path: Path, humeris: Humeris, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos", TWO)

    def one_class(self: object, rows: np.ndarray, labels: np.ndarray, groups: None) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.nonzero(labels == 0)[0], np.nonzero(labels == 1)[0])]

    monkeypatch.setattr(model_selection.StratifiedKFold, "split", one_class)
    command = ["sweep", root, "--cache", cached(root, tmp_path / "cache"), "-o", tmp_path / "run", "-j", 1]
    refused(humeris(*command), str(root), "some class has no training images in one of the folds", "groups are too large")
    assert not (tmp_path / "run").exists()


def test_labels_that_do_not_match_the_rows(tmp_path: Path, humeris: Humeris) -> None:
    file = feature_file(tmp_path / "rows.h5", np.zeros((60, 5), np.float32), ["a", "b"] * 20)
    refused(humeris("sweep", file), "rows.h5", "labels has 40 values for 60 rows")


def test_labels_that_are_a_table_of_numbers(tmp_path: Path, humeris: Humeris) -> None:
    file = tmp_path / "rows.h5"
    with h5py.File(file, "w") as opened:
        opened["features"] = np.zeros((3, 4), np.float32)
        opened["labels"] = np.zeros((3, 2))
    refused(humeris("sweep", file), "rows.h5")


def test_a_file_of_features_has_neither_views_nor_anything_to_extract(tmp_path: Path, humeris: Humeris) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    file = feature_file(tmp_path / "rows.h5", rows, ["a", "b"] * 30)
    refused(
        humeris("sweep", file, "--views", 2, "--augment", "flip"), "a feature file has no augmented views; leave --views out"
    )
    refused(humeris("sweep", file, "--extract"), "a feature file has no images to extract features from")


@pytest.mark.parametrize("change", [{"format": FORMAT_VERSION - 1}, {"format": FORMAT_VERSION + 1}, {"format": None}])
def test_a_run_folder_of_another_version(tmp_path: Path, humeris: Humeris, change: dict[str, Any]) -> None:
    root = photos(tmp_path / "photos", TWO)
    words = [
        "sweep",
        root,
        "--cache",
        cached(root, tmp_path / "cache"),
        "--head",
        "logreg,C=1",
        "-o",
        tmp_path / "run",
        "-j",
        1,
    ]
    assert humeris(*words).code == 0
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    refused(
        humeris(*words),
        f"cannot read the run: format {change['format']!r}, not {FORMAT_VERSION}; use the humeris version",
        "sweep into another folder",
    )
    refused(
        humeris("export", tmp_path / "run", "-o", tmp_path / "m.keras"),
        f"format {change['format']!r}, not {FORMAT_VERSION}; use the humeris version",
    )


def test_labels_that_changed_since_the_run(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", TWO)
    words = [
        "sweep",
        root,
        "--cache",
        cached(root, tmp_path / "cache"),
        "--head",
        "logreg,C=1",
        "-o",
        tmp_path / "run",
        "-j",
        1,
    ]
    assert humeris(*words).code == 0
    (root / "train/cat/000.png").rename(root / "train/dog/100.png")
    refused(humeris(*words), "the folder holds a run of other images, features or options")


def test_an_empty_grid(tmp_path: Path, humeris: Humeris) -> None:
    (tmp_path / "heads.toml").write_text("")
    refused(
        humeris("sweep", tmp_path, "--grid", tmp_path / "heads.toml"),
        "heads.toml: no [[head]] tables; write [[head]] tables",
    )
    refused(humeris("sweep", tmp_path, "--grid", tmp_path / "no.toml"), "no.toml", "no such file; check the path")
    refused(humeris("sweep", tmp_path, "--grid", tmp_path), ": is a folder; give the TOML file in it")


def test_an_unknown_augmentation_and_views_that_are_not_cached(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", TWO)
    cache = cached(root, tmp_path / "cache")
    refused(humeris("sweep", root, "--views", 1, "--augment", "flop"), "use one of flip")
    refused(
        humeris("sweep", root, "--cache", cache, "--views", 2, "--augment", "flip"),
        "--views 2 --augment flip=0.5 (made_up/layer:avg lacks 36)", "run `humeris extract`", "with the same views",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("layer+layer", "layer 'layer+layer': a side is empty or given twice"),
        ("layer+", "layer 'layer+': a side is empty or given twice"),
        ("+", "layer '+': a side is empty or given twice"),
        ("layer+other", "layer 'other' of layer+other: no cached tap matches"),
    ],
)
def test_a_concatenation_that_is_none(tmp_path: Path, humeris: Humeris, pattern: str, fault: str) -> None:
    root = photos(tmp_path / "photos", TWO)
    refused(humeris("sweep", root, "--cache", cached(root, tmp_path / "cache"), "-l", pattern), fault)


@pytest.mark.parametrize(
    ("command", "options", "needed"),
    [
        *[
            (command, options, "-b")
            for command in ("sweep", "rank")
            for options in (("--image-size", "96"), ("--precision", "float32"), ("--weights", "random"))
        ],
        ("sweep", ("--device", "cpu"), "--extract"),
        ("sweep", ("--batch-size", "32"), "--extract"),
        ("sweep", ("-b", "nano", "--batch-size", "8"), "--extract"),
    ],
)
def test_an_option_without_effect(
    tmp_path: Path, humeris: Humeris, command: str, options: tuple[str, ...], needed: str
) -> None:
    refused(humeris(command, tmp_path, *options), f"{options[-2]} needs {needed}: ", f"or leave {options[-2]} out")


def test_what_the_environment_says_for_every_command_is_no_option_without_effect(
    tmp_path: Path, humeris: Humeris, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos", TWO)
    cache = cached(root, tmp_path / "cache")
    for name, value in {"BATCH_SIZE": "8", "DEVICE": "cpu", "IMAGE_SIZE": "96", "PRECISION": "bfloat16"}.items():
        monkeypatch.setenv(f"HUMERIS_{name}", value)
    assert humeris("sweep", root, "--cache", cache, "--head", "ridge", "-o", tmp_path / "run", "-j", 1).code == 0
    assert humeris("rank", root, "--cache", cache, "-j", 1).code == 0


def test_options_of_a_network_go_with_extracting_the_usual_one(tmp_path: Path, humeris: Humeris) -> None:
    root = photos(tmp_path / "photos", {"train": {"cat": 2}})
    words = ("--extract", "--image-size", "96", "--batch-size", "8", "--cache", tmp_path / "cache")
    refused(humeris("sweep", root, *words), "only one class, 'cat'")
