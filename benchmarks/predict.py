"""Prediction with an exported model against extraction through the same cut of the same network.

Both read the same JPEG files, decode them in other processes and run the network in batches of 32; extraction also stores
the rows, prediction also runs the head. Goal: prediction has at least 0.9 of extraction's images per second, in every
format. What is spent once however many images there are is measured with one batch and taken off. The turns alternate;
medians of the ratios within a turn are printed.

    python benchmarks/predict.py --backbone mobilenet_v2,alpha=0.35 --layer out_relu --images 1024 --turns 3
    python benchmarks/predict.py --data FOLDER --formats keras,onnx

DATA is a folder of class folders; without it, photographs of 500 x 375 pixels are drawn, in two folders.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from extraction import draw

from humeris.cache.store import Store
from humeris.classify.export.export import export
from humeris.classify.export.formats.registry import FORMATS
from humeris.classify.export.predict import Predictor
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.pixels import read_file

BATCH = 32


def time_extraction(images: Images, backbone: str, tap: str, count: int, folder: Path) -> float:
    """Seconds of extracting the first `count` images into an empty cache."""
    subset = Images(images.dataset, images.used[:count], (), ())
    with Store(folder, write=True) as store:
        result = extract_features(subset, store, ExtractConfig(backbone, layers=[tap], batch_size=BATCH))[0]
    assert result.computed == count
    shutil.rmtree(folder)
    return result.seconds


def time_prediction(predictor: Predictor, paths: list[Path]) -> float:
    """Seconds of predicting all of `paths`."""
    start_time = time.perf_counter()
    predictions = list(predictor.predict(paths, batch_size=BATCH))
    assert not any(prediction.rejection for prediction in predictions)
    return time.perf_counter() - start_time


def compute_rate(measure_seconds: Callable[[int], float], count: int) -> float:
    """Images in a second, what is spent once taken off."""
    return (count - BATCH) / (measure_seconds(count) - measure_seconds(BATCH))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--backbone", default="mobilenet_v2,alpha=0.35,weights=random")
    parser.add_argument("--layer", default="out_relu")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--formats", default=",".join(FORMATS))
    arguments = parser.parse_args()
    names, tap = arguments.formats.split(","), f"{arguments.layer}:avg"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if arguments.data is None:
            (root / "drawn").mkdir()
            draw(root / "drawn" / "one", arguments.images)
            (root / "drawn" / "other").mkdir()
            for path in sorted((root / "drawn" / "one").iterdir())[::2]:
                path.rename(root / "drawn" / "other" / path.name)
        with Store(root / "cache", write=True) as store:
            images = load_images(arguments.data or root / "drawn", store)
            extract_result = extract_features(
                images, store, ExtractConfig(arguments.backbone, layers=[tap], batch_size=BATCH)
            )[0]
            run = sweep(extract_result.images, store, SweepConfig(["logreg,C=0.001"], out=root / "run"))
            models = {name: export(run, store, root / f"model{FORMATS[name].suffix}", format=name).path for name in names}
        predictors = {name: Predictor(path, cache=root / "cache") for name, path in models.items()}
        paths = [image.item.location for image in images.used][: arguments.images // BATCH * BATCH]
        prediction_rates: dict[str, list[float]] = {name: [] for name in names}
        extraction_rates: list[float] = []
        for _ in range(arguments.turns):
            extraction_rates.append(
                compute_rate(lambda n: time_extraction(images, arguments.backbone, tap, n, root / "other"), len(paths))
            )
            for name, predictor in predictors.items():
                prediction_rates[name].append(compute_rate(lambda n, p=predictor: time_prediction(p, paths[:n]), len(paths)))  # type: ignore[misc]
        result: dict[str, Any] = {
            "backbone": arguments.backbone,
            "tap": tap,
            "images": len(paths),
            "turns": arguments.turns,
            "cores": read_file.count_cores(),
            "extraction": round(median(extraction_rates), 1),
            "prediction": {name: round(median(rates), 1) for name, rates in prediction_rates.items()},
            "of_extraction": {
                name: round(
                    median(
                        prediction_rate / extraction_rate
                        for prediction_rate, extraction_rate in zip(rates, extraction_rates, strict=True)
                    ),
                    3,
                )
                for name, rates in prediction_rates.items()
            },
            "goal": 0.9,
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
