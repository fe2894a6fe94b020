"""The key of a set of features: what decides a value is in it, what only names things is not."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from humeris.cache.spec import ExtractionSpec

SPEC = ExtractionSpec(
    backbone="toy",
    architecture="toy()",
    weights="random, seed 0",
    weights_sha256="ab" * 32,
    image_size=(8, 12),
    preprocessing="tf",
    pixels="1, Pillow 13",
)
DECIDES: dict[str, Any] = {
    "architecture": "toy(alpha=2)",
    "weights_sha256": "cd" * 32,
    "image_size": (12, 8),
    "preprocessing": "caffe",
    "pixels": "2, Pillow 13",
    "precision": "bfloat16",
    "forward": "2",
    "views": "flips",
}
DESCRIBES: dict[str, Any] = {
    "backbone": "another name",
    "weights": "imagenet",
    "arguments": {"alpha": 0.35},
    "file": "/elsewhere/net.keras",
}


@pytest.mark.parametrize("name", DECIDES)
def test_a_field_that_decides_a_feature_changes_the_digest(name: str) -> None:
    assert replace(SPEC, **{name: DECIDES[name]}).digest != SPEC.digest


@pytest.mark.parametrize("name", DESCRIBES)
def test_a_field_that_only_describes_leaves_the_digest_alone(name: str) -> None:
    assert replace(SPEC, **{name: DESCRIBES[name]}).digest == SPEC.digest


def test_every_field_is_either_part_of_the_identity_or_a_description() -> None:
    assert {field.name for field in fields(ExtractionSpec)} == set(DECIDES) | set(DESCRIBES)


def test_a_spec_survives_json() -> None:
    spec = replace(SPEC, arguments={"alpha": 0.35, "include_preprocessing": False})
    again = ExtractionSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.digest == spec.digest


@pytest.mark.parametrize("value", [{}, {"image_size": [1]}, {"image_size": [1, 2], "colour": "red"}, {"image_size": None}])
def test_something_else_is_not_read_as_a_spec(value: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        ExtractionSpec.from_dict(value)


@pytest.mark.parametrize("backbone", ["../../etc/passwd", "a/b", "", ".", "..", "x" * 500, "na\nme", "\udcff"])
def test_the_folder_name_is_one_safe_component_whatever_the_backbone_is_called(backbone: str) -> None:
    folder = replace(SPEC, backbone=backbone).folder_name
    assert "/" not in folder
    assert not folder.startswith(".")
    assert folder.isascii()
    assert folder.isprintable()
    assert len(folder) < 100
    assert folder.endswith(SPEC.digest[:16])


def test_the_title_names_arguments_and_random_weights() -> None:
    assert replace(SPEC, arguments={"alpha": 0.35}).title == "toy,alpha=0.35,weights=random"
    assert replace(SPEC, weights="imagenet").title == "toy"
