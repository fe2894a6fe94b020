"""Images whose label is suspected, and test images that are nearly the same as others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import group_sampling
from ...data.feature_matrix import Matrix
from ...diagnose.count_sketch import readable, sketched
from ...diagnose.label_errors import Suspect, by_confidence, held_out, witnessed
from ...runs.run import Record
from .. import thumbnails, winner_features, wording
from ..blocks import Gallery, Part, Picture, Section, Table, Text
from ..run_snapshot import Evidence

SHOWN, LISTED, PAIRS = 12, 50, 8
SIDE = 128
BUDGET = 60_000  # bytes of the pictures of one gallery
MOST = 20_000  # images that were learnt from
_WIDTH = 1024  # columns, where there are more rows


@dataclass(frozen=True)
class _Images:
    """Images with the numbers of their labels (n,), in the same order."""

    records: tuple[Record, ...]
    labels: np.ndarray


def section(evidence: Evidence) -> Section:
    """Suspected labels among the test images and the others, and near-duplicates across them."""
    parts: list[Part] = [
        Text(
            "A label is suspected where a classifier that has not seen the image finds another class likely, and the given "
            "one less likely than it mostly is among images labelled so (confident learning). Hard images look like wrong "
            "labels to it: look at them before you change one."
        ),
        *_tested(evidence),
        *_learnt(evidence),
        *_near_duplicates(evidence),
    ]
    return Section("suspects", "Suspected label errors and near-duplicates", parts)


def _tested(evidence: Evidence) -> list[Part]:
    found = _labelled(evidence, ("test",))
    if evidence.probabilities is None or found is None or len(found.records) != len(evidence.probabilities):
        return [Text("Labels of test images: the answers to them are not there; finish the run first.", "missing")]
    suspects = by_confidence(found.labels, evidence.probabilities)
    return _shown(evidence, "test images", found, suspects, [])


def _learnt(evidence: Evidence) -> list[Part]:
    found = _labelled(evidence, ("train", "val"))
    if found is None:
        return [Text("Labels of the images that were learnt from: which they are is not known.", "missing")]
    groups = group_sampling.group_numbers([record.group for record in found.records])
    try:
        features = winner_features.matrix(evidence, found.records)
    except winner_features.Lacking as lacking:
        return [Text("Labels of the images that were learnt from are judged by the winner's features."), *lacking.parts]
    some = group_sampling.sample(found.labels, groups, readable(features, MOST), 0)
    chosen = _Images(tuple(found.records[row] for row in some.tolist()), found.labels[some])
    numbers = features[some] if len(some) <= _WIDTH else sketched(features, some, _WIDTH)
    narrow = Matrix.of(numbers)
    known = len(evidence.classes)
    probabilities = held_out(narrow, chosen.labels, groups[some], known)
    suspects = by_confidence(chosen.labels, probabilities)
    suspects = witnessed(suspects[:LISTED], narrow, chosen.labels) + suspects[LISTED:]
    notes = [
        "They are judged by a ridge classifier on the winner's features, each image by one that learnt from others, four "
        "fifths of them; beside it stand the labels of the ten images that are most like it."
    ]
    if len(some) < len(found.records):
        notes.append(f"To be done soon, {len(some)} of the {len(found.records)} images were looked at, drawn by class.")
    return _shown(evidence, "images that were learnt from", chosen, suspects, notes)


def _labelled(evidence: Evidence, splits: Sequence[str]) -> _Images | None:
    """The images of `splits` with numbers of their labels; None where there are none, or a label that no class has."""
    number = {name: place for place, name in enumerate(evidence.classes)}
    records = tuple(record for record in evidence.images if record.split in splits)
    if not records or not all(record.label in number for record in records):
        return None
    return _Images(records, np.array([number[record.label] for record in records]))


def _shown(evidence: Evidence, what: str, images: _Images, suspects: list[Suspect], notes: list[str]) -> list[Part]:
    count, classes = len(images.records), evidence.classes
    if not suspects:
        return [Text(f"Of the {count} {what}, no label is suspected. {' '.join(notes)}".strip())]
    first = suspects[:SHOWN]
    made = thumbnails.make([images.records[each.row] for each in first], evidence.data, SIDE, BUDGET)
    pictures = [
        _picture(images.records[each.row].name, each, classes, webp) for each, webp in zip(first, made.pictures, strict=True)
    ]
    listed = suspects[:LISTED]
    votes = all(each.votes is not None for each in listed)
    header = ["image", "label", "rather", "probability of the label", "probability of the other"]
    header += ["neighbours with the label", "neighbours with the other"] if votes else []
    table = [
        [images.records[each.row].name, classes[each.given], classes[each.likely], *each.shares, *(each.votes or ())]
        for each in listed
    ]
    many = f"; here are the {len(listed)} least like their label" if len(listed) < len(suspects) else ""
    share = wording.percent(len(suspects) / count)
    return [
        Text(" ".join([f"Of the {count} {what}, {len(suspects)} labels ({share}) are suspected{many}.", *notes])),
        *made.missing(evidence.data),
        Gallery(f"Suspected labels of {what}, those least like their label first", pictures),
        Table(f"Suspected labels of {what}", header, table, sortable=True, folded=True),
    ]


def _picture(name: str, suspect: Suspect, classes: Sequence[str], webp: bytes | None) -> Picture:
    given, likely = suspect.shares
    said = f"{classes[suspect.given]} ({given:.3f}), rather {classes[suspect.likely]} ({likely:.3f})"
    votes = [] if suspect.votes is None else [f"like it: {suspect.votes[0]} so labelled, {suspect.votes[1]} the other"]
    return Picture(webp, f"{name}: labelled {said}", (said, *votes, name))


def _near_duplicates(evidence: Evidence) -> list[Part]:
    found = evidence.description.get("near_duplicates")
    pairs = found.get("pairs") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(pairs, list):
        return [Text("Near-duplicates across the splits were not looked for: finish the run, or sweep again.", "missing")]
    if not pairs:
        told = "which does not say much: in these features only equal rows can be told from rows that are alike"
        none = "No test image was found to be nearly the same as one that was learnt from"
        return [Text(f"{none}{f', {told}' if found.get('cannot_tell') else ''}.")]
    without = found.get("accuracy_without")
    score = f"; without them the winner's accuracy is {wording.percent(without)}" if isinstance(without, float) else ""
    what = f"{found.get('test_images')} test images are nearly the same as images that were learnt from{score}."
    shown = pairs[:PAIRS]
    records = {record.name: record for record in evidence.images}
    names = [str(pair[side]) for pair in shown for side in ("test", "development")]
    made = thumbnails.make([records.get(name, Record(name, "", "", b"")) for name in names], evidence.data, SIDE, BUDGET)
    pictures = [
        Picture(webp, f"{name}, {_role(place)} of pair {place // 2 + 1}", (f"pair {place // 2 + 1}, {_role(place)}", name))
        for place, (name, webp) in enumerate(zip(names, made.pictures, strict=True))
    ]
    table: list[list[Any]] = [[pair["test"], pair["development"], pair["similarity"]] for pair in pairs[:LISTED]]
    return [
        Text(what, "warning"),
        *made.missing(evidence.data),
        Gallery("Near-duplicates, two by two, the most similar first", pictures),
        Table("Near-duplicates", ["test image", "learnt from", "cosine similarity"], table, sortable=True, folded=True),
    ]


def _role(place: int) -> str:
    return "learnt from" if place % 2 else "test image"
