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
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones import device, precision
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.forward import ForwardPass
from humeris.extract.backbones.graph import choose_default_layers
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import Tap
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images


def build_forwards(backbone: str, precisions: Sequence[str], batch_size: int) -> dict[str, ForwardPass]:
    """What is compared, by name; all have the same weights and taps."""
    backbones = {name: build(BackboneSpec.parse(backbone, precision=name)) for name in precisions}
    plain_graph = backbones["float32"].graph
    taps = [Tap(layer, "avg") for layer in choose_default_layers(plain_graph.layers, max_layers=4)]
    return {name: ForwardPass(network.graph, taps, batch_size) for name, network in backbones.items()}


def measure_speed(backbone: str, precisions: Sequence[str], batch_size: int, n_turns: int) -> dict[str, Any]:
    """Images per second of each, and ratios to float32."""
    forwards_by_name = {"keras": build_unfolded(backbone, batch_size), **build_forwards(backbone, precisions, batch_size)}
    size = forwards_by_name["float32"]._batch.shape[1:3]
    images = list(np.random.default_rng(0).integers(0, 256, (batch_size, *size, 3), np.uint8))
    rows = {name: forward(images)[-1] for name, forward in forwards_by_name.items()}
    wall: dict[str, list[float]] = {name: [] for name in forwards_by_name}
    processor: dict[str, list[float]] = {name: [] for name in forwards_by_name}
    for _ in range(n_turns):
        for name, forward in forwards_by_name.items():
            start_time, start_processor = time.perf_counter(), time.process_time()
            forward(images)
            wall[name].append(time.perf_counter() - start_time)
            processor[name].append(time.process_time() - start_processor)
    base, reference = "float32", rows["float32"]
    return {
        name: {
            "images_per_second": round(batch_size / median(wall[name]), 2),
            "times_float32": round(median(wall[base]) / median(wall[name]), 3),
            "times_float32_in_processor_seconds": round(median(processor[base]) / median(processor[name]), 3),
            "lowest_cosine": round(float((_normalize(rows[name]) * _normalize(reference)).sum(axis=1).min()), 6),
            "largest_deviation": round(float(np.abs(rows[name] - reference).max() / np.abs(reference).max()), 6),
        }
        for name in forwards_by_name
    }


def build_unfolded(backbone: str, batch_size: int) -> ForwardPass:
    """The network without folding."""
    from humeris.extract.backbones import graph

    is_foldable, graph.can_fold = graph.can_fold, lambda *_: False
    try:
        plain_graph = build(BackboneSpec.parse(backbone)).graph
    finally:
        graph.can_fold = is_foldable
    return ForwardPass(
        plain_graph, [Tap(layer, "avg") for layer in choose_default_layers(plain_graph.layers, max_layers=4)], batch_size
    )


def measure_accuracy(backbone: str, precisions: Sequence[str], data: Path, layers: Sequence[str]) -> dict[str, Any]:
    """Accuracy of the best linear head on each precision's features, by cross-validation and on the test split."""
    results = {}
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "cache", write=True) as store:
        for name in precisions:
            request = BackboneSpec.parse(backbone, precision=name)
            extract_result = extract_features(load_images(data, store), store, ExtractConfig(request, layers=layers))[0]
            only = {(extract_result.metadata.spec.digest, tap) for tap in extract_result.taps}
            run = sweep(extract_result.images, store, SweepConfig(["logreg"], out=Path(folder) / name), only_taps=only)
            results[name] = {
                "taps": {f"{point.layer}:{point.pool}": point.accuracy for point in run.compute_depth_curve()},
                "test": run.result.test.accuracy,
            }
    return results


def _normalize(rows: np.ndarray) -> np.ndarray:
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
    arguments = parser.parse_args()
    precisions = ["float32", *(arguments.precision or ["bfloat16"])]
    results: dict[str, Any] = {
        "backend": load_keras().backend.backend(),
        "processor_has_bfloat16": precision.has_bfloat16_instructions(),
        "gpus": device.format_visible_gpus(),
        "batch_size": arguments.batch_size,
    }
    for backbone in arguments.backbone or ["resnet50,weights=random"]:
        results[backbone] = {"speed": measure_speed(backbone, precisions, arguments.batch_size, arguments.turns)}
        if arguments.data:
            results[backbone]["accuracy"] = measure_accuracy(backbone, precisions, arguments.data, arguments.layer or [])
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
