"""A t-SNE projection of the winner's features, one point per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...data import group_sampling
from ...data.feature_matrix import FeatureMatrix
from ...data.nearest_neighbors import find_neighbors
from ...diagnose.count_sketch import count_readable_rows, sketch_features
from ...runs.finetuned_weights import is_finetuned
from ...runs.image_records import ImageRecord
from .. import thumbnails, winner_features
from ..blocks import Chart, Part, Section, Table, Text
from ..charts import PALETTE
from ..run_snapshot import RunSnapshot

MAX_POINTS = 600
MAX_TEST_POINTS = 240  # of these
THUMBNAIL_SIDE = 40
THUMBNAIL_BYTES = 170_000  # of all thumbnails together
N_NEIGHBORS = 10
_SKETCH_WIDTH, _N_COMPONENTS = 1024, 50
_MIN_IMAGES = 12
_GRAY = "#8c8c8c"
_COLORS = tuple(color for color in PALETTE if color != _GRAY)
_OTHER_CLASSES = "other classes"
_KINDS = ("training image", "test image, correct", "test image, error")
_SHAPES, _SIZES = ("circle", "triangle-up", "cross"), (30, 60, 120)


def project_tsne(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Project rows to two dimensions by t-SNE.

    Rows are scaled to unit length, so that distances follow cosine similarity, and reduced to 50 principal components; t-SNE
    is initialized with the first two. The result is deterministic.

    Parameters
    ----------
    values : ndarray of shape (n, d)
        Features.
    seed : int
        Random seed of t-SNE.

    Returns
    -------
    positions : ndarray of shape (n, 2), float64
        Each axis is scaled to [0, 1]; all points are at 0.5 if the rows do not differ.

    References
    ----------
    van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 9, 2008.
    Kobak and Berens, "The art of using t-SNE for single-cell transcriptomics", Nature Communications 10, 2019.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    directions = values.astype(np.float64)
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    directions -= directions.mean(axis=0)
    with threadpool_limits(1):  # many short steps: more threads only wait for each other
        left_vectors, singular_values, _ = np.linalg.svd(directions, full_matrices=False)
        kept_mask = singular_values[:_N_COMPONENTS] > 1e-6
        components = (left_vectors[:, :_N_COMPONENTS] * singular_values[:_N_COMPONENTS])[:, kept_mask].astype(np.float32)
        if components.shape[1] == 0:
            return np.full((len(values), 2), 0.5)
        if components.shape[1] == 1:
            components = np.hstack([components, np.zeros_like(components)])
        perplexity = min(30.0, (len(values) - 1) / 3)
        positions = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    low, high = positions.min(axis=0), positions.max(axis=0)
    return np.asarray((positions - low) / np.maximum(high - low, 1e-12), np.float64)


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: the map, and how often nearest neighbors share the class."""
    return Section("features", "t-SNE of the features", _build_parts(snapshot))


def _build_parts(snapshot: RunSnapshot) -> list[Part]:
    labeled_records = snapshot.select_labeled(snapshot.images)
    if not labeled_records or len(labeled_records) < len(snapshot.images):
        return [Text("No map of the features: the images and their classes are unknown; finish the run first.", "missing")]
    if len(labeled_records) < _MIN_IMAGES:
        return [Text(f"No map of the features: {len(labeled_records)} images are too few.", "missing")]
    try:
        features = winner_features.load_features(snapshot, labeled_records)
    except winner_features.FeaturesUnavailable as error:
        return error.parts
    chosen_rows = _sample_rows(
        labeled_records, snapshot.encode_labels(labeled_records), count_readable_rows(features, MAX_POINTS)
    )
    values = sketch_features(features, chosen_rows, _SKETCH_WIDTH)
    records = [labeled_records[row] for row in chosen_rows.tolist()]
    labels = snapshot.encode_labels(records)
    thumbnail_set = thumbnails.make_thumbnails(records, snapshot.data, THUMBNAIL_SIDE, THUMBNAIL_BYTES)
    colored_classes = _choose_colored_classes(snapshot, records)
    chart = Chart(
        "t-SNE of the features",
        _build_spec(project_tsne(values), records, colored_classes, _list_kinds(snapshot, records)),
        _build_table(values, labels, snapshot.class_names),
        {record.name: webp for record, webp in zip(records, thumbnail_set.pictures, strict=True) if webp},
    )
    return [
        Text(
            _describe_map(
                len(records), len(labeled_records), len(snapshot.class_names), colored_classes, is_finetuned(snapshot.best)
            )
        ),
        *thumbnail_set.describe_failures(snapshot.data),
        chart,
    ]


def _describe_map(n_drawn: int, n_total: int, n_classes: int, colored_classes: Sequence[str], finetuned: bool) -> str:
    stage = " before fine-tuning" if finetuned else ""
    scope = f"all {n_total} images" if n_drawn == n_total else f"{n_drawn} of the {n_total} images (a stratified sample)"
    color_note = ""
    if len(colored_classes) < n_classes:
        color_note = f" Only the {len(colored_classes)} most often confused of the {n_classes} classes have a color."
    return (
        f"Features of {scope} at the winner's taps{stage}, projected by t-SNE: images close together are similar. "
        "Distances between clusters, their sizes and positions have no meaning, and a cluster of few points may be chance."
        f"{color_note} Point at a mark to see its image; an image among those of another class is hard or mislabeled."
    )


def _sample_rows(records: Sequence[ImageRecord], labels: np.ndarray, max_rows: int) -> np.ndarray:
    """Sample the rows to draw, stratified by class: up to `MAX_TEST_POINTS` or two fifths test images, then others."""
    test_mask = np.array([record.split == "test" for record in records])
    samples, n_remaining = [], max_rows
    for candidates, quota in (
        (np.nonzero(test_mask)[0], min(MAX_TEST_POINTS, max_rows * 2 // 5)),
        (np.nonzero(~test_mask)[0], max_rows),
    ):
        if len(candidates):
            n_others = int((~test_mask).sum())
            n_rows = max(quota, max_rows - n_others) if quota < max_rows else n_remaining
            sampled = group_sampling.sample(labels[candidates], np.arange(len(candidates)), n_rows, 0)
            samples.append(candidates[sampled])
            n_remaining -= len(sampled)
    return np.sort(np.concatenate(samples))


def _list_kinds(snapshot: RunSnapshot, records: Sequence[ImageRecord]) -> list[str]:
    """Return the kind of each image: training image, or test image with a correct or wrong prediction."""
    wrong_names = {prediction.name for prediction in snapshot.predictions if prediction.label != prediction.predicted}
    return [_KINDS[0] if record.split != "test" else _KINDS[2 if record.name in wrong_names else 1] for record in records]


def _choose_colored_classes(snapshot: RunSnapshot, records: Sequence[ImageRecord]) -> list[str]:
    """Return the classes with a color of their own: all, or those most often confused, then the most frequent."""
    class_names = snapshot.class_names
    if len(class_names) <= 2 * len(_COLORS):
        return list(class_names)
    confusion_counts = Counter(
        frozenset((prediction.label, prediction.predicted))
        for prediction in snapshot.predictions
        if prediction.label != prediction.predicted
    )
    pairs = sorted(confusion_counts.items(), key=lambda item: (-item[1], sorted(item[0])))
    names = [name for pair, _ in pairs for name in sorted(pair) if name in class_names]
    names += [name for name, _ in Counter(record.label for record in records).most_common()]
    chosen_names = list(dict.fromkeys(names))[: len(_COLORS)]
    return [name for name in class_names if name in chosen_names]


def _build_spec(
    positions: np.ndarray, records: Sequence[ImageRecord], colored_classes: Sequence[str], kinds: Sequence[str]
) -> dict[str, Any]:
    """Build the Vega-Lite chart: a point per image, test images above training images."""
    values = [
        {
            "x": round(float(x), 4),
            "y": round(float(y), 4),
            "class": record.label if record.label in colored_classes else _OTHER_CLASSES,
            "kind": kind,
            "size": _SIZES[_KINDS.index(kind)],
            "image": record.name,
            "label": f"{record.name}; {record.label}, {kind}",
        }
        for (x, y), record, kind in zip(positions, records, kinds, strict=True)
    ]
    values.sort(key=lambda value: (_KINDS.index(str(value["kind"])), value["class"] != _OTHER_CLASSES))
    domain = [*colored_classes, *([_OTHER_CLASSES] if any(value["class"] == _OTHER_CLASSES for value in values) else [])]
    hollow_fills = ["transparent"] * max(0, len(colored_classes) - len(_COLORS))
    stroke_colors = [*(2 * _COLORS)[: len(colored_classes)], _GRAY][: len(domain)]
    fill_colors = [*_COLORS[: len(colored_classes)], *hollow_fills, _GRAY][: len(domain)]
    present_kinds = [kind for kind in _KINDS if kind in kinds]
    shapes = dict(zip(_KINDS, _SHAPES, strict=True))
    axis = {"type": "quantitative", "axis": None, "scale": {"domain": [-0.02, 1.02], "nice": False}}
    class_channel = {"field": "class", "type": "nominal", "title": None}
    return {
        "height": 520,
        "data": {"values": values},
        "mark": {"type": "point", "opacity": 0.8, "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "x", **axis},
            "y": {"field": "y", **axis},
            "stroke": {**class_channel, "scale": {"domain": domain, "range": stroke_colors}},
            "fill": {**class_channel, "scale": {"domain": domain, "range": fill_colors}},
            "shape": {
                "field": "kind",
                "type": "nominal",
                "title": None,
                "scale": {"domain": present_kinds, "range": [shapes[kind] for kind in present_kinds]},
            },
            "size": {"field": "size", "type": "quantitative", "scale": None, "legend": None},
            "description": {"field": "label", "type": "nominal"},
        },
    }


def _build_table(values: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Table:
    """Build the table of how many nearest neighbors, in the features and not on the map, share the class."""
    all_rows, matrix = np.arange(len(labels)), FeatureMatrix.from_array(values)
    n_neighbors = min(N_NEIGHBORS, len(labels) - 1)
    _, neighbor_rows = find_neighbors(matrix, all_rows, matrix, all_rows, n_neighbors + 1)
    self_mask = neighbor_rows == all_rows[:, None]
    self_mask[:, -1] |= ~self_mask.any(axis=1)  # hidden by identical rows
    same_class_shares = (labels[neighbor_rows[~self_mask].reshape(len(labels), n_neighbors)] == labels[:, None]).mean(axis=1)
    cells = [
        [name, int((labels == k).sum()), float(same_class_shares[labels == k].mean())]
        for k, name in enumerate(class_names)
        if k in labels
    ]
    header = ["class", "images on the map", f"share of the {n_neighbors} nearest neighbors in the same class"]
    return Table("Nearest neighbors in the same class, computed on the features", header, cells, sortable=True)
