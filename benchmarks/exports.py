"""What a model is in each file format: how far its answers lie from Keras's, its size, and its latency, family by family.

Each network of keras.applications gets a head on its standardised features of real photographs, with random weights, so that
answers differ from image to image; the network's own weights are random as well, unless the family says otherwise. The file
is written by humeris and run in a fresh process that has the format's runtime alone, as after every export; it is refused by
the same rules. Every family runs in a process of its own, and those that --results has are not run again.

Goals: every family in every format; max |dp| at most 1e-3 in float32; equal classes of 98 % in int8.

    python benchmarks/exports.py --images PHOTOGRAPHS
    python benchmarks/exports.py --images PHOTOGRAPHS --families nano,vgg16 --formats onnx,litert
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from humeris.cache.errors import HumerisError
from humeris.classify.export import parity
from humeris.classify.export.formats.format import Format
from humeris.classify.export.formats.registry import FORMATS
from humeris.classify.export.formats.weight_precision import PRECISIONS
from humeris.classify.export.model_metadata import ModelMetadata
from humeris.classify.export.stack_model import stack_model
from humeris.classify.heads.head import Head
from humeris.classify.heads.layers import Dense, Standardize
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import Tap
from humeris.extract.pixels import decode

SIZE, CLASSES = 96, 5
N_COMPARED, N_CALIBRATION = 128, 128  # images
FAMILIES = [
    "nano",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "InceptionV3",
    "InceptionResNetV2",
    "Xception",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "DenseNet121",
    "VGG16",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "ConvNeXtTiny",
]
HEADING = f"""# Exports

Written by `python benchmarks/exports.py`. Each network has random weights (nano its own), images of {SIZE} × {SIZE}
pixels, and a head with random weights on its standardized last features. The predictions of each file on {N_COMPARED}
photographs, made in a fresh process that has only its runtime, are compared with those of Keras: the largest
difference of a probability, and the share of images with the same predicted class. Latency is the median for a batch
of one image, on all cores (%s).

In float16, large constants are stored in half precision. In int8, the kernels are quantized, and so are the
activations (`+`) where the predictions on the calibration images stay the same; such a file computes in integers.
Files marked "refused" would be rejected by `humeris export`, because their predictions differ too much from those of
the run.

| network | format | weights | largest difference | equal classes | MB | ms | |
|---|---|---|---:|---:|---:|---:|---|
"""


def load_photographs(folder: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, height, width, 3) uint8 to compare answers on, and others to learn ranges from."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if len(files) < N_COMPARED + N_CALIBRATION:
        raise SystemExit(f"{folder}: expected at least {N_COMPARED + N_CALIBRATION} images, found {len(files)}")
    selected = [files[row] for row in np.linspace(0, len(files) - 1, N_COMPARED + N_CALIBRATION).astype(int)]
    images = np.stack([decode.decode(path.read_bytes(), size) for path in selected])
    return images[::2], images[1::2]


def build_model(family: str, folder: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """The Keras model, and the images to compare answers on and to learn from."""
    keras = load_keras()
    backbone = build(
        BackboneSpec.parse(f"{family},image_size={SIZE}", weights="synthetic" if family == "nano" else "random")
    )
    test_images, calibration_images = load_photographs(folder, (SIZE, SIZE))
    layer = backbone.graph.layers[-1].name
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.graph.outputs[layer])
    rows = keras.Model(backbone.graph.image, pooled).predict(calibration_images, batch_size=16, verbose=0)
    deviation = np.maximum(rows.std(axis=0), 1e-3 * rows.std(axis=0).max())
    width = rows.shape[1]
    weights = np.random.default_rng(0).normal(size=(width, CLASSES)) * 2 / width**0.5
    last = Dense(weights.astype(np.float32), np.zeros(CLASSES, np.float32), "softmax")
    head = Head(layers=(Standardize(rows.mean(axis=0), 1 / deviation), last), class_names=tuple("abcde"))
    return stack_model(backbone, [Tap(layer, "avg")], head), test_images, calibration_images


def measure_family(name: str, folder: Path, formats: Sequence[Format]) -> list[dict[str, Any]]:
    """The lines of the table for one network."""
    model, test_images, calibration_images = build_model(name, folder)
    expected = model.predict(test_images, batch_size=16, verbose=0)
    lines = []
    with tempfile.TemporaryDirectory() as out_folder:
        for file_format in formats:
            for precision in file_format.precisions:
                path = Path(out_folder, f"model-{precision}{file_format.suffix}")
                lines.append({"family": name, "format": file_format.name, "precision": precision})
                try:
                    lines[-1] |= measure_file(file_format, precision, path, model, calibration_images, expected, test_images)
                except HumerisError as error:
                    lines[-1]["refused"] = str(error).replace(str(path), "").strip(": ")
    return lines


def measure_file(
    file_format: Format,
    precision: str,
    path: Path,
    model: Any,
    calibration_images: np.ndarray,
    expected: np.ndarray,
    test_images: np.ndarray,
) -> dict[str, Any]:
    """The figures of one file; raises `HumerisError` where it cannot be written or run."""
    start_time = time.perf_counter()
    weight_precision = PRECISIONS[precision]
    metadata = ModelMetadata(tuple("abcde"), test_images.shape[1:3], decode.get_version(), precision)
    file_format.write(model, path, metadata, precision, calibration_images if weight_precision.needs_calibration else None)
    seconds = time.perf_counter() - start_time
    written_metadata = file_format.read_metadata(path)
    probabilities, milliseconds = parity.predict_in_subprocess(file_format, path, test_images)
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    figures = {
        "max_difference": float(np.abs(probabilities - expected).max()),
        "agreement": float((probabilities.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        "bytes": sum(file.stat().st_size for file in files),
        "milliseconds": round(milliseconds, 2),
        "seconds_to_write": round(seconds, 1),
        "activations": (written_metadata.activations if written_metadata else "") or "float32",
    }
    try:
        if weight_precision.compares_classes:
            parity.compare_classes(metadata.get_target(), expected, probabilities)
        else:
            parity.compare(
                metadata.get_target(), expected, probabilities, max(file_format.tolerance, weight_precision.min_tolerance)
            )
    except HumerisError:
        figures["refused"] = "refused"
    return figures


def format_table(lines: Sequence[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    rows = []
    for line in lines:
        weights = line["precision"] + ("+" if line.get("activations") == "int8" else "")
        cells = [line["family"], line["format"], weights]
        if "bytes" in line:
            cells += [f"{line['max_difference']:.1e}", f"{line['agreement']:.1%}", f"{line['bytes'] / 1e6:.2f}"]
            cells += [f"{line['milliseconds']:.1f}"]
        else:
            cells += [""] * 4
        rows.append("| " + " | ".join([*cells, line.get("refused", "").replace("|", "/")]) + " |\n")
    return HEADING % (os.cpu_count() or 1) + "".join(rows)


def main() -> None:
    """Parse, run the families that are missing, write the page, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--results", type=Path, default=Path("exports.json"), help="what is known, and is not run again")
    parser.add_argument("--out", type=Path, default=Path("docs/exports.md"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    formats = arguments.formats.split(",")
    if arguments.one:
        print(json.dumps(measure_family(arguments.one, arguments.images, [FORMATS[name] for name in formats])))
        return
    results: dict[str, Any] = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    for name in arguments.families.split(","):
        for file_format in formats:
            key = f"{name} {file_format}"
            if key not in results:
                command = [sys.executable, __file__, "--images", arguments.images, "--one", name, "--formats", file_format]
                process = subprocess.run(command, capture_output=True, text=True, check=False)
                if process.returncode:
                    raise SystemExit(f"{key}: {process.stderr.strip()[-2000:]}")
                results[key] = json.loads(process.stdout.splitlines()[-1])
                arguments.results.write_text(json.dumps(results))
    order = {name: index for index, name in enumerate(FAMILIES)}
    lines = [line for lines in results.values() for line in lines]
    lines.sort(key=lambda line: (order.get(line["family"], len(order)), list(FORMATS).index(line["format"])))
    arguments.out.write_text(format_table(lines))
    print(json.dumps(lines, indent=2))


if __name__ == "__main__":
    main()
