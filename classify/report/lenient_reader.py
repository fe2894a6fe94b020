"""A tolerant reader of complete or partial runs."""

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
    """Reads the files of a run, and adds a line to `omissions` for each that cannot be read.

    `metadata` is None if run.json cannot be read.
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
                f"run.json has format {fault.version!r:.60}, but this version of humeris reads format {FORMAT_VERSION}: the "
                "configuration and the test scores are not shown"
                if isinstance(fault, OtherFormat)
                else f"run.json cannot be read ({fault}): the configuration and the test scores are not shown"
            )
            return None
        if metadata.result is None:
            self.omissions.append(
                f"the run is not finished, so the test split has not been scored; resume it with: {metadata.resume_command}"
            )
        return metadata

    @property
    def _is_complete(self) -> bool:
        return self.metadata is not None and self.metadata.result is not None

    def read_scores(self) -> TrialScores:
        """Read the finished trials with finite scores."""
        log = self._run.trial_log
        try:
            scores = log.scores
        except OSError as error:
            self.omissions.append(f"trials.jsonl cannot be read ({error.strerror}): the scores of the trials are not shown")
            return TrialScores({})
        valid_scores = {trial: score for trial, score in scores.items() if _is_valid(trial, score)}
        n_torn = log.n_torn + len(scores) - len(valid_scores)
        if n_torn:
            self.omissions.append(
                f"{n_torn} of the {log.n_lines} lines of trials.jsonl are corrupt or from another version: their trials are "
                "not shown"
            )
        if not log.n_lines:
            self.omissions.append("trials.jsonl is empty: no trial has finished")
        return TrialScores(valid_scores)

    def read_images(self) -> tuple[ImageRecord, ...]:
        """Read every used image, sorted by name; () of an unfinished run, as images.csv is written at the end."""
        if self.metadata is None or not self._is_complete:
            return ()
        try:
            images, n_used = tuple(self._run.load_image_records()), self.metadata.data.used
            if n_used != len(images):
                raise RunError(f"it has {len(images)} used images, run.json has {n_used}")
        except RunError as error:
            self.omissions.append(
                f"images.csv cannot be read ({error.__cause__ or error}): the split of each image is unknown"
            )
            images = ()
        self._check_files(images)
        return images

    def _check_files(self, images: tuple[ImageRecord, ...]) -> None:
        """Report image files that no longer exist."""
        assert self.metadata is not None  # checked by `read_images`
        source = self.metadata.data.try_open_images()
        if source is None:
            return
        if not source.is_reachable:
            self.omissions.append(
                f"the images are no longer at {source.root}: no thumbnails are shown; move or link them back"
            )
        elif n_gone := sum(not source.exists(image.name) for image in images):
            self.omissions.append(
                f"{n_gone} of the {len(images)} images are no longer under {source.root}: their thumbnails are not shown"
            )

    def read_predictions(self) -> tuple[tuple[Prediction, ...], np.ndarray | None]:
        """Read the winner's test predictions, sorted by name, and the probabilities of all classes or None."""
        if self.metadata is None or self.metadata.result is None:
            return (), None
        n_tested, n_classes = self.metadata.result.test.images, len(self.metadata.splits.classes)
        try:
            predictions = tuple(read_predictions(self._run.path / "predictions.csv"))
            if n_tested != len(predictions):
                raise RunError(f"it has {len(predictions)} predictions, run.json has {n_tested} test images")
        except RunError as error:
            self.omissions.append(
                f"predictions.csv cannot be read ({error.__cause__ or error}): the test predictions are not shown"
            )
            return (), None
        try:
            probabilities = self._run.load_probabilities()
            if probabilities.shape != (n_tested, n_classes) or probabilities.dtype.kind != "f":
                raise ValueError(f"expected shape ({n_tested}, {n_classes}), got {probabilities.shape}")
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            self.omissions.append(f"probabilities.npy cannot be read ({error}): the class probabilities are not shown")
            return predictions, None
        return predictions, probabilities

    def open_store(self, cache: Path | None) -> Store | None:
        """Open the cache; None if the folder is not a cache."""
        try:
            return Store(cache)
        except (CacheError, OSError) as error:
            self.omissions.append(f"the cache cannot be read ({error}): sections that need features are not shown")
            return None


def _is_valid(trial: Trial, score: Score) -> bool:
    numbers = (score.accuracy, score.log_loss, score.seconds, *score.folds)
    return all(map(math.isfinite, numbers)) and bool(trial.tap_refs)
