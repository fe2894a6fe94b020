"""Test images that the winner got wrong, and those that it was least sure of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...runs.run import Record
from .. import thumbnails
from ..blocks import Gallery, Part, Picture, Section, Text
from ..run_snapshot import Answer, Evidence

SHOWN = 24
SIDE = 160
BUDGET = 180_000  # bytes of pictures


def mistakes(labels: np.ndarray, probabilities: np.ndarray, most: int = SHOWN) -> np.ndarray:
    """The rows (m,) of wrong answers, the most confident first; labels (n,): class numbers, probabilities (n, classes).

    Rows that are not finite are no answers and are passed over.
    """
    known, predicted = _predicted(probabilities)
    sure = probabilities[np.arange(len(labels)), predicted]
    wrong = np.nonzero(known & (predicted != labels))[0]
    return wrong[np.argsort(-sure[wrong], kind="stable")][:most]


def least_certain(probabilities: np.ndarray, most: int = SHOWN) -> np.ndarray:
    """The rows (m,) whose two most probable classes are nearest to each other, the nearest first; of (n, classes)."""
    rows = np.nonzero(np.isfinite(probabilities).all(axis=1))[0]
    two = np.partition(probabilities[rows], -2, axis=1)[:, -2:]
    return rows[np.argsort(two[:, 1] - two[:, 0], kind="stable")][:most]


def _predicted(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask (n,) of the rows that are finite, and the most probable class (n,) of each."""
    known = np.isfinite(probabilities).all(axis=1)
    return known, np.where(known[:, None], probabilities, 0).argmax(axis=1)


def section(evidence: Evidence) -> Section:
    """The gallery, or in words why there is none."""
    return Section("gallery", "Mistakes and close calls", _parts(evidence))


def _parts(evidence: Evidence) -> list[Part]:
    answers, probabilities = evidence.answers, evidence.probabilities
    number = {name: place for place, name in enumerate(evidence.classes)}
    if probabilities is None or not answers or not all(answer.label in number for answer in answers):
        what = (
            "No answers to the test images are there, or not for all classes: finish the run, or run `humeris sweep` again."
        )
        return [Text(what, "missing")]
    labels = np.array([number[answer.label] for answer in answers])
    wrong, unsure = mistakes(labels, probabilities), least_certain(probabilities)
    chosen = [answers[row] for row in (*wrong.tolist(), *unsure.tolist())]
    records = {record.name: record for record in evidence.images}
    made = thumbnails.make([_record(records, answer.name) for answer in chosen], evidence.data, SIDE, BUDGET)
    total = sum(answer.label != answer.predicted for answer in answers)
    parts: list[Part] = [Text(_words(total, len(wrong), len(answers))), *made.missing(evidence.data)]
    shown = [_picture(answer, webp) for answer, webp in zip(chosen, made.pictures, strict=True)]
    if len(wrong):
        parts.append(Gallery("Mistakes, the most confident first", shown[: len(wrong)]))
    parts.append(Text("Where the two most probable classes are close, the answer might as easily have been the other one."))
    parts.append(Gallery("Least certain answers, right or wrong", shown[len(wrong) :]))
    return parts


def _words(wrong: int, shown: int, total: int) -> str:
    if not wrong:
        return f"The winner got none of the {total} test images wrong."
    which = "all of them" if shown == wrong else f"the {shown} that it was surest of"
    return (
        f"The winner got {wrong} of the {total} test images wrong; here are {which}. An answer that is wrong and sure is "
        "worth a look: often it is the label that is wrong, or a second thing is in the picture."
    )


def _picture(answer: Answer, webp: bytes | None) -> Picture:
    if answer.label == answer.predicted:
        said = f"{answer.label}, rightly, with probability {answer.probability:.3f}"
    else:
        said = f"{answer.label}, taken for {answer.predicted} with probability {answer.probability:.3f}"
    return Picture(webp, f"{answer.name}: {said}", (said, answer.name))


def _record(records: Mapping[str, Record], name: str) -> Record:
    """The image that is called so; one without a digest, which no file has, where the table of images lacks it."""
    return records.get(name, Record(name, "", "test", b""))
