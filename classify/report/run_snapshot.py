"""A run as it lies there, whole or not: what can be read of it, and in words what cannot."""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.atomic_files import read_json
from ...cache.errors import CacheError, HumerisError, RunError
from ...cache.store import Store
from ...extract.images.image_source import ImageSource
from ...extract.images.registry import try_reopen_source
from ...extract.pixels.decode import ImageRejected
from ...extract.pixels.read_file import compute_digest
from ..data import select_features
from ..data.feature_matrix import RowReader
from ..data.tap_ref import TapRef
from ..evaluate.trial import Score, Trial, rank_trials
from ..runs.run import FORMAT, ImageRecord, Run, unescape_formula

_MAX_INTEGER = 10**300


@dataclass(frozen=True)
class Prediction:
    """What the winner said of a test image: name as in `ImageRecord`, true class, predicted class and its probability."""

    name: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class RunSnapshot:
    """What there is of a run; `omissions` says in words what is not, a line each.

    metadata: run.json as it is, `{}` where it is torn; no key of it is sure to be there. scores: the trials that ended.
    images: every used image, in order of name. predictions: of the test images, in order of name. probabilities (n_test,
    classes): row for row those of `predictions`, or None. store: the cache, or None where the folder is something else.
    """

    path: Path
    metadata: Mapping[str, Any]
    scores: Mapping[Trial, Score]
    images: tuple[ImageRecord, ...]
    predictions: tuple[Prediction, ...]
    probabilities: np.ndarray | None
    store: Store | None
    omissions: tuple[str, ...]

    @classmethod
    def read(cls, path: Path | str, cache: Path | None = None) -> RunSnapshot:
        """What can be read of the run at `path`; raises `RunError` only where there is no run.json.

        cache: the folder of the cache, by default the user's; it need not exist.
        """
        file = Path(path) / "run.json"
        if not file.exists():
            raise RunError(f"{path}: expected a run folder with a run.json, found none; `humeris sweep` makes one")
        omissions: list[str] = []
        metadata = _read_metadata(file, omissions)
        run = Run(path, metadata)
        scores = _read_scores(run, omissions)
        images = _read_images(run, omissions)
        predictions, probabilities = _read_predictions(run, metadata, omissions)
        _check_images(metadata, images, omissions)
        return cls(
            Path(path), metadata, scores, images, predictions, probabilities, _open_store(cache, omissions), tuple(omissions)
        )

    @property
    def title(self) -> str:
        """What the run is called: its folder's name."""
        return self.path.resolve().name

    @property
    def complete(self) -> bool:
        """Whether the sweep ended."""
        return bool(self.metadata.get("complete"))

    @property
    def splits(self) -> Mapping[str, Any]:
        """How many images are in each split, and how heads were chosen; `{}` where that is not known."""
        return _to_mapping(self.metadata.get("splits"))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes in the order of the columns of `probabilities`."""
        names = self.splits.get("classes")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @property
    def test(self) -> Mapping[str, Any]:
        """The scores of the winner on the test split, as `classification_report` gives them; `{}` before there are any."""
        return _to_mapping(self.metadata.get("test"))

    @property
    def data(self) -> Mapping[str, Any]:
        """The data as `Images.summarize` describes it; `{}` where the run does not say."""
        return _to_mapping(self.metadata.get("data"))

    @cached_property
    def source(self) -> ImageSource | None:
        """Where the images, or features of them, come from; None where the run does not say."""
        return try_reopen_source(self.data)

    @property
    def holds_features(self) -> bool:
        """Whether the data is a file of features, of which no images need be known."""
        return self.source is not None and self.source.holds_features

    @cached_property
    def ranked_trials(self) -> list[Trial]:
        """The trials that ended, best first."""
        return rank_trials(self.scores)

    @cached_property
    def best(self) -> Trial | None:
        """The winner: that of run.json, before there is one the first of the trials that ended, or None."""
        name = _to_mapping(self.metadata.get("best")).get("id")
        winner = next((trial for trial in self.scores if trial.id == name), None)
        return winner or (self.ranked_trials[0] if self.ranked_trials else None)

    @cached_property
    def tap_depths(self) -> dict[TapRef, float | None]:
        """The share of the forward cost up to each source, in the order of the backbones; None where it is not known."""
        fields = ("backbone", "extraction", "layer", "pool")
        depths = {
            TapRef(*(entry[name] for name in fields)): entry.get("depth") for entry in self.metadata.get("sources", [])
        }
        tried_tap_refs = dict.fromkeys(tap_ref for trial in self.scores for tap_ref in trial.tap_refs)
        return {**depths, **{tap_ref: depths.get(tap_ref) for tap_ref in tried_tap_refs}}

    def select_images(self, split: str) -> tuple[ImageRecord, ...]:
        """The images of one split (train, val, test), in order of name."""
        return tuple(image for image in self.images if image.split == split)

    def read_image(self, name: str) -> bytes | None:
        """The encoded image `name`; None where it is gone, or is no longer the one that the run saw."""
        try:
            if self.source is None:
                return None
            images = self.source.images
            encoded = images.read(images.get_item(name))
        except (HumerisError, ImageRejected, OSError, ValueError, KeyError, TypeError):
            return None
        return encoded if self._digests.get(name, b"") in {b"", compute_digest(encoded)} else None

    def open_features(self, tap_refs: tuple[TapRef, ...]) -> list[RowReader] | None:
        """Where the rows of `tap_refs` are read by the digests of images; None where the cache does not have them."""
        try:
            feature_store = (None if self.source is None else self.source.feature_file) or self.store
            return None if feature_store is None else select_features.open_readers(feature_store, tap_refs)
        except (HumerisError, KeyError, OSError):
            return None

    @cached_property
    def _digests(self) -> dict[str, bytes]:
        if self.holds_features:  # theirs are of rows, not of images
            return {}
        return {image.name: image.digest for image in self.images}


def _to_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_metadata(file: Path, omissions: list[str]) -> dict[str, Any]:
    try:
        metadata = read_json(file)
        if not isinstance(metadata, dict):
            raise ValueError("no table")
    except (OSError, ValueError) as error:
        omissions.append(f"run.json is unreadable ({error}): what was asked and how good the winner is on the test images")
        return {}
    if metadata.get("format") != FORMAT:
        format_version = metadata.get("format")
        omissions.append(
            f"run.json is in format {format_version!r}, not {FORMAT} as of this humeris: what cannot be read is left out"
        )
    if not metadata.get("complete"):
        resume_command = metadata.get("command") or "`humeris sweep` with the same arguments"
        omissions.append(f"the sweep did not end, so that no winner met the test images; finish it with: {resume_command}")
    return metadata


def _read_scores(run: Run, omissions: list[str]) -> dict[Trial, Score]:
    file = run.path / "trials.jsonl"
    try:
        scores = run.load_trials()
        lines = [line for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        omissions.append(f"trials.jsonl cannot be read ({error.strerror}): the scores of the trials")
        return {}
    valid_scores = {trial: score for trial, score in scores.items() if _is_valid_score(trial, score)}
    n_torn = len(lines) - sum(_is_valid_line(line) for line in lines) + len(scores) - len(valid_scores)
    if n_torn:
        omissions.append(f"{n_torn} of the {len(lines)} lines of trials.jsonl are torn or of another version: their trials")
    if not lines:
        omissions.append("trials.jsonl is empty: no trial has ended")
    return valid_scores


def _is_valid_line(line: bytes) -> bool:
    try:
        value = json.loads(line)
        Trial.from_dict(value["trial"]), Score.from_dict(value["score"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return True


def _is_valid_score(trial: Trial, score: Score) -> bool:
    """Whether the figures are figures, and the names names."""
    numbers = [score.accuracy, score.log_loss, score.seconds, *score.folds]
    if any(isinstance(value, int) and abs(value) > _MAX_INTEGER for value in numbers):  # which no float holds
        return False
    names = [trial.head, *(field for tap_ref in trial.tap_refs for field in vars(tap_ref).values())]
    return (
        all(isinstance(value, int | float) and math.isfinite(value) for value in numbers)
        and bool(trial.tap_refs)
        and isinstance(trial.hyperparameters, dict)
        and isinstance(score.detail, dict)
        and all(isinstance(name, str) for name in names)
    )


def _read_images(run: Run, omissions: list[str]) -> tuple[ImageRecord, ...]:
    if not run.complete:  # it is written at the end
        return ()
    try:
        images = tuple(run.load_image_records())
        n_used = _to_mapping(run.metadata.get("data")).get("used")
        if isinstance(n_used, int) and n_used != len(images):
            raise RunError(f"expected {n_used} used images, found {len(images)}")
    except (RunError, TypeError, AttributeError, csv.Error) as error:
        omissions.append(f"images.csv cannot be read ({error.__cause__ or error}): which image is in which split")
        return ()
    return images


def _read_predictions(
    run: Run, metadata: Mapping[str, Any], omissions: list[str]
) -> tuple[tuple[Prediction, ...], np.ndarray | None]:
    try:
        with (run.path / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [{name: unescape_formula(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
        predictions = tuple(
            Prediction(row["path"], row["label"], row["predicted"], float(row["probability"])) for row in rows
        )
        n_tested = _to_mapping(metadata.get("test")).get("images")
        if isinstance(n_tested, int) and n_tested != len(predictions):
            raise ValueError(f"expected the answers to {n_tested} images, found {len(predictions)}")
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        if run.complete:
            omissions.append(f"predictions.csv cannot be read ({error}): the answer to each test image")
        return (), None
    try:
        probabilities = run.load_probabilities()
        n_classes = len(_to_mapping(metadata.get("splits")).get("classes") or ())
        if probabilities.shape != (len(predictions), n_classes) or probabilities.dtype.kind != "f":
            raise ValueError(f"expected ({len(predictions)}, {n_classes}) numbers, found {probabilities.shape}")
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        omissions.append(f"probabilities.npy cannot be used ({error}): the probabilities of all classes")
        return predictions, None
    return predictions, probabilities


def _check_images(metadata: Mapping[str, Any], images: tuple[ImageRecord, ...], omissions: list[str]) -> None:
    """Say where the images are gone as a whole, or some of them."""
    source = try_reopen_source(_to_mapping(metadata.get("data")))
    try:
        image_source = None if source is None else source.images
    except (HumerisError, KeyError, TypeError, ValueError, AttributeError):
        return
    if image_source is None:
        return
    root = image_source.root
    if not image_source.is_reachable:
        omissions.append(f"the images are not at {root} any more: no picture can be shown; put them back or link them there")
    elif n_gone := sum(not image_source.exists(image.name) for image in images):
        omissions.append(f"{n_gone} of the {len(images)} images are not under {root} any more: their pictures")


def _open_store(cache: Path | None, omissions: list[str]) -> Store | None:
    try:
        return Store(cache)
    except (CacheError, OSError) as error:
        omissions.append(f"the cache cannot be used ({error}): what is drawn from the features")
        return None
