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
from humeris.extract.engine.extract import extract_features
from humeris.extract.images.load import Images, load_images
from humeris.extract.pixels import read_file

BATCH = 32


def extraction_seconds(images: Images, backbone: str, tap: str, count: int, place: Path) -> float:
    """Seconds of extracting the first `count` images into an empty cache."""
    some = Images(images.dataset, images.used[:count], (), (), images.known)
    with Store(place, write=True) as store:
        done = extract_features(some, backbone, [tap], store, batch_size=BATCH)
    assert done.computed == count
    shutil.rmtree(place)
    return done.seconds


def prediction_seconds(predictor: Predictor, paths: list[Path]) -> float:
    """Seconds of predicting all of `paths`."""
    began = time.perf_counter()
    found = list(predictor.predict(paths, batch_size=BATCH))
    assert not any(each.refused for each in found)
    return time.perf_counter() - began


def per_second(seconds: Callable[[int], float], count: int) -> float:
    """Images in a second, what is spent once taken off."""
    return (count - BATCH) / (seconds(count) - seconds(BATCH))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--backbone", default="mobilenet_v2,alpha=0.35,weights=random")
    parser.add_argument("--layer", default="out_relu")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--formats", default=",".join(FORMATS))
    asked = parser.parse_args()
    names, tap = asked.formats.split(","), f"{asked.layer}:avg"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if asked.data is None:
            (place / "drawn").mkdir()
            draw(place / "drawn" / "one", asked.images)
            (place / "drawn" / "other").mkdir()
            for path in sorted((place / "drawn" / "one").iterdir())[::2]:
                path.rename(place / "drawn" / "other" / path.name)
        with Store(place / "cache", write=True) as store:
            images = load_images(asked.data or place / "drawn", store)
            done = extract_features(images, asked.backbone, [tap], store, batch_size=BATCH)
            run = sweep(done.images, store, ["logreg,C=0.001"], out=place / "run")
            models = {name: export(run, store, place / f"model{FORMATS[name].suffix}", form=name).path for name in names}
        predictors = {name: Predictor(path, cache=place / "cache") for name, path in models.items()}
        paths = [image.path for image in images.used][: asked.images // BATCH * BATCH]
        ours: dict[str, list[float]] = {name: [] for name in names}
        theirs: list[float] = []
        for _ in range(asked.turns):
            theirs.append(
                per_second(lambda n: extraction_seconds(images, asked.backbone, tap, n, place / "other"), len(paths))
            )
            for name, predictor in predictors.items():
                ours[name].append(per_second(lambda n, p=predictor: prediction_seconds(p, paths[:n]), len(paths)))  # type: ignore[misc]
        result: dict[str, Any] = {
            "backbone": asked.backbone,
            "tap": tap,
            "images": len(paths),
            "turns": asked.turns,
            "cores": read_file.cores(),
            "extraction": round(median(theirs), 1),
            "prediction": {name: round(median(each), 1) for name, each in ours.items()},
            "of_extraction": {
                name: round(median(one / other for one, other in zip(each, theirs, strict=True)), 3)
                for name, each in ours.items()
            },
            "goal": 0.9,
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
