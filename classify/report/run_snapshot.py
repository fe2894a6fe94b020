"""A snapshot of a run, complete or not: what can be read of it, and a line for each omission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...cache.errors import HumerisError, RunError
from ...cache.store import Store
from ...extract.backbones.tap_ref import TapRef
from ...extract.images.image_source import ImageSource
from ...extract.pixels.decode import ImageRejected
from ...extract.pixels.read_file import compute_digest
from ..data import select_features
from ..data.feature_matrix import RowReader
from ..data.splits import SplitsSummary
from ..evaluate.metrics import ClassificationScores
from ..evaluate.single_label import SingleLabel
from ..evaluate.target import Target
from ..evaluate.trial import Trial, TrialScores
from ..runs.data_summary import DataSummary
from ..runs.image_records import ImageRecord
from ..runs.metadata import RunMetadata
from ..runs.predictions import Prediction
from ..runs.result import RunResult
from ..runs.run import Run
from .lenient_reader import LenientReader


@dataclass(frozen=True)
class RunSnapshot:
    """The readable contents of a run.

    Parameters
    ----------
    path : Path
        The run folder.
    metadata : RunMetadata or None
        run.json; None if it cannot be read.
    scores : TrialScores
        Of the finished trials.
    images : tuple of ImageRecord
        Every used image, sorted by name.
    predictions : tuple of Prediction
        Of the test images, sorted by name.
    probabilities : ndarray of shape (n_test, classes) or None
        Row for row those of `predictions`.
    store : Store or None
        The cache; None if the folder is not one.
    omissions : tuple of str
        A line for each thing that cannot be read.
    """

    path: Path
    metadata: RunMetadata | None
    scores: TrialScores
    images: tuple[ImageRecord, ...]
    predictions: tuple[Prediction, ...]
    probabilities: np.ndarray | None
    store: Store | None
    omissions: tuple[str, ...]

    @classmethod
    def read(cls, run: Run | Path | str, cache: Path | None = None) -> RunSnapshot:
        """Read what can be read of a run or run folder; raise `RunError` only if there is no run.json.

        `cache` is the cache folder, by default the user's; it need not exist.
        """
        run = run if isinstance(run, Run) else Run(run)
        if not run.exists:
            raise RunError(f"{run.path}: not a run folder (no run.json in it); `humeris sweep` creates one")
        reader = LenientReader(run)
        scores, images = reader.read_scores(), reader.read_images()
        predictions, probabilities = reader.read_predictions()
        store = reader.open_store(cache)
        omissions = tuple(reader.omissions)
        return cls(run.path, reader.metadata, scores, images, predictions, probabilities, store, omissions)

    @property
    def title(self) -> str:
        """The name of the run's folder."""
        return self.path.resolve().name

    @property
    def result(self) -> RunResult | None:
        """The result of the run; None if it is not finished, or run.json cannot be read."""
        return None if self.metadata is None else self.metadata.result

    @property
    def complete(self) -> bool:
        """Whether the run is finished."""
        return self.result is not None

    @property
    def splits(self) -> SplitsSummary | None:
        """The number of images in each split, and how the winner is selected."""
        return None if self.metadata is None else self.metadata.splits

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, in the order of the columns of `probabilities`."""
        return () if self.metadata is None else self.metadata.splits.classes

    @property
    def target(self) -> Target:
        """The target of the run, without classes if run.json cannot be read; raises `DataError` for an unknown kind."""
        return SingleLabel(()) if self.metadata is None else self.metadata.splits.get_target()

    @property
    def test(self) -> ClassificationScores | None:
        """The scores of the winner on the test split; None if it has not been scored."""
        return None if self.result is None else self.result.test

    @property
    def data(self) -> DataSummary | None:
        """The summary of the data when the run was made."""
        return None if self.metadata is None else self.metadata.data

    @cached_property
    def source(self) -> ImageSource | None:
        """The source of the images or features; None if unknown."""
        return None if self.data is None else self.data.try_open()

    @property
    def holds_features(self) -> bool:
        """Whether the data is a file of features, without images."""
        return self.source is not None and self.source.holds_features

    @property
    def ranked_trials(self) -> tuple[Trial, ...]:
        """The finished trials, best first."""
        return self.scores.ranked

    @cached_property
    def best(self) -> Trial | None:
        """The winner in run.json; without one the best finished trial, or None."""
        best_id = None if self.result is None else self.result.best.id
        winner = next((trial for trial in self.scores if trial.id == best_id), None)
        return winner or (self.ranked_trials[0] if self.ranked_trials else None)

    @cached_property
    def tap_depths(self) -> dict[TapRef, float | None]:
        """The fraction of the forward cost up to each tap, in the order of the run; None if unknown."""
        depths = {} if self.metadata is None else self.metadata.depths
        tried_tap_refs = dict.fromkeys(tap_ref for trial in self.scores for tap_ref in trial.tap_refs)
        return {**depths, **{tap_ref: depths.get(tap_ref) for tap_ref in tried_tap_refs}}

    def select_labeled(self, records: Sequence[ImageRecord]) -> list[ImageRecord]:
        """Return the images whose label the target can encode."""
        is_known = {label: self.target.can_encode(label) for label in {record.label for record in records}}
        return [record for record in records if is_known[record.label]]

    def encode_labels(self, records: Sequence[ImageRecord]) -> np.ndarray:
        """Encode the labels (n, …) of images; raise `DataError` for a label that the target cannot encode."""
        return self.target.encode([record.label for record in records])

    def select_images(self, split: str) -> tuple[ImageRecord, ...]:
        """Return the images of one split (train, val, test), sorted by name."""
        return tuple(image for image in self.images if image.split == split)

    def read_image(self, name: str) -> bytes | None:
        """Return the encoded bytes of an image; None if it is missing or has changed since the run."""
        try:
            if self._image_source is None:
                return None
            encoded = self._image_source.read(self._image_source.get_item(name))
        except (HumerisError, ImageRejected, OSError, ValueError):
            return None
        return encoded if self._digests.get(name, b"") in {b"", compute_digest(encoded)} else None

    def open_features(self, tap_refs: tuple[TapRef, ...]) -> list[RowReader] | None:
        """Open readers of the rows of `tap_refs`; None if the cache does not have them."""
        try:
            feature_store = (None if self.source is None else self.source.feature_file) or self.store
            return None if feature_store is None else select_features.open_readers(feature_store, tap_refs)
        except (HumerisError, OSError):
            return None

    @cached_property
    def _image_source(self) -> ImageSource | None:
        return None if self.data is None else self.data.try_open_images()

    @cached_property
    def _digests(self) -> dict[str, bytes]:
        if self.holds_features:  # its digests are of rows, not of images
            return {}
        return {image.name: image.digest for image in self.images}
