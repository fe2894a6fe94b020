"""A sweep of logistic regression over every cached tap, beside scikit-learn's grid search for the same table.

    humeris extract cifar10-6k -b mobilenet_v2,alpha=0.35 -l out_relu -l 'block_*_add' --cache features
    python benchmarks/sweep.py cifar10-6k --cache features

Prints one JSON document: seconds of `humeris.sweep` (from the cache to the scored winner, files written) and of one
`GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)))` for each tap, same C and folds, all
cores for both, rows already in memory for the peer; and the largest difference of the two tables.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from linear_heads import run_grid_search

import humeris
from humeris.classify.data import select_features
from humeris.classify.data.splits import split
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.pixels.read_file import count_cores


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--layer", "-l", nargs="*", default=[])
    parser.add_argument("--head", default="logreg")
    parser.add_argument("--tol", type=float, default=1e-4)
    options = parser.parse_args()
    store = humeris.Store(options.cache)
    images = humeris.load_images(options.data, store)
    with tempfile.TemporaryDirectory() as folder:
        start_time = time.perf_counter()
        run = sweep(images, store, SweepConfig([options.head], layers=options.layer, out=Path(folder, "run")))
        seconds = time.perf_counter() - start_time
        scores = run.load_trials()
    images = images.sort_by_digest()
    splits = split(images)
    folds = list(splits.iter_folds(0))
    peer_seconds: dict[str, float] = {}
    differences: dict[float, float] = {}
    for source in sorted({trial.tap_refs[0] for trial in scores}):
        our_accuracies = {
            trial.hyperparameters["C"]: score.accuracy for trial, score in scores.items() if trial.tap_refs == (source,)
        }
        features = select_features.load_matrix(store, [source], images.keys).to_array()
        start_time = time.perf_counter()
        peer_accuracies = run_grid_search(features, splits.labels, folds, sorted(our_accuracies), count_cores(), options.tol)
        peer_seconds[str(source)] = time.perf_counter() - start_time
        for value, accuracy in zip(sorted(our_accuracies), peer_accuracies, strict=True):
            differences[value] = max(differences.get(value, 0.0), abs(float(accuracy) - our_accuracies[value]))
    print(
        json.dumps(
            {
                "data": options.data.name,
                "taps": len(peer_seconds),
                "trials": len(scores),
                "development_images": len(splits.development),
                "seconds": seconds,
                "grid_search_seconds": sum(peer_seconds.values()),
                "ratio": sum(peer_seconds.values()) / seconds,
                "largest_differences": differences,
                "by_tap": peer_seconds,
                "load": os.getloadavg()[0],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
