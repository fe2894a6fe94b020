"""Predict: files and folders in order, refusals listed, no foreign code."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import DataError, ModelError
from humeris.classify.export.formats.format import METADATA_FILE
from humeris.classify.export.predict import Predictor, list_image_files
from humeris.extract.pixels.decode import decode


@pytest.fixture(scope="module")
def predictor(finished: Any) -> Predictor:
    return Predictor(finished.model)


def test_predictions_are_those_of_the_run(finished: Any, predictor: Predictor) -> None:
    records = [record for record in finished.run.load_image_records() if record.split == "test"]
    found = list(predictor.predict([finished.photos / record.name for record in records], top=3, batch_size=5))
    assert [each.path for each in found] == [str(finished.photos / record.name) for record in records]
    for each, row in zip(found, finished.run.load_probabilities(), strict=True):
        assert [name for name, _ in each.top] == [predictor.classes[number] for number in np.argsort(-row)]
        assert [value for _, value in each.top] == pytest.approx(sorted(row.tolist(), reverse=True), abs=1e-4)


def test_an_image_gets_the_same_answer_alone_and_in_any_batch(finished: Any, predictor: Predictor) -> None:
    paths = list_image_files([finished.photos / "test"])
    together = list(predictor.predict(paths, top=3, batch_size=16))
    alone = [next(iter(predictor.predict([path], top=3, batch_size=4))) for path in paths[:3]]
    for one, many in zip(alone, together, strict=False):
        assert [name for name, _ in one.top] == [name for name, _ in many.top]
        assert [value for _, value in one.top] == pytest.approx([value for _, value in many.top], abs=1e-6)


def test_predict_proba_takes_pixels(finished: Any, predictor: Predictor) -> None:
    pixels = decode((finished.photos / "test/noise/09.png").read_bytes(), predictor.image_size)
    (row,) = predictor.predict_proba(pixels[None])
    assert predictor.classes[row.argmax()] == "noise"
    assert row.sum() == pytest.approx(1, abs=1e-5)


def test_folders_are_read_in_order_of_name_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a.png", ".hidden.png", ".git/x.png", "c/.d/y.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "z.png").touch()
    found = [str(path.relative_to(tmp_path)) for path in list_image_files([tmp_path / "z.png", tmp_path / "in"])]
    assert found == ["z.png", "in/a.png", "in/b/10.png", "in/b/2.png"]


def test_what_is_not_there_or_empty_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.png: no such file or folder; check the path"):
        list_image_files([tmp_path, tmp_path / "nothing.png"])
    with pytest.raises(DataError, match=": no image files; give files, or folders"):
        list_image_files([tmp_path])


@pytest.fixture
def mixed(tmp_path: Path, finished: Any) -> Path:
    """Images with a file of text, an empty file and half an image among them."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = (finished.photos / "test/blob/10.png").read_bytes()
    for name, data in (("1.png", good), ("2.jpg", b"hello"), ("3.png", b""), ("4.png", good[: len(good) // 2]),
                       ("5.png", good)):  # fmt: skip
        (folder / name).write_bytes(data)
    return folder


def test_unreadable_files_are_reported_in_their_place_and_the_rest_is_done(predictor: Predictor, mixed: Path) -> None:
    found = list(predictor.predict(sorted(mixed.iterdir()), batch_size=2))
    assert [bool(each.rejection) for each in found] == [False, True, True, True, False]
    assert [each.rejection.partition(":")[0] for each in found] == ["", "not_an_image", "empty", "damaged", ""]
    assert found[0].top == found[4].top


def test_the_command_lists_what_it_refused_and_exits_with_1(humeris: Callable[..., Any], finished: Any, mixed: Path) -> None:
    result = humeris("predict", finished.model, mixed)
    assert result.code == 1
    names = ["1.png", "2.jpg", "3.png", "4.png", "5.png"]
    assert [line.split("  ")[0] for line in result.out.splitlines()] == [str(mixed / name) for name in names]
    assert "2.jpg  rejected: not_an_image: " in result.out
    assert "1.png  blob 0." in result.out


def test_csv_has_a_row_for_each_path(humeris: Callable[..., Any], finished: Any, mixed: Path) -> None:
    result = humeris("predict", finished.model, mixed, "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert result.code == 1
    assert [Path(row["path"]).name for row in rows] == ["1.png", "2.jpg", "3.png", "4.png", "5.png"]
    assert rows[0]["predicted"] == "blob"
    assert 1 / 3 < float(rows[0]["probability"]) <= 1
    assert rows[1]["predicted"] == rows[1]["probability"] == ""
    assert rows[1]["refused"].startswith("not_an_image")


def test_csv_has_two_columns_for_each_class_beyond_the_first(
    humeris: Callable[..., Any], finished: Any, mixed: Path
) -> None:
    result = humeris("predict", finished.model, mixed, "-f", "csv", "--top", 9)
    rows = list(csv.DictReader(io.StringIO(result.out)))
    more = ["predicted_2", "probability_2", "predicted_3", "probability_3"]
    assert list(rows[0]) == ["path", "predicted", "probability", "refused", *more]
    whole = [(rows[0][f"predicted{place}"], float(rows[0][f"probability{place}"])) for place in ("", "_2", "_3")]
    assert sorted(name for name, _ in whole) == ["blob", "noise", "stripes"]
    assert [value for _, value in whole] == sorted((value for _, value in whole), reverse=True)
    assert [rows[1][name] for name in more] == [""] * 4


def test_a_name_with_line_breaks_is_one_row_of_a_csv(humeris: Callable[..., Any], finished: Any, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("a\n=cmd().png", "b\r.png", 'c",.png'):
        shutil.copy(finished.photos / "test/blob/10.png", folder / name)
    humeris("predict", finished.model, folder, "-f", "csv", "-o", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == ["a\n=cmd().png", "b\r.png", 'c",.png']


def test_one_image_is_one_image_to_the_model(finished: Any) -> None:
    seen: list[int] = []
    predictor = Predictor(finished.model)
    model = predictor._model

    def watched(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return model(images)

    predictor._model = watched
    paths = list_image_files([finished.photos / "test"])
    list(predictor.predict(paths[:1], batch_size=8))
    list(predictor.predict(paths[:18], batch_size=8))
    assert seen == [1, 8, 8, 8]


@pytest.mark.parametrize("wrong", [{"top": 0}, {"batch_size": 0}])
def test_nothing_is_predicted_for_no_classes_or_batches_of_none(finished: Any, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        next(Predictor(finished.model).predict([finished.photos], **wrong))  # type: ignore[arg-type]


def test_json_lines_and_json_say_the_same(humeris: Callable[..., Any], finished: Any, mixed: Path) -> None:
    lines = humeris("predict", finished.model, mixed, "-f", "jsonl", "--top", 2)
    document = humeris("predict", finished.model, mixed, "--json", "--top", 2)
    assert [json.loads(line) for line in lines.out.splitlines()] == document.json["predictions"]
    assert document.json["predictions"][0]["top"][0]["class"] == "blob"
    assert len(document.json["predictions"][0]["top"]) == 2


def test_more_classes_than_there_are_gives_all_of_them(humeris: Callable[..., Any], finished: Any) -> None:
    result = humeris("predict", finished.model, finished.photos / "test/blob/10.png", "--json", "--top", 99)
    assert len(result.json["predictions"][0]["top"]) == 3


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_an_output_file_holds_what_standard_output_would(
    humeris: Callable[..., Any], finished: Any, tmp_path: Path, form: str
) -> None:
    images = finished.photos / "test/stripes"
    shown = humeris("predict", finished.model, images, "-f", form)
    written = humeris("predict", finished.model, images, "-f", form, "-o", tmp_path / "answers")
    assert (written.code, written.out) == (0, "")
    assert (tmp_path / "answers").read_text() == shown.out


def test_json_goes_to_the_output_file_too(humeris: Callable[..., Any], finished: Any, tmp_path: Path) -> None:
    images = finished.photos / "test/stripes"
    humeris("predict", finished.model, images, "--json", "-o", tmp_path / "answers.json")
    assert len(json.loads((tmp_path / "answers.json").read_text())["predictions"]) == 6


def test_names_that_are_not_utf8_are_predicted(humeris: Callable[..., Any], finished: Any, tmp_path: Path) -> None:
    path = tmp_path / "in" / "not\udcff.png"
    path.parent.mkdir()
    shutil.copy(finished.photos / "test/blob/10.png", path)
    for form in ("table", "csv", "jsonl"):
        result = humeris("predict", finished.model, path.parent, "-f", form, "-o", tmp_path / "out")
        assert result.code == 0, result.err
        assert b"blob" in (tmp_path / "out").read_bytes()


def test_a_file_that_is_not_ours_is_refused(finished: Any, tmp_path: Path) -> None:
    import keras

    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]).save(tmp_path / "theirs.keras")
    (tmp_path / "text.keras").write_text("hello")
    (tmp_path / "empty.keras").touch()
    for name in ("theirs", "text", "empty"):
        with pytest.raises(ModelError, match=r": not a keras model that `humeris export` wrote; export the model again"):
            Predictor(tmp_path / f"{name}.keras")
    with pytest.raises(ModelError, match=r"no such file or folder; give a model that `humeris export` wrote"):
        Predictor(tmp_path / "nothing.keras")
    with pytest.raises(
        ModelError, match=r"(not an exported model; give one|not a savedmodel model) that `humeris export` wrote"
    ):
        Predictor(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a keras model"),
        ("{}", "not a keras model"),
        ("null", "not a keras model"),
        ('{"classes": ["a"]}', "not a keras model"),
        ('{"classes": 3, "image_size": 4, "pixels": 1}', "metadata are damaged"),
    ],
)
def test_a_model_whose_description_is_damaged_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "damaged.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(METADATA_FILE, content)
    with pytest.raises(ModelError, match=rf"damaged.keras: {message}"):
        Predictor(path)


def rewritten(model: Path, path: Path, **changes: Any) -> Path:
    """A copy of an exported model with another description."""
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == METADATA_FILE:
                data = json.dumps({**json.loads(data), **changes}).encode()
            target.writestr(name, data)
    return path


def test_a_model_that_says_another_image_size_is_refused(finished: Any, tmp_path: Path) -> None:
    path = rewritten(finished.model, tmp_path / "sized.keras", image_size=[32, 32])
    with pytest.raises(ModelError, match=r"sized.keras: cannot run the model on 32 x 32 images: ") as caught:
        list(Predictor(path).predict([finished.photos / "test/blob/10.png"]))
    assert "\n" not in str(caught.value)


def test_a_description_that_is_no_description_costs_no_memory(finished: Any, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(METADATA_FILE, b" " * (1 << 25))
    broken = tmp_path / "broken.keras"
    broken.write_bytes(finished.model.read_bytes().replace(b"humeris.json", b"humeris.json", 1))
    data = bytearray(rewritten(finished.model, broken).read_bytes())
    central = data.rindex(METADATA_FILE.encode()) - 46
    data[central + 8] |= 1  # encrypted, it says
    broken.write_bytes(data)
    for path in (bomb, broken):
        with pytest.raises(ModelError, match="not a keras model that `humeris export` wrote"):
            Predictor(path)


def test_a_model_for_other_pixels_is_refused(finished: Any, tmp_path: Path) -> None:
    path = rewritten(finished.model, tmp_path / "old.keras", pixels="0, Pillow 1, libjpeg 6")
    with pytest.raises(
        ModelError, match=r"made for pixels version '0, Pillow 1, libjpeg 6', but this is '2, .*'; use the versions"
    ):
        Predictor(path)


def test_a_model_that_carries_code_is_refused(finished: Any, tmp_path: Path) -> None:
    import keras

    image = keras.Input((64, 64, 3), dtype="uint8", name="image")
    bomb = keras.layers.Lambda(lambda x: x * 2)(keras.layers.Flatten()(keras.layers.Rescaling(1.0)(image)))
    keras.Model(image, bomb).save(tmp_path / "bomb.keras")
    with zipfile.ZipFile(finished.model) as source, zipfile.ZipFile(tmp_path / "bomb.keras", "a") as target:
        target.writestr(METADATA_FILE, source.read(METADATA_FILE))
    with pytest.raises(ModelError, match=r"bomb.keras: cannot be loaded: .*(lambda|Lambda|unsafe)") as caught:
        Predictor(tmp_path / "bomb.keras")
    assert "\n" not in str(caught.value)


def test_an_unknown_format_is_a_usage_error(humeris: Callable[..., Any], finished: Any) -> None:
    result = humeris("predict", finished.model, finished.photos, "-f", "xml")
    assert result.code == 2
    assert "must be table, csv or jsonl, not 'xml'" in result.err
