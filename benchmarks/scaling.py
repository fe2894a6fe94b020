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
from linear_heads import drawn, grid
from sklearn.model_selection import StratifiedKFold

from humeris.classify.heads.families import logreg
from humeris.classify.heads.training_data import Problem

BASE = {"rows": 4000, "columns": 512, "classes": 10, "problems": 50}
STEPS = {
    "rows": [500, 1000, 2000, 4000, 8000, 16000],
    "columns": [128, 512, 2048, 8192, 32768],
    "classes": [2, 5, 10, 20, 50, 100],
    "problems": [5, 10, 25, 50, 100],
}
_LONG = 60.0  # seconds: the peer is not asked for more than this, judged by its last step


def measure(setting: dict[str, int], peer: bool) -> tuple[float, float | None]:
    """Seconds of ours, and of the peer where it is asked."""
    features, labels = drawn(setting["rows"], setting["columns"], setting["classes"])
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(features, labels))
    path = np.geomspace(1e-4, 1e2, setting["problems"] // 5).tolist()
    cores = len(os.sched_getaffinity(0))
    given = Problem.of(features, labels, folds)
    began = time.perf_counter()
    problem = Problem(given.features, labels, given.classes, given.folds, given.images, cores)
    logreg.cross_validate(problem, [{"C": value} for value in path], 0)
    ours = time.perf_counter() - began
    if not peer:
        return ours, None
    began = time.perf_counter()
    grid(features, labels, folds, path, cores)
    return ours, time.perf_counter() - began


def draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One picture of four panels."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
    for panel, (name, points) in zip(panels, curves.items(), strict=True):
        panel.loglog([each[name] for each in points], [each["seconds"] for each in points], "o-", label="humeris")
        beside = [each for each in points if each["peer_seconds"] is not None]
        panel.loglog([each[name] for each in beside], [each["peer_seconds"] for each in beside], "s--", label="GridSearchCV")
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
        curves[name], taken = [], 0.0
        for before, step in zip([0, *steps], steps, strict=False):
            setting = {**BASE, name: step}
            expected = taken * (step / before if before else 1)
            ours, theirs = measure(setting, expected < _LONG)
            taken = expected if theirs is None else theirs
            curves[name].append({**setting, "seconds": ours, "peer_seconds": theirs})
    print(json.dumps({"load": os.getloadavg()[0], "curves": curves}, indent=2))
    if options.out:
        draw(curves, options.out)


if __name__ == "__main__":
    main()
