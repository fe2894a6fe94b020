"""Networks of keras.applications from extraction to prediction, with random weights, on a few synthetic images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def few(tmp_path: Path, draw_image: Callable[..., Path]) -> Path:
    """Two classes, five training images and two test images each."""
    for kind, name in enumerate(("stripes", "blob")):
        for seed in range(7):
            split = "train" if seed < 5 else "test"
            draw_image(tmp_path / "few" / split / name / f"{seed}.png", kind, seed, (90, 80))
    return tmp_path / "few"


@pytest.mark.parametrize(
    ("backbone", "asked", "expected"),
    [
        ("VGG16", ["block2_pool", "block-3-pool:grid2"], ["block2_pool:avg", "block3_pool:grid2"]),
        ("resnet_50", ["conv3_block4_out", "conv4_block6_out:max"], ["conv3_block4_out:avg", "conv4_block6_out:max"]),
        ("inception_v3", ["mixed_4", "mixed_5:avg"], ["mixed4:avg", "mixed5:avg"]),
        ("EfficientNetB3", ["block4a_expand_activation", "top_activation"], None),
    ],
)
def test_a_network_with_random_weights_goes_through_the_whole_loop(
    humeris: Callable[..., Any], few: Path, backbone: str, asked: list[str], expected: list[str] | None
) -> None:
    words = [word for layer in asked for word in ("-l", layer)]
    done = humeris(
        "run", few, "-b", backbone, "--weights", "random", *words, "--batch-size", 8, "-j", 1, "-o", "run", "--json"
    )
    assert done.code == 0, done.err
    found = done.json
    assert found["extracted"][0]["taps"] == (expected or [f"{layer}:avg" for layer in asked])
    assert found["extracted"][0]["computed"] == 14
    assert found["exported"]["parity"]["top1_agree"] == found["exported"]["parity"]["images"] == 14  # all there are
    assert found["exported"]["parity"]["max_difference"] <= 1e-3


def test_a_map_of_block2_is_stored_whole_and_exported(humeris: Callable[..., Any], few: Path) -> None:
    words = ["-b", "vgg16,image_size=64", "--weights", "random", "-l", "block2_pool:map"]
    done = humeris("run", few, *words, "--batch-size", 8, "-j", 1, "-o", "run", "--json")
    assert done.code == 0, done.err
    assert done.json["best"]["tap_refs"][0]["pool"] == "map"
    assert done.json["exported"]["parity"]["top1_agree"] == 14
    listed = humeris("cache", "list", "--json").json["extractions"][0]["taps"][0]
    assert listed["shape"] == [16, 16, 128]
    assert listed["dtypes"] == ["float16"]
