"""Reads the files of a run, whole or not, and says in words what cannot be read."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from ...cache.errors import CacheError, RunError
from ...cache.store import Store
from ..evaluate.trial import Score, Trial, TrialScores
from ..runs.image_records import ImageRecord
from ..runs.metadata import FORMAT_VERSION, OtherFormat, RunMetadata
from ..runs.predictions import Prediction, read_predictions
from ..runs.run import Run


class LenientReader:
    """What there is of a run; `omissions` says in words what is not, a line each.

    metadata: None where run.json cannot be read.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.omissions: list[str] = []
        self.metadata = self._read_metadata()

    def _read_metadata(self) -> RunMetadata | None:
        try:
            metadata = self._run.metadata
        except RunError as error:
            fault = error.__cause__
            self.omissions.append(
                f"run.json is in format {fault.version!r:.60}, not {FORMAT_VERSION} as of this humeris: what cannot be read "
                "is left out"
                if isinstance(fault, OtherFormat)
                else f"run.json is unreadable ({fault}): what was asked and how good the winner is on the test images"
            )
            return None
        if metadata.result is None:
            self.omissions.append(
                f"the sweep did not end, so that no winner met the test images; finish it with: {metadata.resume_command}"
            )
        return metadata

    @property
    def _is_complete(self) -> bool:
        return self.metadata is not None and self.metadata.result is not None

    def read_scores(self) -> TrialScores:
        """The trials that ended, those without finite scores left out."""
        log = self._run.trial_log
        try:
            scores = log.scores
        except OSError as error:
            self.omissions.append(f"trials.jsonl cannot be read ({error.strerror}): the scores of the trials")
            return TrialScores({})
        valid_scores = {trial: score for trial, score in scores.items() if _is_valid(trial, score)}
        n_torn = log.n_torn + len(scores) - len(valid_scores)
        if n_torn:
            self.omissions.append(
                f"{n_torn} of the {log.n_lines} lines of trials.jsonl are torn or of another version: their trials"
            )
        if not log.n_lines:
            self.omissions.append("trials.jsonl is empty: no trial has ended")
        return TrialScores(valid_scores)

    def read_images(self) -> tuple[ImageRecord, ...]:
        """Every used image, in order of name; () of a run that is not complete, whose table is written at the end."""
        if self.metadata is None or not self._is_complete:
            return ()
        try:
            images, n_used = tuple(self._run.load_image_records()), self.metadata.data.used
            if n_used != len(images):
                raise RunError(f"expected {n_used} used images, found {len(images)}")
        except RunError as error:
            self.omissions.append(f"images.csv cannot be read ({error.__cause__ or error}): which image is in which split")
            images = ()
        self._check_files(images)
        return images

    def _check_files(self, images: tuple[ImageRecord, ...]) -> None:
        """Say where the images are gone as a whole, or some of them."""
        assert self.metadata is not None  # or there were no images
        source = self.metadata.data.try_open_images()
        if source is None:
            return
        if not source.is_reachable:
            self.omissions.append(
                f"the images are not at {source.root} any more: no picture can be shown; put them back or link them there"
            )
        elif n_gone := sum(not source.exists(image.name) for image in images):
            self.omissions.append(
                f"{n_gone} of the {len(images)} images are not under {source.root} any more: their pictures"
            )

    def read_predictions(self) -> tuple[tuple[Prediction, ...], np.ndarray | None]:
        """What the winner predicted of the test images, in order of name, and the probabilities of all classes or None."""
        if self.metadata is None or self.metadata.result is None:
            return (), None
        n_tested, n_classes = self.metadata.result.test.images, len(self.metadata.splits.classes)
        try:
            predictions = tuple(read_predictions(self._run.path / "predictions.csv"))
            if n_tested != len(predictions):
                raise RunError(f"expected the answers to {n_tested} images, found {len(predictions)}")
        except RunError as error:
            self.omissions.append(
                f"predictions.csv cannot be read ({error.__cause__ or error}): the answer to each test image"
            )
            return (), None
        try:
            probabilities = self._run.load_probabilities()
            if probabilities.shape != (n_tested, n_classes) or probabilities.dtype.kind != "f":
                raise ValueError(f"expected ({n_tested}, {n_classes}) numbers, found {probabilities.shape}")
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            self.omissions.append(f"probabilities.npy cannot be used ({error}): the probabilities of all classes")
            return predictions, None
        return predictions, probabilities

    def open_store(self, cache: Path | None) -> Store | None:
        """The cache in a folder; None where the folder is something else."""
        try:
            return Store(cache)
        except (CacheError, OSError) as error:
            self.omissions.append(f"the cache cannot be used ({error}): what is drawn from the features")
            return None


def _is_valid(trial: Trial, score: Score) -> bool:
    numbers = (score.accuracy, score.log_loss, score.seconds, *score.folds)
    return all(map(math.isfinite, numbers)) and bool(trial.tap_refs)
