"""The winner's features in two dimensions, a point for each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...data import group_sampling
from ...data.feature_matrix import Matrix
from ...data.nearest_neighbors import nearest
from ...diagnose.count_sketch import readable, sketched
from ...runs.finetuned_weights import is_tuned
from ...runs.run import Record
from .. import thumbnails, winner_features
from ..blocks import Chart, Part, Section, Table, Text
from ..charts import PALETTE
from ..run_snapshot import Evidence

POINTS = 600
TESTED = 240  # of them, at most
SIDE = 40
BUDGET = 170_000  # bytes of thumbnails
NEIGHBOURS = 10
_WIDTH, _COMPONENTS = 1024, 50
_FEWEST = 12
_GREY = "#8c8c8c"
_COLOURS = tuple(colour for colour in PALETTE if colour != _GREY)
_OTHERS = "other classes"
_KINDS = ("learnt from", "test image, answered rightly", "test image, answered wrongly")

_SHAPES, _SIZES = ("circle", "triangle-up", "cross"), (30, 60, 120)


def projected(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Places (n, 2) of rows (n, d) on a map by t-SNE, from their principal components; the same each time.

    Rows are taken in direction only, as cosine similarity does, and their first 50 principal components are what t-SNE sees
    (van der Maaten, Hinton, Visualizing data using t-SNE, Journal of Machine Learning Research 9 (2008)), begun from the
    first two (Kobak, Berens, The art of using t-SNE for single-cell transcriptomics, Nature Communications 10 (2019)). Each
    axis runs from 0 to 1. Rows that do not differ lie in the middle.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    long = values.astype(np.float64)
    long /= np.maximum(np.linalg.norm(long, axis=1, keepdims=True), 1e-12)
    long -= long.mean(axis=0)
    with threadpool_limits(1):  # threads would wait for each other in every one of many short steps
        left, lengths, _ = np.linalg.svd(long, full_matrices=False)
        kept = lengths[:_COMPONENTS] > 1e-6
        components = (left[:, :_COMPONENTS] * lengths[:_COMPONENTS])[:, kept].astype(np.float32)
        if components.shape[1] == 0:
            return np.full((len(values), 2), 0.5)
        if components.shape[1] == 1:
            components = np.hstack([components, np.zeros_like(components)])
        perplexity = min(30.0, (len(values) - 1) / 3)
        found = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    low, high = found.min(axis=0), found.max(axis=0)
    return np.asarray((found - low) / np.maximum(high - low, 1e-12), np.float64)


def section(evidence: Evidence) -> Section:
    """The map, and how many of an image's neighbours are of its class."""
    return Section("features", "A map of the features", _parts(evidence))


def _parts(evidence: Evidence) -> list[Part]:
    number = {name: place for place, name in enumerate(evidence.classes)}
    usable = [record for record in evidence.images if record.label in number]
    if not usable or len(usable) < len(evidence.images):
        return [Text("There is no map of the features: which images of which classes there are is not known.", "missing")]
    if len(usable) < _FEWEST:
        return [Text(f"There is no map of the features: {len(usable)} images are too few for one.", "missing")]
    try:
        features = winner_features.matrix(evidence, usable)
    except winner_features.Lacking as lacking:
        return lacking.parts
    chosen = _chosen(usable, number, readable(features, POINTS))
    values = sketched(features, chosen, _WIDTH)
    records = [usable[row] for row in chosen.tolist()]
    labels = np.array([number[record.label] for record in records])
    made = thumbnails.make(records, evidence.data, SIDE, BUDGET)
    shown = _coloured(evidence, records)
    chart = Chart(
        "Map of the features",
        _spec(projected(values), records, shown, _kinds(evidence, records)),
        _table(values, labels, evidence.classes),
        {record.name: webp for record, webp in zip(records, made.pictures, strict=True) if webp},
    )
    return [
        Text(_words(len(records), len(usable), len(evidence.classes), shown, is_tuned(evidence.best))),
        *made.missing(evidence.data),
        chart,
    ]


def _words(drawn: int, total: int, classes: int, shown: Sequence[str], tuned: bool) -> str:
    sees = "the network saw them before it was fine-tuned" if tuned else "the winner sees them"
    which = f"All {total} images" if drawn == total else f"{drawn} of the {total} images, drawn by class,"
    colours = ""
    if len(shown) < classes:
        colours = f" Of the {classes} classes those {len(shown)} have a colour that are most often confused."
    return (
        f"{which} as {sees}: in the features at its taps, laid out by t-SNE so that images near each other "
        "are alike. What is far apart there may be far apart or not: the distance between clusters, their size and where "
        f"they lie mean nothing, and a cluster of few points may be chance.{colours} Rest on a point to see its image; one "
        "among those of another class is a hard image or has a wrong label."
    )


def _chosen(records: Sequence[Record], number: dict[str, int], most: int) -> np.ndarray:
    """The rows that are drawn: test images up to `TESTED`, or 2 of 5, and others, each by class."""
    tested = np.array([record.split == "test" for record in records])
    labels = np.array([number[record.label] for record in records])
    found, room = [], most
    for here, share in ((np.nonzero(tested)[0], min(TESTED, most * 2 // 5)), (np.nonzero(~tested)[0], most)):
        if len(here):
            others = int((~tested).sum())
            count = max(share, most - others) if share < most else room
            picked = group_sampling.sample(labels[here], np.arange(len(here)), count, 0)
            found.append(here[picked])
            room -= len(picked)
    return np.sort(np.concatenate(found))


def _kinds(evidence: Evidence, records: Sequence[Record]) -> list[str]:
    """What each image is: learnt from, or tested and answered rightly or wrongly."""
    wrong = {answer.name for answer in evidence.answers if answer.label != answer.predicted}
    return [_KINDS[0] if record.split != "test" else _KINDS[2 if record.name in wrong else 1] for record in records]


def _coloured(evidence: Evidence, records: Sequence[Record]) -> list[str]:
    """The classes with a colour of their own: all, or those most often confused, or else the commonest."""
    classes = evidence.classes
    if len(classes) <= 2 * len(_COLOURS):
        return list(classes)
    confused = Counter(
        frozenset((answer.label, answer.predicted)) for answer in evidence.answers if answer.label != answer.predicted
    )
    pairs = sorted(confused.items(), key=lambda item: (-item[1], sorted(item[0])))
    names = [name for pair, _ in pairs for name in sorted(pair) if name in classes]
    names += [name for name, _ in Counter(record.label for record in records).most_common()]
    found = list(dict.fromkeys(names))[: len(_COLOURS)]
    return [name for name in classes if name in found]


def _spec(places: np.ndarray, records: Sequence[Record], shown: Sequence[str], kinds: Sequence[str]) -> dict[str, Any]:
    """Vega-Lite: a point for each image, what was learnt from below what was tested."""
    values = [
        {
            "x": round(float(x), 4),
            "y": round(float(y), 4),
            "class": record.label if record.label in shown else _OTHERS,
            "kind": kind,
            "size": _SIZES[_KINDS.index(kind)],
            "image": record.name,
            "words": f"{record.name}; {record.label}, {kind}",
        }
        for (x, y), record, kind in zip(places, records, kinds, strict=True)
    ]
    values.sort(key=lambda each: (_KINDS.index(str(each["kind"])), each["class"] != _OTHERS))
    domain = [*shown, *([_OTHERS] if any(each["class"] == _OTHERS for each in values) else [])]
    hollow = ["transparent"] * max(0, len(shown) - len(_COLOURS))
    colours = [*(2 * _COLOURS)[: len(shown)], _GREY][: len(domain)]
    fills = [*_COLOURS[: len(shown)], *hollow, _GREY][: len(domain)]
    there = [kind for kind in _KINDS if kind in kinds]
    shapes = dict(zip(_KINDS, _SHAPES, strict=True))
    axis = {"type": "quantitative", "axis": None, "scale": {"domain": [-0.02, 1.02], "nice": False}}
    named = {"field": "class", "type": "nominal", "title": None}
    return {
        "height": 520,
        "data": {"values": values},
        "mark": {"type": "point", "opacity": 0.8, "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "x", **axis},
            "y": {"field": "y", **axis},
            "stroke": {**named, "scale": {"domain": domain, "range": colours}},
            "fill": {**named, "scale": {"domain": domain, "range": fills}},
            "shape": {
                "field": "kind",
                "type": "nominal",
                "title": None,
                "scale": {"domain": there, "range": [shapes[kind] for kind in there]},
            },
            "size": {"field": "size", "type": "quantitative", "scale": None, "legend": None},
            "description": {"field": "words", "type": "nominal"},
        },
    }


def _table(values: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Table:
    """Of each class, how many of its images' nearest ones in the features, not on the map, are of the class as well."""
    everyone, matrix = np.arange(len(labels)), Matrix.of(values)
    kept = min(NEIGHBOURS, len(labels) - 1)
    _, places = nearest(matrix, everyone, matrix, everyone, kept + 1)
    itself = places == everyone[:, None]
    itself[:, -1] |= ~itself.any(axis=1)  # behind equal rows
    same = (labels[places[~itself].reshape(len(labels), kept)] == labels[:, None]).mean(axis=1)
    cells = [
        [name, int((labels == k).sum()), float(same[labels == k].mean())] for k, name in enumerate(classes) if k in labels
    ]
    header = ["class", "images on the map", f"share of the {kept} nearest in the features that are of the class"]
    return Table("How much the images of a class keep together", header, cells, sortable=True)
