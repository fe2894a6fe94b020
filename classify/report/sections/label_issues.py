"""Potential label errors, and near-duplicates between the test split and the training images."""

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
THUMBNAIL_BYTES = 60_000  # of the thumbnails of one gallery
MAX_IMAGES = 20_000  # training images checked
_SKETCH_WIDTH = 1024  # columns, if there are more rows


@dataclass(frozen=True)
class _LabeledImages:
    """Images with their class indices (n,), in the same order."""

    records: tuple[ImageRecord, ...]
    labels: np.ndarray


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: potential label errors in the test and training images, and near-duplicates between them."""
    parts: list[Part] = [
        Text(
            "Potential label errors found by confident learning: a classifier that was not trained on the image finds its "
            "label less probable than usual for that class, and another class probable. Hard images are flagged too, so "
            "inspect an image before changing its label."
        ),
        *_build_test_parts(snapshot),
        *_build_train_parts(snapshot),
        *_build_near_duplicates(snapshot),
    ]
    return Section("label-issues", "Label issues", parts)


def _build_test_parts(snapshot: RunSnapshot) -> list[Part]:
    images = _select_labeled(snapshot, ("test",))
    if snapshot.probabilities is None or images is None or len(images.records) != len(snapshot.probabilities):
        return [
            Text("Labels of test images were not checked: there are no test predictions; finish the run first.", "missing")
        ]
    issues = find_label_issues(images.labels, snapshot.probabilities)
    return _build_issue_parts(snapshot, "test images", images, issues, [])


def _build_train_parts(snapshot: RunSnapshot) -> list[Part]:
    images = _select_labeled(snapshot, ("train", "val"))
    if images is None:
        return [Text("Labels of training images were not checked: the splits are unknown; finish the run first.", "missing")]
    groups = group_sampling.encode_groups([record.group for record in images.records])
    try:
        features = winner_features.load_features(snapshot, images.records)
    except winner_features.FeaturesUnavailable as error:
        return [Text("Labels of training images were not checked, as the winner's features are needed."), *error.parts]
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
        "Probabilities are from a ridge classifier on the winner's features, by five-fold cross-validation; the labels of "
        "the ten nearest neighbors are counted as well."
    ]
    if len(sampled_rows) < len(images.records):
        notes.append(
            f"To save time, {len(sampled_rows)} of the {len(images.records)} images were checked, a stratified sample."
        )
    return _build_issue_parts(snapshot, "training images", sampled_images, issues, notes)


def _select_labeled(snapshot: RunSnapshot, splits: Sequence[str]) -> _LabeledImages | None:
    """Return the images of `splits` with their class indices; None if there are none, or a label is not a class."""
    records = tuple(record for record in snapshot.images if record.split in splits)
    if not records or len(snapshot.select_labeled(records)) < len(records):
        return None
    return _LabeledImages(records, snapshot.encode_labels(records))


def _build_issue_parts(
    snapshot: RunSnapshot, subject: str, images: _LabeledImages, issues: list[LabelIssue], notes: list[str]
) -> list[Part]:
    n_images, class_names = len(images.records), snapshot.class_names
    if not issues:
        return [Text(f"No potential label errors in {n_images} {subject}. {' '.join(notes)}".strip())]
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
    header = ["image", "label", "suggested", "probability of the label", "probability of the suggestion"]
    header += ["neighbors with the label", "neighbors with the suggestion"] if has_votes else []
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
    limit_note = (
        f"; the {len(listed_issues)} with the least probable labels are listed" if len(listed_issues) < len(issues) else ""
    )
    share = wording.format_percent(len(issues) / n_images)
    return [
        Text(" ".join([f"Potential label errors in {n_images} {subject}: {len(issues)} ({share}){limit_note}.", *notes])),
        *thumbnail_set.describe_failures(snapshot.data),
        Gallery(f"Potential label errors in {subject}, least probable label first", pictures),
        Table(f"Potential label errors in {subject}", header, table_rows, sortable=True, folded=True),
    ]


def _build_picture(name: str, issue: LabelIssue, class_names: Sequence[str], webp: bytes | None) -> Picture:
    given_probability, likely_probability = issue.probabilities
    caption = (
        f"label {class_names[issue.given_label]} ({given_probability:.3f}), suggested {class_names[issue.likely_label]} "
        f"({likely_probability:.3f})"
    )
    vote_captions = (
        [] if issue.votes is None else [f"neighbors: {issue.votes[0]} with the label, {issue.votes[1]} with the suggestion"]
    )
    return Picture(webp, f"{name}: {caption}", (caption, *vote_captions, name))


def _build_near_duplicates(snapshot: RunSnapshot) -> list[Part]:
    if snapshot.result is None:
        return [
            Text(
                "Near-duplicates between splits were not computed: finish the run, or run `humeris sweep` again.", "missing"
            )
        ]
    near_duplicates = snapshot.result.near_duplicates
    pairs = near_duplicates.pairs
    if not pairs:
        limit_note = ", but these features can reveal only identical rows" if near_duplicates.cannot_tell else ""
        return [Text(f"No test image is a near-duplicate of a training image{limit_note}.")]
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
        Text(wording.describe_near_duplicates(near_duplicates), "warning"),
        *thumbnail_set.describe_failures(snapshot.data),
        Gallery("Near-duplicate pairs, most similar first", pictures),
        Table(
            "Near-duplicates", ["test image", "training image", "cosine similarity"], table_rows, sortable=True, folded=True
        ),
    ]


def _name_role(index: int) -> str:
    return "training image" if index % 2 else "test image"
