"""How the time of a cross-validated path of C grows with rows, columns, classes and problems, one at a time.

    python benchmarks/scaling.py -o docs/scaling.svg

Prints one JSON document and, with -o, draws it on logarithmic axes. A problem is one value of C in one fold; the others are
held at 4,000 rows, 512 columns, 10 classes and 50 problems. Grid search is timed beside us where it takes under a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from linear_heads import make_dataset, run_grid_search
from sklearn.model_selection import StratifiedKFold

from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

logreg = get_head_family("logreg")

BASE = {"rows": 4000, "columns": 512, "classes": 10, "problems": 50}
STEPS = {
    "rows": [500, 1000, 2000, 4000, 8000, 16000],
    "columns": [128, 512, 2048, 8192, 32768],
    "classes": [2, 5, 10, 20, 50, 100],
    "problems": [5, 10, 25, 50, 100],
}
_LONG = 60.0  # seconds: the peer is not asked for more than this, judged by its last step


def measure(sizes: dict[str, int], peer: bool) -> tuple[float, float | None]:
    """Seconds of ours, and of the peer where it is asked."""
    features, labels = make_dataset(sizes["rows"], sizes["columns"], sizes["classes"])
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(features, labels))
    c_values = np.geomspace(1e-4, 1e2, sizes["problems"] // 5).tolist()
    cores = len(os.sched_getaffinity(0))
    unthreaded = TrainingData.from_arrays(features, labels, folds)
    start_time = time.perf_counter()
    training_data = TrainingData(unthreaded.features, labels, unthreaded.target, unthreaded.folds, unthreaded.images, cores)
    logreg.cross_validate(training_data, [{"C": value} for value in c_values], 0)
    our_seconds = time.perf_counter() - start_time
    if not peer:
        return our_seconds, None
    start_time = time.perf_counter()
    run_grid_search(features, labels, folds, c_values, cores)
    return our_seconds, time.perf_counter() - start_time


def draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One picture of four panels."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
    for panel, (name, points) in zip(panels, curves.items(), strict=True):
        panel.loglog([point[name] for point in points], [point["seconds"] for point in points], "o-", label="humeris")
        peer_points = [point for point in points if point["peer_seconds"] is not None]
        panel.loglog(
            [point[name] for point in peer_points],
            [point["peer_seconds"] for point in peer_points],
            "s--",
            label="GridSearchCV",
        )
        panel.set_xlabel(name)
        panel.grid(True, which="major", alpha=0.3)
    panels[0].set_ylabel("seconds")
    panels[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Parse, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    measure({**BASE, "rows": 500, "columns": 64}, True)  # what is loaded first is not counted
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, steps in STEPS.items():
        curves[name], last_seconds = [], 0.0
        for previous_step, step in zip([0, *steps], steps, strict=False):
            sizes = {**BASE, name: step}
            expected = last_seconds * (step / previous_step if previous_step else 1)
            our_seconds, peer_seconds = measure(sizes, expected < _LONG)
            last_seconds = expected if peer_seconds is None else peer_seconds
            curves[name].append({**sizes, "seconds": our_seconds, "peer_seconds": peer_seconds})
    print(json.dumps({"load": os.getloadavg()[0], "curves": curves}, indent=2))
    if options.out:
        draw(curves, options.out)


if __name__ == "__main__":
    main()
