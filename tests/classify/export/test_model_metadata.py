"""What a model says about itself: it comes back whole, and what somebody else wrote is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from humeris.cache.spec import ExtractionSpec
from humeris.classify.evaluate.trial import TapRef, Trial
from humeris.classify.export.model_metadata import ModelMetadata, decode_metadata, encode_metadata

SPEC = ExtractionSpec("nano", "humeris.nano()", "synthetic", "0", (64, 64), "tf", "1")
TRIAL = Trial((TapRef("nano", "nano-64-0", "block4_out", "avg"),), "logreg", {"C": 0.1})
METADATA = ModelMetadata(
    classes=("ant", "“fly”", "µ\n"),
    image_size=(64, 48),
    pixels="1, Pillow 13",
    precision="int8",
    activations="float32",
    specs={"nano-64-0": SPEC},
    trial=TRIAL,
    test={"images": 18, "accuracy": 0.5, "accuracy_95": [0.2, 0.8]},
)


def test_metadata_come_back_from_their_json() -> None:
    assert decode_metadata(encode_metadata(METADATA)) == METADATA
    assert decode_metadata(encode_metadata(METADATA).encode()) == METADATA


def test_metadata_without_a_trial_come_back_too() -> None:
    metadata = ModelMetadata(("a",), (1, 1), "1")
    assert decode_metadata(encode_metadata(metadata)) == metadata


def test_the_json_has_the_names_of_the_fields() -> None:
    value = json.loads(encode_metadata(METADATA))
    assert value["format"] == 3
    assert value["classes"] == list(METADATA.classes)
    assert value["image_size"] == [64, 48]
    assert value["specs"]["nano-64-0"] == SPEC.to_dict()
    assert value["trial"] == TRIAL.to_dict()
    assert value["activations"] == "float32"
    assert "activations" not in ModelMetadata(("a",), (1, 1), "1").to_dict()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "3", "\0", '{"classes": []}', "[" * 100_000])
def test_what_is_no_metadata_is_none(text: str) -> None:
    assert decode_metadata(text) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": []}, "metadata are damaged: classes .* are not a list of names"),
        ({"classes": "abc"}, "metadata are damaged: classes .* are not a list of names"),
        ({"classes": ["a", 1]}, "metadata are damaged: classes .* are not a list of names"),
        ({"image_size": [64]}, r"metadata are damaged: image size .* is not \[height, width\] in pixels"),
        ({"image_size": [64, 0]}, r"metadata are damaged: image size .* is not \[height, width\] in pixels"),
        ({"image_size": [64, 1 << 20]}, r"metadata are damaged: image size .* is not \[height, width\] in pixels"),
        ({"image_size": [64, True]}, r"metadata are damaged: image size .* is not \[height, width\] in pixels"),
        ({"image_size": "64x64"}, r"metadata are damaged: image size .* is not \[height, width\] in pixels"),
        ({"format": 2}, r"metadata version 2 is not supported \(supported: 3\)"),
        ({"format": None}, r"metadata version None is not supported \(supported: 3\)"),
        ({"trial": {"head": "logreg"}}, "metadata cannot be parsed: "),
        ({"trial": []}, "metadata cannot be parsed: "),
        ({"specs": []}, "metadata cannot be parsed: "),
        ({"specs": {"a": {}}}, "metadata cannot be parsed: "),
        ({"test": 3}, "metadata cannot be parsed: "),
    ],
)
def test_damaged_metadata_are_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_metadata(json.dumps({**METADATA.to_dict(), **changes}))
