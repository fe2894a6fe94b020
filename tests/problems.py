"""Small classification problems of every awkward kind, and the folds they are compared on."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedKFold

KINDS = ("binary", "many classes", "unbalanced", "scaled", "constant", "collinear", "sparse", "separable")
SHAPES = ((120, 12), (120, 130), (120, 900))

Folds = list[tuple[np.ndarray, np.ndarray]]


def make_problem(kind: str, shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, Folds]:
    """Features (n, d) float32, class numbers (n,), and three stratified folds."""
    random = np.random.default_rng(seed)
    rows, columns = shape
    n_classes = {"binary": 2, "many classes": 12}.get(kind, 3)
    labels = np.arange(rows) % n_classes
    if kind == "unbalanced":
        labels = np.sort(np.r_[np.arange(12) % 3, random.choice(3, rows - 12, p=[0.8, 0.15, 0.05])])
    separation = 8 if kind == "separable" else 1.5 / columns**0.25
    features = random.normal(size=shape) + separation * random.normal(size=(n_classes, columns))[labels]
    if kind == "scaled":
        features *= np.logspace(-8, 8, columns)
    if kind == "constant":
        features[:, : columns // 4], features[:, columns // 4 : columns // 3] = 3.3, 0
        features[0, columns // 4 : columns // 3] = 7
    if kind == "collinear":
        features[rows // 2 :], labels[rows // 2 :] = features[: rows // 2], labels[: rows // 2]
        features[:, 1] = -2 * features[:, 0]
    if kind == "sparse":
        features = np.maximum(features - 1, 0)
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(features, labels)
    return features.astype(np.float32), labels, list(folds)
