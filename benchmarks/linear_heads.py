"""Linear heads over a path of C, cross-validated: the joint solver beside scikit-learn, all cores for everyone.

    python benchmarks/linear_heads.py --rows 20000 --columns 1280 --classes 10
    python benchmarks/linear_heads.py --rows 8000 --columns 2048 --classes 196 --penalties 1 --peers grid
    python benchmarks/linear_heads.py --rows 500 --columns 401408 --classes 10 --peers grid --peer-penalties 1
    python benchmarks/linear_heads.py --features rows.npz      # `x` (n, d) and `y` (n,) of your own

Prints one JSON document: seconds of each, their ratio, how the two tables of cross-validated accuracy differ at each C, and
the peak of memory beside the matrix's size. The peers are `LogisticRegressionCV` on standardised rows and
`GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()))`, on the same folds, with a job on each core, whose
products have a thread of their own: more threads than cores make both slower. `--peer-penalties` runs the peer on so many
values of C, evenly chosen, and its time is scaled up: for shapes that take it hours. `--peer-tol` is its tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
import warnings
from typing import Any

import numpy as np

from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

logreg = get_head_family("logreg")


def make_dataset(
    rows: int, columns: int, n_classes: int, sharpness: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (rows, columns) float32 that vary as activations do, and labels (rows,) whose classes overlap.

    The standardised rows' covariance has the eigenvalues of MobileNetV2's `out_relu` on CIFAR-10, nearly: 92, 54, 31 … 0.03,
    where the network's are 67, 49, 37 … 0.016. Labels are drawn from a multinomial model, `sharpness` times its logits.
    """
    random = np.random.default_rng(seed)
    directions = min(rows, columns, 2048)
    rank = np.arange(1, directions + 1)
    variances = 70 * rank**-0.85 * np.exp(-((rank / (0.75 * directions)) ** 3)) + 0.02
    scores = random.standard_normal((rows, directions), np.float32)
    teacher = random.standard_normal((directions, n_classes)) * rank[:, None] ** -0.5
    logits = sharpness * scores @ teacher.astype(np.float32)
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    scores *= np.sqrt(variances).astype(np.float32)
    features = np.empty((rows, columns), np.float32)
    rotation = np.linalg.qr(random.standard_normal((columns, directions)))[0] if columns <= 4096 else None
    for start in range(0, columns, 4096):
        block = slice(start, min(start + 4096, columns))
        mixing = (
            random.standard_normal((block.stop - start, directions)) / np.sqrt(columns)
            if rotation is None
            else rotation[block]
        )
        features[:, block] = scores @ mixing.T.astype(np.float32)
        features[:, block] += 1.5 * features[:, block].std(axis=0)
    return features, labels


def get_peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_grid_search(
    features: np.ndarray, labels: np.ndarray, folds: Any, c_values: list[float], jobs: int, tol: float = 1e-4
) -> np.ndarray:
    """Accuracies (C,) of scikit-learn's grid search."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=tol))
    search = GridSearchCV(pipeline, {"logisticregression__C": c_values}, cv=folds, n_jobs=jobs, refit=False)
    return np.asarray(search.fit(features, labels).cv_results_["mean_test_score"])


def run_cv_path(
    features: np.ndarray, labels: np.ndarray, folds: Any, c_values: list[float], jobs: int, tol: float
) -> np.ndarray:
    """Accuracies (C,) of scikit-learn's `LogisticRegressionCV`, which starts each C from the last."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", FutureWarning)
        model = LogisticRegressionCV(
            Cs=c_values, cv=folds, max_iter=1000, tol=tol, n_jobs=jobs, refit=False, scoring="accuracy"
        )
        model.fit(StandardScaler().fit_transform(features), labels)
        scores = model.scores_
    table = next(iter(scores.values())) if isinstance(scores, dict) else np.asarray(scores)
    return np.asarray(table).reshape(len(folds), -1).mean(axis=0)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("rows", 20000),
        ("columns", 1280),
        ("classes", 10),
        ("penalties", 10),
        ("folds", 5),
        ("rounds", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sharp", type=float, default=1.0)
    parser.add_argument("--least", type=float, default=1e-4)
    parser.add_argument("--most", type=float, default=1e4)
    parser.add_argument("--features")
    parser.add_argument("--peers", nargs="*", choices=["grid", "path"], default=["grid", "path"])
    parser.add_argument("--peer-penalties", type=int, default=0)
    parser.add_argument("--peer-tol", type=float, default=1e-4)
    options = parser.parse_args()
    from sklearn.model_selection import StratifiedKFold

    cores = len(os.sched_getaffinity(0))
    if options.features:
        with np.load(options.features, allow_pickle=False) as archive:
            features, labels = archive["x"].astype(np.float32), np.unique(archive["y"], return_inverse=True)[1]
    else:
        features, labels = make_dataset(options.rows, options.columns, options.classes, options.sharp)
    c_values = (
        np.geomspace(options.least, options.most, options.penalties).tolist() if options.penalties > 1 else [options.least]
    )
    folds = list(StratifiedKFold(options.folds, shuffle=True, random_state=0).split(features, labels))
    memory_before = get_peak_memory()
    round_seconds: list[float] = []
    peers: dict[str, list[float]] = {name: [] for name in options.peers}
    tables: dict[str, np.ndarray] = {}
    peer_c_values = (
        c_values
        if not options.peer_penalties
        else [
            c_values[index]
            for index in np.linspace(0, len(c_values) - 1, options.peer_penalties + 2)[1:-1].round().astype(int)
        ]
    )
    scores: list[Any] = []
    for _ in range(options.rounds):
        start_time = time.perf_counter()
        training_data = TrainingData.from_arrays(features, labels, folds)
        training_data = TrainingData(
            training_data.features, labels, training_data.target, training_data.folds, training_data.images, cores
        )
        scores = logreg.cross_validate(training_data, [{"C": value} for value in c_values], 0)
        round_seconds.append(time.perf_counter() - start_time)
        memory_after = get_peak_memory()
        for name in options.peers:
            start_time = time.perf_counter()
            peer = run_grid_search if name == "grid" else run_cv_path
            tables[name] = peer(features, labels, folds, peer_c_values, cores, options.peer_tol)
            peers[name].append((time.perf_counter() - start_time) * len(c_values) / len(peer_c_values))
    seconds = statistics.median(round_seconds)
    accuracy = {value: score.accuracy for value, score in zip(c_values, scores, strict=True)}
    print(
        json.dumps(
            {
                "rows": features.shape[0],
                "columns": features.shape[1],
                "classes": int(labels.max()) + 1,
                "C": c_values,
                "folds": len(folds),
                "cores": cores,
                "load": os.getloadavg()[0],
                "seconds": seconds,
                "accuracy": list(accuracy.values()),
                "log_loss": [score.log_loss for score in scores],
                "converged": [score.fit_info["converged"] for score in scores],
                "memory_above_the_matrix": (memory_after - memory_before) / features.nbytes,
                "peers": {
                    name: {
                        "seconds": statistics.median(peer_times),
                        "scaled_up_from_penalties": len(peer_c_values),
                        "ratio": statistics.median(peer_times) / seconds,
                        "differences": (tables[name] - [accuracy[value] for value in peer_c_values]).round(5).tolist(),
                    }
                    for name, peer_times in peers.items()
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
