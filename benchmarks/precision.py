"""Half precision against float32: images per second of the forward pass, and how far the features move.

Peers, in turns within one run: `keras`, the network as Keras builds it, in float32; `float32`, humeris's forward pass of the
same weights, whose normalisations are folded into the convolutions; and the same in each --precision. Each has a
preloaded batch and the same four taps. Ratios are of medians; processor seconds are steadier than wall time where other
work disturbs. Goal: bfloat16 at least 1.4 times as fast as float32 on a processor with the instructions.

With --data, the accuracy of a linear head (five folds, as `humeris sweep` does it) on the features of each precision: goal,
within half a point of float32's.

    python benchmarks/precision.py --backbone resnet50,weights=random --backbone mobilenet_v2,weights=random
    python benchmarks/precision.py --backbone mobilenet_v2,alpha=0.35 --data cifar10-6k --layer block_16_expand_relu
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from humeris.cache.store import Store
from humeris.classify.sweep.sweep import sweep
from humeris.extract.backbones import device, precision
from humeris.extract.backbones.backbone_spec import Request
from humeris.extract.backbones.build import build
from humeris.extract.backbones.forward import Forward
from humeris.extract.backbones.graph import default_taps
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import Tap
from humeris.extract.engine.extract import extract_features
from humeris.extract.images.load import load_images


def forwards(backbone: str, precisions: Sequence[str], batch_size: int) -> dict[str, Forward]:
    """What is compared, by name; all have the same weights and taps."""
    built = {name: build(Request.parse(backbone, precision=name)) for name in precisions}
    plain = built["float32"].graph
    taps = [Tap(layer, "avg") for layer in default_taps(plain.layers, most=4)]
    return {name: Forward(each.graph, taps, batch_size) for name, each in built.items()}


def speed(backbone: str, precisions: Sequence[str], batch_size: int, turns: int) -> dict[str, Any]:
    """Images per second of each, and ratios to float32."""
    compared = {"keras": unfolded(backbone, batch_size), **forwards(backbone, precisions, batch_size)}
    size = compared["float32"]._batch.shape[1:3]
    images = list(np.random.default_rng(0).integers(0, 256, (batch_size, *size, 3), np.uint8))
    rows = {name: forward(images)[-1] for name, forward in compared.items()}
    wall: dict[str, list[float]] = {name: [] for name in compared}
    work: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(turns):
        for name, forward in compared.items():
            began, used = time.perf_counter(), time.process_time()
            forward(images)
            wall[name].append(time.perf_counter() - began)
            work[name].append(time.process_time() - used)
    base, exact = "float32", rows["float32"]
    return {
        name: {
            "images_per_second": round(batch_size / median(wall[name]), 2),
            "times_float32": round(median(wall[base]) / median(wall[name]), 3),
            "times_float32_in_processor_seconds": round(median(work[base]) / median(work[name]), 3),
            "lowest_cosine": round(float((_unit(rows[name]) * _unit(exact)).sum(axis=1).min()), 6),
            "largest_deviation": round(float(np.abs(rows[name] - exact).max() / np.abs(exact).max()), 6),
        }
        for name in compared
    }


def unfolded(backbone: str, batch_size: int) -> Forward:
    """The network without folding."""
    from humeris.extract.backbones import graph

    real, graph.foldable = graph.foldable, lambda *_: False
    try:
        plain = build(Request.parse(backbone)).graph
    finally:
        graph.foldable = real
    return Forward(plain, [Tap(layer, "avg") for layer in default_taps(plain.layers, most=4)], batch_size)


def accuracy(backbone: str, precisions: Sequence[str], data: Path, layers: Sequence[str]) -> dict[str, Any]:
    """Accuracy of the best linear head on each precision's features, by cross-validation and on the test split."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "cache", write=True) as store:
        for name in precisions:
            request = Request.parse(backbone, precision=name)
            done = extract_features(load_images(data, store), request, layers, store)
            only = {(done.card.spec.digest, tap) for tap in done.taps}
            run = sweep(done.images, store, ["logreg"], only=only, out=Path(folder) / name)
            described = run.description
            found[name] = {
                "taps": {f"{point['layer']}:{point['pool']}": point["accuracy"] for point in run.depth_curve()},
                "test": described["test"]["accuracy"],
            }
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", action="append")
    parser.add_argument("--precision", action="append")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--layer", action="append")
    asked = parser.parse_args()
    precisions = ["float32", *(asked.precision or ["bfloat16"])]
    found: dict[str, Any] = {
        "backend": load_keras().backend.backend(),
        "processor_has_bfloat16": precision.processor_has_bfloat16(),
        "gpus": device.visible(),
        "batch_size": asked.batch_size,
    }
    for backbone in asked.backbone or ["resnet50,weights=random"]:
        found[backbone] = {"speed": speed(backbone, precisions, asked.batch_size, asked.turns)}
        if asked.data:
            found[backbone]["accuracy"] = accuracy(backbone, precisions, asked.data, asked.layer or [])
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
