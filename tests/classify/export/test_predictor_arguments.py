"""What a predictor takes and what it refuses: the same in every format, and before a runtime sees it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import humeris
from humeris.cache.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def predictor(finished: Any) -> humeris.Predictor:
    return humeris.Predictor(finished.model)


@pytest.fixture
def photo(finished: Any) -> Path:
    return sorted(Path(finished.photos).rglob("*.png"))[0]


def top(prediction: humeris.Prediction) -> list[Any]:
    return [prediction.top[0][0], pytest.approx(prediction.top[0][1], abs=1e-5)]


def test_one_image_is_the_same_in_every_form(predictor: humeris.Predictor, photo: Path) -> None:
    (expected,) = predictor.predict(photo)
    pixels = np.asarray(Image.open(photo).convert("RGB"))
    with photo.open("rb") as file:
        forms: list[Any] = [
            str(photo),
            photo.read_bytes(),
            bytearray(photo.read_bytes()),
            file,
            io.BytesIO(photo.read_bytes()),
        ]
        forms += [Image.open(photo), pixels, pixels[None], [pixels], iter([photo])]
        found = [list(predictor.predict(form)) for form in forms]
    assert [[list(prediction.top[0]) for prediction in each] for each in found] == [[top(expected)]] * len(forms)
    mixed = list(predictor.predict([photo, pixels, photo.read_bytes()], batch_size=2))
    assert [prediction.path for prediction in mixed] == [str(photo), "image 1", "image 2"]
    gray = list(predictor.predict([pixels[..., 0], np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])]))
    assert list(gray[1].top[0]) == top(expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (3, "images: a int is no image; give a path, bytes, "),
        (None, "images: a NoneType is no image"),
        ({"a": 1}, "images: a dict is no image"),
        ([3], "images: a int is no image"),
        (np.zeros((5, 5, 3)), "images: an array of float64, not of uint8 in 0 to 255; convert it and multiply by 255 first"),
        (np.zeros((5, 5, 2), np.uint8), r"images: an array of shape \(5, 5, 2\) is no image"),
        (np.zeros(5, np.uint8), r"images: an array of shape \(5,\) is no image"),
        (Image.new("F", (4, 4)), "images: a Pillow image of mode F has no known range"),
        (io.StringIO("text"), "the file is open as text .StringIO.; open it with mode 'rb'"),
    ],
)
def test_what_is_no_image_is_one_line(images: Any, message: str, predictor: humeris.Predictor) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(predictor.predict(images))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_image_are_a_rejection(predictor: humeris.Predictor) -> None:
    (prediction,) = predictor.predict(b"hello")
    assert prediction.rejection.startswith("not_an_image: ")
    assert list(predictor.predict([])) == []


@pytest.mark.parametrize("settings", [{"top": 0}, {"top": 1.5}, {"batch_size": 0}, {"batch_size": True}, {"jobs": 0}])
def test_numbers_are_checked_before_anything_is_decoded(settings: dict[str, Any], predictor: humeris.Predictor) -> None:
    with pytest.raises(ConfigError, match=f"{min(settings)} .*: must be a whole number of at least 1"):
        predictor.predict("nothing.png", **settings)
    assert predictor.predict("nothing.png", top=np.int64(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[1, 2]], "images: a list, not an array; give uint8"),
        (np.zeros((1, 64, 64, 3)), "images: an array of float64, not of uint8 in 0 to 255"),
        (np.zeros((1, 64, 64, 3), np.float32), "images: an array of float32"),
        (np.zeros((1, 64, 64, 3), np.int32), "images: an array of int32"),
        (np.zeros((64, 64, 3), np.uint8), r"images: an array of shape \(64, 64, 3\); give uint8 \(n, 64, 64, 3\)"),
        (np.zeros((1, 32, 64, 3), np.uint8), r"images: an array of shape \(1, 32, 64, 3\)"),
        (np.zeros((1, 64, 64, 1), np.uint8), r"images: an array of shape \(1, 64, 64, 1\)"),
        (np.zeros((0, 64, 64, 3), np.uint8), r"images: an array of shape \(0, 64, 64, 3\)"),
    ],
)
def test_probabilities_are_asked_for_uint8_images_of_the_models_size(
    images: Any, message: str, predictor: humeris.Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(_: object) -> None:
        raise AssertionError("the runtime was asked")

    monkeypatch.setattr(predictor, "_model", reached)
    with pytest.raises(DataError, match=message):
        predictor.predict_proba(images)


def test_a_store_that_is_open_for_reading_is_never_written(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(humeris.CacheReadOnly, match=r"open for reading only; open it with Store\(.*, write=True\)"):
        humeris.extract(photos, "nano", cache=humeris.Store(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
