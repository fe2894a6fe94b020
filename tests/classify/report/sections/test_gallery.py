"""The gallery of a report: which answers it shows, and pictures that come from anywhere."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_runs import change_metadata, change_origin
from run_values import make_data

from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.report import thumbnails
from humeris.classify.report.blocks import Gallery, Section, Text
from humeris.classify.report.run_snapshot import RunSnapshot
from humeris.classify.report.sections import gallery
from humeris.classify.runs.data_summary import DataSummary
from humeris.classify.runs.image_records import ImageRecord
from humeris.classify.runs.predictions import Prediction
from humeris.extract.pixels.read_file import compute_digest

CLASSES = ("ant", "bee", "wasp")


def probabilities(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), count).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_mistakes_are_the_wrong_answers_most_confident_first(seed: int) -> None:
    answers, labels = probabilities(40, seed), np.random.default_rng(seed).integers(0, 3, 40)
    wrong = [row for row in range(40) if max(range(3), key=lambda k: answers[row, k]) != labels[row]]
    expected = sorted(wrong, key=lambda row: -max(answers[row]))
    assert gallery.find_errors(SingleLabel.from_n_classes(answers.shape[1]), labels, answers, 100).tolist() == expected
    assert gallery.find_errors(SingleLabel.from_n_classes(answers.shape[1]), labels, answers, 7).tolist() == expected[:7]


@pytest.mark.parametrize("seed", range(5))
def test_the_least_certain_are_those_with_the_smallest_margin(seed: int) -> None:
    answers = probabilities(40, seed)
    margins = [sorted(row)[-1] - sorted(row)[-2] for row in answers.tolist()]
    expected = sorted(range(40), key=lambda row: margins[row])
    assert gallery.find_least_certain(answers, 11).tolist() == expected[:11]


def test_rows_that_are_not_finite_are_no_answers() -> None:
    answers, labels = probabilities(10), np.ones(10, int)
    answers[3, 1], answers[5] = np.nan, np.inf
    assert not {3, 5} & {
        *gallery.find_errors(SingleLabel.from_n_classes(answers.shape[1]), labels, answers, 10).tolist(),
        *gallery.find_least_certain(answers, 10).tolist(),
    }
    assert len(gallery.find_least_certain(answers, 10)) == 8


def folder_of(root: Path, contents: dict[str, bytes]) -> list[ImageRecord]:
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return [ImageRecord(name, "ant", "test", compute_digest(data)) for name, data in contents.items()]


def png(width: int, height: int, seed: int = 0) -> bytes:
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * x // width, 255 * y // height, np.full_like(x, 40 * seed % 256)], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of half a kilobyte whose header promises 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")
    )


def data_of(root: Path, kind: str = "folders") -> DataSummary:
    return make_data(kind=kind, root=str(root), source=str(root))


def test_a_picture_is_the_image_small_and_in_its_own_proportions(tmp_path: Path) -> None:
    records = folder_of(tmp_path, {"wide.png": png(400, 100), "tall.png": png(90, 300), "tiny.png": png(20, 10)})
    made = thumbnails.make_thumbnails(records, data_of(tmp_path), 80, 100_000)
    sizes = []
    for record, webp in zip(records, made.pictures, strict=True):
        assert webp is not None
        with Image.open(io.BytesIO(webp), formats=["WEBP"]) as picture, Image.open(tmp_path / record.name) as original:
            sizes.append(picture.size)
            small = np.asarray(original.resize(picture.size, Image.Resampling.BILINEAR)).astype(int)
            assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - small).mean() < 6
    assert sizes == [(80, 20), (24, 80), (20, 10)]
    assert made.describe_failures(data_of(tmp_path)) == []


def test_a_picture_stands_upright(tmp_path: Path) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.open(io.BytesIO(png(200, 100))).save(buffer, "JPEG", exif=exif)
    (webp,) = thumbnails.make_thumbnails(
        folder_of(tmp_path, {"a.jpg": buffer.getvalue()}), data_of(tmp_path), 80, 100_000
    ).pictures
    assert webp is not None
    with Image.open(io.BytesIO(webp)) as picture:
        assert picture.size == (40, 80)
        red = np.asarray(picture.convert("RGB"))[..., 0]
    assert red[:10].mean() < 60 < 190 < red[-10:].mean()  # red grew to the right, which now points down


def test_hostile_changed_and_missing_images_cost_their_own_picture_only(tmp_path: Path) -> None:
    whole = png(64, 64)
    records = folder_of(
        tmp_path,
        {"good.png": whole, "bomb.png": bomb(), "torn.png": whole[:-60], "text.jpg": b"<html>", "later.png": png(9, 9)}
        | {"gone.png": whole, "pipe.png": whole, "last.png": png(30, 30, 3)},
    )
    (tmp_path / "later.png").write_bytes(png(9, 9, 1))
    (tmp_path / "gone.png").unlink()
    (tmp_path / "pipe.png").unlink()
    os.mkfifo(tmp_path / "pipe.png")
    records += [ImageRecord("no\0name", "ant", "test", b"x" * 32), ImageRecord("x" * 300, "ant", "test", b"x" * 32)]
    made = thumbnails.make_thumbnails(records, data_of(tmp_path), 40, 100_000)
    assert [bool(webp) for webp in made.pictures] == [True, False, False, False, False, False, False, True, False, False]
    (text,) = made.describe_failures(data_of(tmp_path))
    assert text.kind == "missing"
    assert text.text.startswith("8 of 10 thumbnails are missing")
    for part in (
        "64,000,000 pixels",
        "the file has changed since the run",
        "No such file",
        "regular file",
        str(tmp_path),
    ):
        assert part in text.text
    assert str(tmp_path) in text.text
    assert "humeris sweep" in text.text


def test_pictures_keep_within_their_budget(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 100, 100, 3), np.uint8)
    contents = {}
    for number, pixels in enumerate(noise):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        contents[f"{number:02}.png"] = buffer.getvalue()
    records = folder_of(tmp_path, contents)
    sizes = []
    for budget in (10_000_000, 70_000, 40_000, 8_000):
        made = thumbnails.make_thumbnails(records, data_of(tmp_path), 100, budget)
        sizes.append([len(webp or b"") for webp in made.pictures])
        assert sum(sizes[-1]) <= budget
    assert all(min(each) > 0 for each in sizes[:3])
    assert sum(sizes[0]) > sum(sizes[1]) > sum(sizes[2])
    assert sizes[3][0]
    assert not sizes[3][-1]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "run.json does not name"),
        ({"kind": "keras", "source": "keras.datasets.mnist", "root": "/x"}, "reports do not load"),
        ({"kind": "features", "source": "rows.h5", "root": "rows.h5"}, "no reference to its images"),
        ({"kind": "arrays", "source": "a.npz", "root": "/nowhere/a.npz"}, "no such file or folder"),
    ],
)
def test_data_without_pictures_say_so(data: dict[str, Any] | None, expected: str, block_keras: None) -> None:
    described = None if data is None else make_data(**data)
    made = thumbnails.make_thumbnails([ImageRecord("a", "ant", "test", b"")], described, 40, 1000)
    (text,) = made.describe_failures(described)
    assert made.pictures == (None,)
    assert expected in text.text
    assert "humeris" in text.text


@pytest.fixture
def block_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("Keras was asked for")

    monkeypatch.setattr("humeris.extract.images.keras_datasets.load_keras", refuse)


@pytest.fixture
def evidence(finished: Any, tmp_path: Path) -> RunSnapshot:
    """The finished run as if some of its answers were wrong, with images of its own that a test may spoil."""
    shutil.copytree(finished.photos, tmp_path / "photos")
    found = RunSnapshot.read(finished.path, finished.cache)
    answers = list(found.predictions)
    assert found.probabilities is not None
    shares = np.full(found.probabilities.shape, 0.05, np.float32)
    for row, answer in enumerate(answers):
        given = found.class_names.index(answer.label)
        taken = (given + 1) % 3 if row < 5 else given
        shares[row, taken] = 0.9 - row / 100
        answers[row] = Prediction(answer.name, answer.label, found.class_names[taken], float(shares[row, taken]))
    assert found.data is not None
    moved = change_metadata(found, data=change_origin(found.data, root=str(tmp_path / "photos")))
    return replace(moved, predictions=tuple(answers), probabilities=shares)


def galleries(section: Section) -> list[Gallery]:
    return [part for part in section.parts if isinstance(part, Gallery)]


def words(section: Section, kind: str = "plain") -> str:
    return "\n".join(part.text for part in section.parts if isinstance(part, Text) and part.kind == kind)


def test_the_section_shows_the_mistakes_and_the_close_calls_of_a_run(evidence: RunSnapshot) -> None:
    section = gallery.build_section(evidence)
    wrong, unsure = galleries(section)
    assert [picture.captions[1] for picture in wrong.pictures] == [answer.name for answer in evidence.predictions[:5]]
    first = evidence.predictions[0]
    assert wrong.pictures[0].captions[0] == f"label {first.label}, predicted {first.predicted} (0.900)"
    assert first.name in wrong.pictures[0].alt
    assert len(unsure.pictures) == len(evidence.predictions)
    assert unsure.pictures[0].captions[1] == evidence.predictions[-1].name
    assert "predicted correctly" in unsure.pictures[0].captions[0]
    assert all(picture.webp for part in (wrong, unsure) for picture in part.pictures)
    assert "5 of the 18 test images are misclassified; all of them are shown" in words(section)
    assert words(section, "missing") == ""


def test_without_its_images_the_section_shows_names(evidence: RunSnapshot) -> None:
    assert evidence.data is not None
    shutil.rmtree(evidence.data.root)
    section = gallery.build_section(evidence)
    assert all(picture.webp is None for part in galleries(section) for picture in part.pictures)
    assert "23 of 23 thumbnails are missing" in words(section, "missing")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: replace(found, probabilities=None),
        lambda found: replace(found, predictions=(), probabilities=None),
        lambda found: replace(found, predictions=tuple(replace(answer, label="?") for answer in found.predictions)),
        lambda found: replace(found, metadata=None),
    ],
)
def test_without_answers_the_section_says_what_brings_them(
    evidence: RunSnapshot, spoil: Callable[[RunSnapshot], RunSnapshot]
) -> None:
    section = gallery.build_section(spoil(evidence))
    assert galleries(section) == []
    assert "humeris sweep" in words(section, "missing")


def test_a_run_without_a_mistake_says_so(evidence: RunSnapshot) -> None:
    answers = tuple(replace(answer, predicted=answer.label) for answer in evidence.predictions)
    labels = [evidence.class_names.index(answer.label) for answer in answers]
    section = gallery.build_section(
        replace(evidence, predictions=answers, probabilities=np.eye(3, dtype=np.float32)[labels])
    )
    assert len(galleries(section)) == 1
    assert "All 18 test images are classified correctly" in words(section)


def test_an_image_that_the_table_lacks_has_no_picture(evidence: RunSnapshot) -> None:
    section = gallery.build_section(replace(evidence, images=evidence.select_images("train")))
    assert "23 of 23 thumbnails are missing" in words(section, "missing")
