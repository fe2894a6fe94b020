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

from humeris.classify.heads.families import logreg
from humeris.classify.heads.training_data import Problem


def drawn(rows: int, columns: int, classes: int, sharp: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (rows, columns) float32 that vary as activations do, and labels (rows,) whose classes overlap.

    The standardised rows' covariance has the eigenvalues of MobileNetV2's `out_relu` on CIFAR-10, nearly: 92, 54, 31 … 0.03,
    where the network's are 67, 49, 37 … 0.016. Labels are drawn from a multinomial model, `sharp` times its logits.
    """
    random = np.random.default_rng(seed)
    directions = min(rows, columns, 2048)
    number = np.arange(1, directions + 1)
    variances = 70 * number**-0.85 * np.exp(-((number / (0.75 * directions)) ** 3)) + 0.02
    scores = random.standard_normal((rows, directions), np.float32)
    teacher = random.standard_normal((directions, classes)) * number[:, None] ** -0.5
    logits = sharp * scores @ teacher.astype(np.float32)
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    scores *= np.sqrt(variances).astype(np.float32)
    features = np.empty((rows, columns), np.float32)
    turn = np.linalg.qr(random.standard_normal((columns, directions)))[0] if columns <= 4096 else None
    for start in range(0, columns, 4096):
        here = slice(start, min(start + 4096, columns))
        mixing = random.standard_normal((here.stop - start, directions)) / np.sqrt(columns) if turn is None else turn[here]
        features[:, here] = scores @ mixing.T.astype(np.float32)
        features[:, here] += 1.5 * features[:, here].std(axis=0)
    return features, labels


def peak() -> int:
    """The largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def grid(
    features: np.ndarray, labels: np.ndarray, folds: Any, path: list[float], jobs: int, tol: float = 1e-4
) -> np.ndarray:
    """Accuracies (C,) of scikit-learn's grid search."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=tol))
    search = GridSearchCV(pipeline, {"logisticregression__C": path}, cv=folds, n_jobs=jobs, refit=False)
    return np.asarray(search.fit(features, labels).cv_results_["mean_test_score"])


def path_of(features: np.ndarray, labels: np.ndarray, folds: Any, path: list[float], jobs: int, tol: float) -> np.ndarray:
    """Accuracies (C,) of scikit-learn's `LogisticRegressionCV`, which starts each C from the last."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", FutureWarning)
        model = LogisticRegressionCV(Cs=path, cv=folds, max_iter=1000, tol=tol, n_jobs=jobs, refit=False, scoring="accuracy")
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
        with np.load(options.features, allow_pickle=False) as given:
            features, labels = given["x"].astype(np.float32), np.unique(given["y"], return_inverse=True)[1]
    else:
        features, labels = drawn(options.rows, options.columns, options.classes, options.sharp)
    path = (
        np.geomspace(options.least, options.most, options.penalties).tolist() if options.penalties > 1 else [options.least]
    )
    folds = list(StratifiedKFold(options.folds, shuffle=True, random_state=0).split(features, labels))
    before = peak()
    taken: list[float] = []
    peers: dict[str, list[float]] = {name: [] for name in options.peers}
    tables: dict[str, np.ndarray] = {}
    chosen = (
        path
        if not options.peer_penalties
        else [path[place] for place in np.linspace(0, len(path) - 1, options.peer_penalties + 2)[1:-1].round().astype(int)]
    )
    ours: list[Any] = []
    for _ in range(options.rounds):
        began = time.perf_counter()
        problem = Problem.of(features, labels, folds)
        problem = Problem(problem.features, labels, problem.classes, problem.folds, problem.images, cores)
        ours = logreg.cross_validate(problem, [{"C": value} for value in path], 0)
        taken.append(time.perf_counter() - began)
        after = peak()
        for name in options.peers:
            began = time.perf_counter()
            peer = grid if name == "grid" else path_of
            tables[name] = peer(features, labels, folds, chosen, cores, options.peer_tol)
            peers[name].append((time.perf_counter() - began) * len(path) / len(chosen))
    seconds = statistics.median(taken)
    accuracy = {value: score.accuracy for value, score in zip(path, ours, strict=True)}
    print(
        json.dumps(
            {
                "rows": features.shape[0],
                "columns": features.shape[1],
                "classes": int(labels.max()) + 1,
                "C": path,
                "folds": len(folds),
                "cores": cores,
                "load": os.getloadavg()[0],
                "seconds": seconds,
                "accuracy": list(accuracy.values()),
                "log_loss": [score.log_loss for score in ours],
                "converged": [score.detail["converged"] for score in ours],
                "memory_above_the_matrix": (after - before) / features.nbytes,
                "peers": {
                    name: {
                        "seconds": statistics.median(each),
                        "scaled_up_from_penalties": len(chosen),
                        "ratio": statistics.median(each) / seconds,
                        "differences": (tables[name] - [accuracy[value] for value in chosen]).round(5).tolist(),
                    }
                    for name, each in peers.items()
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
