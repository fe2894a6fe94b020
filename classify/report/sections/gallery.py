"""Thumbnails of misclassified test images and of the least certain predictions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...evaluate.target import Target
from ...runs.image_records import ImageRecord
from ...runs.predictions import Prediction
from .. import thumbnails
from ..blocks import Gallery, Part, Picture, Section, Text
from ..run_snapshot import RunSnapshot

MAX_PICTURES = 24
THUMBNAIL_SIDE = 160
THUMBNAIL_BYTES = 180_000  # of all thumbnails together


def find_errors(target: Target, labels: np.ndarray, probabilities: np.ndarray, max_rows: int = MAX_PICTURES) -> np.ndarray:
    """Return the rows of misclassified images, most confident first.

    Parameters
    ----------
    target : Target
        What is predicted.
    labels : ndarray of shape (n, …)
        As `target` encodes them.
    probabilities : ndarray of shape (n, classes)
        Rows that are not finite are skipped.
    max_rows : int
        Return at most this many rows.

    Returns
    -------
    rows : ndarray of shape (m,)
    """
    finite_mask, confidences = np.isfinite(probabilities).all(axis=1), probabilities.max(axis=1)
    wrong_rows = np.nonzero(finite_mask & ~target.find_correct(labels, probabilities))[0]
    return wrong_rows[np.argsort(-confidences[wrong_rows], kind="stable")][:max_rows]


def find_least_certain(probabilities: np.ndarray, max_rows: int = MAX_PICTURES) -> np.ndarray:
    """Return the rows (m,) of `probabilities` (n, classes) with the smallest margin between the top two classes."""
    rows = np.nonzero(np.isfinite(probabilities).all(axis=1))[0]
    top_two = np.partition(probabilities[rows], -2, axis=1)[:, -2:]
    return rows[np.argsort(top_two[:, 1] - top_two[:, 0], kind="stable")][:max_rows]


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: two galleries, or why there are none."""
    return Section("gallery", "Errors and uncertain predictions", _build_parts(snapshot))


def _build_parts(snapshot: RunSnapshot) -> list[Part]:
    predictions, probabilities = snapshot.predictions, snapshot.probabilities
    target = snapshot.target
    if probabilities is None or not predictions or not all(map(target.can_encode, {each.label for each in predictions})):
        message = "No test predictions, or they do not match the classes: finish the run, or run `humeris sweep` again."
        return [Text(message, "missing")]
    labels = target.encode([prediction.label for prediction in predictions])
    wrong_rows, unsure_rows = find_errors(target, labels, probabilities), find_least_certain(probabilities)
    chosen_predictions = [predictions[row] for row in (*wrong_rows.tolist(), *unsure_rows.tolist())]
    records = {record.name: record for record in snapshot.images}
    thumbnail_set = thumbnails.make_thumbnails(
        [_get_record(records, prediction.name) for prediction in chosen_predictions],
        snapshot.data,
        THUMBNAIL_SIDE,
        THUMBNAIL_BYTES,
    )
    n_wrong = sum(prediction.label != prediction.predicted for prediction in predictions)
    parts: list[Part] = [
        Text(_describe_errors(n_wrong, len(wrong_rows), len(predictions))),
        *thumbnail_set.describe_failures(snapshot.data),
    ]
    pictures = [
        _build_picture(prediction, webp) for prediction, webp in zip(chosen_predictions, thumbnail_set.pictures, strict=True)
    ]
    if len(wrong_rows):
        parts.append(Gallery("Errors, most confident first", pictures[: len(wrong_rows)]))
    parts.append(Text("Below are the predictions with the smallest margin between the two most probable classes."))
    parts.append(Gallery("Least certain predictions, correct or not", pictures[len(wrong_rows) :]))
    return parts


def _describe_errors(n_wrong: int, n_shown: int, n_total: int) -> str:
    if not n_wrong:
        return f"All {n_total} test images are classified correctly."
    scope = "all of them" if n_shown == n_wrong else f"the {n_shown} most confident errors"
    return (
        f"{n_wrong} of the {n_total} test images are misclassified; {scope} are shown. Inspect confident errors: often the "
        "label is wrong, or the image shows more than one class."
    )


def _build_picture(prediction: Prediction, webp: bytes | None) -> Picture:
    if prediction.label == prediction.predicted:
        caption = f"label {prediction.label}, predicted correctly ({prediction.probability:.3f})"
    else:
        caption = f"label {prediction.label}, predicted {prediction.predicted} ({prediction.probability:.3f})"
    return Picture(webp, f"{prediction.name}: {caption}", (caption, prediction.name))


def _get_record(records: Mapping[str, ImageRecord], name: str) -> ImageRecord:
    """Return the record of an image; one with an empty digest, which matches no file, if images.csv lacks it."""
    return records.get(name, ImageRecord(name, "", "test", b""))
