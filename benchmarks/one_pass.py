"""What one pass for all taps saves, and what cutting the network above the deepest tap saves.

`taps`: several taps of one network by humeris's forward pass, against the loop of Keras's guide to feature extraction: one
`keras.Model(model.input, layer.output)` per tap, each `predict`ing all images, the maps averaged with NumPy. Both take
the same preloaded images and the same weights, and give the same rows (the largest difference is printed). A loop over
taps also cuts the network at each, so its cost is the sum of the shares of the forward pass; with taps that end the
stages of a network this sum, and not the number of taps, bounds the gain. It is printed as `bound`, from the counted
multiply-adds, next to the gain itself. Compiling is left out of both.

`cuts`: seconds per image of a network cut at a layer against the whole network.

    python benchmarks/one_pass.py --images 128 --turns 5
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import Backbone, build
from humeris.extract.backbones.forward import ForwardPass
from humeris.extract.backbones.keras_runtime import load_keras, reset_layer_names, seed_initializers
from humeris.extract.backbones.taps import Tap

TAPS = {
    "last blocks": ("conv5_block1_out", "conv5_block2_out", "conv5_block3_out", "conv4_block6_out"),
    "ends of stages": ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
}
CUTS = (("inception_v3", "mixed5"), ("vgg16", "block2_pool"))


def make_images(backbone: Backbone, count: int) -> np.ndarray:
    """Noise of the backbone's size, uint8 (count, height, width, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count, *backbone.spec.image_size, 3), dtype=np.uint8)


def time_steps(steps: Sequence[Callable[[], object]], n_turns: int) -> list[list[float]]:
    """Seconds of each step in each turn, the steps taking turns, after one that is not counted."""
    seconds: list[list[float]] = [[] for _ in steps]
    for turn in range(n_turns + 1):
        for step, step_seconds in zip(steps, seconds, strict=True):
            start_time = time.perf_counter()
            step()
            if turn:
                step_seconds.append(time.perf_counter() - start_time)
    return seconds


def extract_rows(forward: ForwardPass, images: np.ndarray) -> list[np.ndarray]:
    """Rows of each tap, batch by batch."""
    batches = [forward(images[start : start + forward.batch_size]) for start in range(0, len(images), forward.batch_size)]
    return [np.concatenate(rows) for rows in zip(*batches, strict=True)]


def measure_one_pass(count: int, batch_size: int, n_turns: int, name: str, layers: Sequence[str]) -> dict[str, Any]:
    """Four taps of ResNet50 in one pass, and one pass per tap."""
    keras = load_keras()
    backbone = build(BackboneSpec.parse("resnet50,weights=random"))
    images = make_images(backbone, count)
    forward = ForwardPass(backbone.graph, [Tap(layer, "avg") for layer in layers], batch_size)
    with reset_layer_names(), seed_initializers(0):  # the same weights
        model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(*backbone.spec.image_size, 3))
    scaled = keras.applications.resnet50.preprocess_input(images.astype(np.float32))
    extractors = [keras.Model(model.input, model.get_layer(layer).output) for layer in layers]
    rows: dict[str, list[np.ndarray]] = {}

    def run_humeris() -> None:
        rows["humeris"] = extract_rows(forward, images)

    def run_guide() -> None:
        rows["guide"] = [
            extractor.predict(scaled, batch_size=batch_size, verbose=0).mean(axis=(1, 2)) for extractor in extractors
        ]

    our_seconds, guide_seconds = time_steps([run_humeris, run_guide], n_turns)
    shares = {layer.name: layer.cost / backbone.graph.layers[-1].cost for layer in backbone.graph.layers}
    deepest = max(shares[layer] for layer in layers)
    pairs = zip(rows["humeris"], rows["guide"], strict=True)
    return {
        "taps": name,
        "layers": list(layers),
        "images_per_second": round(count / median(our_seconds), 2),
        "guide_images_per_second": round(count / median(guide_seconds), 2),
        "times_as_fast": round(
            median(guide_value / our_value for our_value, guide_value in zip(our_seconds, guide_seconds, strict=True)), 3
        ),
        "bound": round(sum(shares[layer] for layer in layers) / deepest, 3),
        "largest_difference": max(
            float(np.abs(our_value - guide_value).max() / np.abs(guide_value).max()) for our_value, guide_value in pairs
        ),
    }


def measure_cut(name: str, layer: str, count: int, batch_size: int, n_turns: int) -> dict[str, Any]:
    """A network cut at `layer`, and the whole of it."""
    backbone = build(BackboneSpec.parse(f"{name},weights=random"))
    images = make_images(backbone, count)
    last = backbone.graph.layers[-1]
    shares = {each.name: each.cost / last.cost for each in backbone.graph.layers}
    forwards = [ForwardPass(backbone.graph, [Tap(layer_name, "avg")], batch_size) for layer_name in (layer, last.name)]
    part, whole = time_steps([lambda forward=each: extract_rows(forward, images) for each in forwards], n_turns)  # type: ignore[misc]
    return {
        "network": name,
        "cut_at": layer,
        "seconds_per_image": round(median(part) / count, 5),
        "whole_seconds_per_image": round(median(whole) / count, 5),
        "times_as_fast": round(
            median(whole_seconds / part_seconds for part_seconds, whole_seconds in zip(part, whole, strict=True)), 3
        ),
        "share_of_multiply_adds": round(shares[layer], 4),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    sizes = arguments.images, arguments.batch_size, arguments.turns
    taps = [measure_one_pass(*sizes, name, layers) for name, layers in TAPS.items()]
    cuts = [measure_cut(name, layer, *sizes) for name, layer in CUTS]
    print(
        json.dumps(
            {"benchmark": "one_pass", "images": arguments.images, "turns": arguments.turns, "taps": taps, "cuts": cuts}
        )
    )


if __name__ == "__main__":
    main()
