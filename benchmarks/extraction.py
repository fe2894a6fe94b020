"""Extraction of JPEG files against what bounds it: the bare forward pass, and the decoding of the same files.

`network`: ResNet50 in float32 with four taps. The peer is the compiled forward pass of the same cut model on batches that
are ready in memory; goal: at least 0.95 of its images per second.
`decode`: MobileNetV2 with alpha 0.35, where decoding weighs more. The bound is 1 / (1/forward + 1/decode), with the bare
forward pass as above, and reading and decoding the same files in as many processes as there are cores, which send nothing
back; goal: at least 0.95 of it.

Extraction is `extract_features` into an empty cache, on identified images: reading, checking digests, decoding,
computing, pooling, storing. What is spent once however many images there are (building and compiling the network, starting
the decoders) is measured with one batch and taken off. The turns alternate; medians of the ratios within a turn are printed.

    python benchmarks/extraction.py network --images 256 --turns 3
    python benchmarks/extraction.py decode --data FOLDER --images 1024 --turns 3

Without --data, photographs of 500 x 375 pixels are drawn. `KERAS_BACKEND=jax` measures another back end of Keras.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image as Picture

from humeris.cache.store import Store
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import Backbone, build
from humeris.extract.backbones.forward import ForwardPass
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import Tap
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.pixels import decode as pixels
from humeris.extract.pixels import read_file

WORKLOADS = {
    "network": ("resnet50", ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")),
    "decode": (
        "mobilenet_v2,alpha=0.35",
        ("block_6_expand_relu", "block_13_expand_relu", "block_16_expand_relu", "out_relu"),
    ),
}


def draw(folder: Path, count: int) -> None:
    """Smooth pictures with some grain, which compress to about the size of a photograph (40 to 60 kB)."""
    folder.mkdir()
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = Picture.fromarray(random.integers(0, 256, (16, 21, 3), np.uint8)).resize(
            (500, 375), Picture.Resampling.BICUBIC
        )
        grain = random.normal(0, 6, (375, 500, 3))
        Picture.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(
            folder / f"{number:06}.jpg", quality=85
        )


def decode_all(paths: list[Path], size: tuple[int, int]) -> int:
    """Read and decode; the number of images."""
    return sum(pixels.decode(read_file.read_bytes(path), size).ndim == 3 for path in paths)


class ExtractionBenchmark:
    """One network on one set of files."""

    def __init__(
        self, images: Images, request: BackboneSpec, layers: tuple[str, ...], batch_size: int, folder: Path
    ) -> None:
        self.images, self.request, self.layers, self.batch_size, self.folder = images, request, layers, batch_size, folder
        self.backbone: Backbone = build(request)
        self.forward = ForwardPass(self.backbone.graph, [Tap(layer, "avg") for layer in layers], batch_size)
        size = self.backbone.spec.image_size
        noise = np.random.default_rng(0).integers(0, 256, (batch_size, *size, 3), dtype=np.uint8)
        self.batch = list(noise)
        self.pool = ProcessPoolExecutor(read_file.count_cores(), get_context("spawn"))

    def time_forward(self, count: int) -> float:
        """Seconds of the forward pass alone for `count` images."""
        self.forward(self.batch)
        start_time = time.perf_counter()
        for _ in range(count // self.batch_size):
            self.forward.model.predict_on_batch(self.forward._batch)
        return time.perf_counter() - start_time

    def time_decoding(self, count: int) -> float:
        """Seconds of reading and decoding alone, on all cores."""
        paths = [Path(image.item.location) for image in self.images.used[:count]]
        parts = [paths[start : start + 16] for start in range(0, len(paths), 16)]
        list(self.pool.map(decode_all, parts[:4], [self.backbone.spec.image_size] * 4))
        start_time = time.perf_counter()
        n_decoded = sum(self.pool.map(decode_all, parts, [self.backbone.spec.image_size] * len(parts)))
        assert n_decoded == count
        return time.perf_counter() - start_time

    def time_extraction(self, count: int) -> float:
        """Seconds of extracting `count` images into an empty cache."""
        names = {image.name for image in self.images.used[:count]}
        subset = self.images.reject({image.name: None for image in self.images.used if image.name not in names})  # type: ignore[misc]
        subset = type(subset)(subset.dataset, subset.used, (), ())
        cache = self.folder / "cache"
        with Store(cache, write=True) as store:
            result = extract_features(
                subset,
                store,
                ExtractConfig(self.request, layers=[f"{name}:avg" for name in self.layers], batch_size=self.batch_size),
            )[0]
        assert result.computed == count, result.to_dict()
        shutil.rmtree(cache)
        return result.seconds


def measure(
    workload: str, images: Images, count: int, turns: int, batch_size: int, precision: str, folder: Path
) -> dict[str, Any]:
    """Ratios of one kind of work, as the module says."""
    name, layers = WORKLOADS[workload]
    benchmark = ExtractionBenchmark(
        images, BackboneSpec.parse(name, weights="random", precision=precision), layers, batch_size, folder
    )
    count = len(images.used[:count]) // batch_size * batch_size
    rows = []
    benchmark.time_extraction(batch_size)
    for _ in range(turns):
        steady = benchmark.time_extraction(count) - benchmark.time_extraction(batch_size)
        rate = (count - batch_size) / steady
        forward, decode = count / benchmark.time_forward(count), count / benchmark.time_decoding(count)
        rows.append((rate, forward, decode, 1 / (1 / forward + 1 / decode)))
    rate, forward, decode, bound = (median(column) for column in zip(*rows, strict=True))
    return {
        "work": workload,
        "backbone": name,
        "precision": benchmark.backbone.spec.precision,
        "backend": load_keras().backend.backend(),
        "devices": load_keras().distribution.list_devices(),
        "cores": read_file.count_cores(),
        "taps": list(layers),
        "images": count,
        "batch_size": batch_size,
        "turns": turns,
        "images_per_second": round(rate, 2),
        "bare_forward": round(forward, 2),
        "bare_decoding": round(decode, 2),
        "bound": round(bound, 2),
        "of_bare_forward": round(median(row[0] / row[1] for row in rows), 3),
        "of_bound": round(median(row[0] / row[3] for row in rows), 3),
        "goal": {"of_bare_forward" if workload == "network" else "of_bound": 0.95},
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=list(WORKLOADS))
    parser.add_argument("--data", type=Path, help="a folder of images; drawn ones without it")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if arguments.data is None:
            draw(root / "images", arguments.images)
        os.environ["HUMERIS_CACHE"] = str(root / "known")
        with Store(root / "known", write=True) as store:
            images = load_images(arguments.data or root / "images", store)
        print(
            json.dumps(
                measure(
                    arguments.work,
                    images,
                    arguments.images,
                    arguments.turns,
                    arguments.batch_size,
                    arguments.precision,
                    root,
                ),
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
