"""Images whose label is suspected, and test images that are nearly the same as others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import group_sampling
from ...data.feature_matrix import FeatureMatrix
from ...diagnose.count_sketch import count_readable_rows, sketch_features
from ...diagnose.label_errors import LabelIssue, add_neighbor_votes, find_label_issues, predict_out_of_fold
from ...runs.image_records import ImageRecord
from .. import thumbnails, winner_features, wording
from ..blocks import Gallery, Part, Picture, Section, Table, Text
from ..run_snapshot import RunSnapshot

MAX_PICTURES, MAX_LISTED, MAX_PAIRS = 12, 50, 8
THUMBNAIL_SIDE = 128
THUMBNAIL_BYTES = 60_000  # bytes of the pictures of one gallery
MAX_IMAGES = 20_000  # images that were learnt from
_SKETCH_WIDTH = 1024  # columns, where there are more rows


@dataclass(frozen=True)
class _LabeledImages:
    """Images with the numbers of their labels (n,), in the same order."""

    records: tuple[ImageRecord, ...]
    labels: np.ndarray


def build_section(snapshot: RunSnapshot) -> Section:
    """Suspected labels among the test images and the others, and near-duplicates across them."""
    parts: list[Part] = [
        Text(
            "A label is suspected where a classifier that has not seen the image finds another class likely, and the given "
            "one less likely than it mostly is among images labelled so (confident learning). Hard images look like wrong "
            "labels to it: look at them before you change one."
        ),
        *_build_test_parts(snapshot),
        *_build_train_parts(snapshot),
        *_build_near_duplicates(snapshot),
    ]
    return Section("suspects", "Suspected label errors and near-duplicates", parts)


def _build_test_parts(snapshot: RunSnapshot) -> list[Part]:
    images = _select_labeled(snapshot, ("test",))
    if snapshot.probabilities is None or images is None or len(images.records) != len(snapshot.probabilities):
        return [Text("Labels of test images: the answers to them are not there; finish the run first.", "missing")]
    issues = find_label_issues(images.labels, snapshot.probabilities)
    return _build_issue_parts(snapshot, "test images", images, issues, [])


def _build_train_parts(snapshot: RunSnapshot) -> list[Part]:
    images = _select_labeled(snapshot, ("train", "val"))
    if images is None:
        return [Text("Labels of the images that were learnt from: which they are is not known.", "missing")]
    groups = group_sampling.encode_groups([record.group for record in images.records])
    try:
        features = winner_features.load_features(snapshot, images.records)
    except winner_features.FeaturesUnavailable as error:
        return [Text("Labels of the images that were learnt from are judged by the winner's features."), *error.parts]
    sampled_rows = group_sampling.sample(images.labels, groups, count_readable_rows(features, MAX_IMAGES), 0)
    sampled_images = _LabeledImages(tuple(images.records[row] for row in sampled_rows.tolist()), images.labels[sampled_rows])
    sketched_values = (
        features[sampled_rows]
        if len(sampled_rows) <= _SKETCH_WIDTH
        else sketch_features(features, sampled_rows, _SKETCH_WIDTH)
    )
    narrow_features = FeatureMatrix.from_array(sketched_values)
    n_classes = len(snapshot.class_names)
    probabilities = predict_out_of_fold(narrow_features, sampled_images.labels, groups[sampled_rows], n_classes)
    issues = find_label_issues(sampled_images.labels, probabilities)
    issues = add_neighbor_votes(issues[:MAX_LISTED], narrow_features, sampled_images.labels) + issues[MAX_LISTED:]
    notes = [
        "They are judged by a ridge classifier on the winner's features, each image by one that learnt from others, four "
        "fifths of them; beside it stand the labels of the ten images that are most like it."
    ]
    if len(sampled_rows) < len(images.records):
        notes.append(
            f"To be done soon, {len(sampled_rows)} of the {len(images.records)} images were looked at, drawn by class."
        )
    return _build_issue_parts(snapshot, "images that were learnt from", sampled_images, issues, notes)


def _select_labeled(snapshot: RunSnapshot, splits: Sequence[str]) -> _LabeledImages | None:
    """The images of `splits` with numbers of their labels; None where there are none, or a label that no class has."""
    records = tuple(record for record in snapshot.images if record.split in splits)
    if not records or len(snapshot.select_labeled(records)) < len(records):
        return None
    return _LabeledImages(records, snapshot.encode_labels(records))


def _build_issue_parts(
    snapshot: RunSnapshot, subject: str, images: _LabeledImages, issues: list[LabelIssue], notes: list[str]
) -> list[Part]:
    n_images, class_names = len(images.records), snapshot.class_names
    if not issues:
        return [Text(f"Of the {n_images} {subject}, no label is suspected. {' '.join(notes)}".strip())]
    first_issues = issues[:MAX_PICTURES]
    thumbnail_set = thumbnails.make_thumbnails(
        [images.records[issue.row] for issue in first_issues], snapshot.data, THUMBNAIL_SIDE, THUMBNAIL_BYTES
    )
    pictures = [
        _build_picture(images.records[issue.row].name, issue, class_names, webp)
        for issue, webp in zip(first_issues, thumbnail_set.pictures, strict=True)
    ]
    listed_issues = issues[:MAX_LISTED]
    has_votes = all(issue.votes is not None for issue in listed_issues)
    header = ["image", "label", "rather", "probability of the label", "probability of the other"]
    header += ["neighbours with the label", "neighbours with the other"] if has_votes else []
    table_rows = [
        [
            images.records[issue.row].name,
            class_names[issue.given_label],
            class_names[issue.likely_label],
            *issue.probabilities,
            *(issue.votes or ()),
        ]
        for issue in listed_issues
    ]
    limit_note = f"; here are the {len(listed_issues)} least like their label" if len(listed_issues) < len(issues) else ""
    share = wording.format_percent(len(issues) / n_images)
    return [
        Text(" ".join([f"Of the {n_images} {subject}, {len(issues)} labels ({share}) are suspected{limit_note}.", *notes])),
        *thumbnail_set.describe_failures(snapshot.data),
        Gallery(f"Suspected labels of {subject}, those least like their label first", pictures),
        Table(f"Suspected labels of {subject}", header, table_rows, sortable=True, folded=True),
    ]


def _build_picture(name: str, issue: LabelIssue, class_names: Sequence[str], webp: bytes | None) -> Picture:
    given_probability, likely_probability = issue.probabilities
    caption = (
        f"{class_names[issue.given_label]} ({given_probability:.3f}), rather {class_names[issue.likely_label]} "
        f"({likely_probability:.3f})"
    )
    vote_captions = [] if issue.votes is None else [f"like it: {issue.votes[0]} so labelled, {issue.votes[1]} the other"]
    return Picture(webp, f"{name}: labelled {caption}", (caption, *vote_captions, name))


def _build_near_duplicates(snapshot: RunSnapshot) -> list[Part]:
    if snapshot.result is None:
        return [Text("Near-duplicates across the splits were not looked for: finish the run, or sweep again.", "missing")]
    near_duplicates = snapshot.result.near_duplicates
    pairs, accuracy_without = near_duplicates.pairs, near_duplicates.accuracy_without
    if not pairs:
        ambiguity_note = "which does not say much: in these features only equal rows can be told from rows that are alike"
        message = "No test image was found to be nearly the same as one that was learnt from"
        return [Text(f"{message}{f', {ambiguity_note}' if near_duplicates.cannot_tell else ''}.")]
    accuracy_note = (
        f"; without them the winner's accuracy is {wording.format_percent(accuracy_without)}"
        if accuracy_without is not None
        else ""
    )
    summary = (
        f"{near_duplicates.test_images} test images are nearly the same as images that were learnt from{accuracy_note}."
    )
    shown_pairs = pairs[:MAX_PAIRS]
    records = {record.name: record for record in snapshot.images}
    names = [name for pair in shown_pairs for name in (pair.test, pair.development)]
    thumbnail_set = thumbnails.make_thumbnails(
        [records.get(name, ImageRecord(name, "", "", b"")) for name in names], snapshot.data, THUMBNAIL_SIDE, THUMBNAIL_BYTES
    )
    pictures = [
        Picture(
            webp,
            f"{name}, {_name_role(index)} of pair {index // 2 + 1}",
            (f"pair {index // 2 + 1}, {_name_role(index)}", name),
        )
        for index, (name, webp) in enumerate(zip(names, thumbnail_set.pictures, strict=True))
    ]
    table_rows: list[list[Any]] = [[pair.test, pair.development, pair.similarity] for pair in pairs[:MAX_LISTED]]
    return [
        Text(summary, "warning"),
        *thumbnail_set.describe_failures(snapshot.data),
        Gallery("Near-duplicates, two by two, the most similar first", pictures),
        Table("Near-duplicates", ["test image", "learnt from", "cosine similarity"], table_rows, sortable=True, folded=True),
    ]


def _name_role(index: int) -> str:
    return "learnt from" if index % 2 else "test image"
