"""A run as it lies there, whole or not: what can be read of it, and in words what cannot."""

from __future__ import annotations

import csv
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.atomic_files import read_json
from ...cache.errors import CacheError, HumerisError, RunError
from ...cache.store import Store
from ...extract.images.detect import reader
from ...extract.images.feature_file import FeatureFile
from ...extract.pixels.decode import Refused
from ...extract.pixels.read_file import digest
from ..data import select_features
from ..data.feature_matrix import Stored
from ..evaluate.trial import Score, Source, Trial, ranked
from ..runs.run import FORMAT, Record, Run, unguarded

_HUGE = 10**300


@dataclass(frozen=True)
class Answer:
    """What the winner said of a test image: name as in `Record`, true class, predicted class and its probability."""

    name: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Evidence:
    """What there is of a run; `missing` says in words what is not, a line each.

    description: run.json as it is, `{}` where it is torn; no key of it is sure to be there. scores: the trials that ended.
    images: every used image, in order of name. answers: of the test images, in order of name. probabilities (n_test,
    classes): row for row those of `answers`, or None. store: the cache, or None where the folder is something else.
    """

    path: Path
    description: Mapping[str, Any]
    scores: Mapping[Trial, Score]
    images: tuple[Record, ...]
    answers: tuple[Answer, ...]
    probabilities: np.ndarray | None
    store: Store | None
    missing: tuple[str, ...]

    @classmethod
    def read(cls, path: Path | str, cache: Path | None = None) -> Evidence:
        """What can be read of the run at `path`; raises `RunError` only where there is no run.json.

        cache: the folder of the cache, by default the user's; it need not exist.
        """
        file = Path(path) / "run.json"
        if not file.exists():
            raise RunError(f"{path}: expected a run folder with a run.json, found none; `humeris sweep` makes one")
        missing: list[str] = []
        description = _description(file, missing)
        run = Run(path, description)
        scores = _scores(run, missing)
        images = _images(run, missing)
        answers, probabilities = _answers(run, description, missing)
        _check_images(description, images, missing)
        return cls(Path(path), description, scores, images, answers, probabilities, _store(cache, missing), tuple(missing))

    @property
    def title(self) -> str:
        """What the run is called: its folder's name."""
        return self.path.resolve().name

    @property
    def complete(self) -> bool:
        """Whether the sweep ended."""
        return bool(self.description.get("complete"))

    @property
    def splits(self) -> Mapping[str, Any]:
        """How many images are in each split, and how heads were chosen; `{}` where that is not known."""
        return _mapping(self.description.get("splits"))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of the columns of `probabilities`."""
        found = self.splits.get("classes")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @property
    def test(self) -> Mapping[str, Any]:
        """The scores of the winner on the test split, as `metrics.report` gives them; `{}` before there are any."""
        return _mapping(self.description.get("test"))

    @property
    def data(self) -> Mapping[str, Any]:
        """The data as `Images.summary` describes it; `{}` where the run does not say."""
        return _mapping(self.description.get("data"))

    @cached_property
    def ranked(self) -> list[Trial]:
        """The trials that ended, best first."""
        return ranked(self.scores)

    @cached_property
    def best(self) -> Trial | None:
        """The winner: that of run.json, before there is one the first of the trials that ended, or None."""
        name = _mapping(self.description.get("best")).get("id")
        chosen = next((trial for trial in self.scores if trial.id == name), None)
        return chosen or (self.ranked[0] if self.ranked else None)

    @cached_property
    def depth(self) -> dict[Source, float | None]:
        """The share of the forward cost up to each source, in the order of the backbones; None where it is not known."""
        names = ("backbone", "extraction", "layer", "pool")
        found = {Source(*(each[name] for name in names)): each.get("depth") for each in self.description.get("sources", [])}
        tapped = dict.fromkeys(source for trial in self.scores for source in trial.sources)
        return {**found, **{source: found.get(source) for source in tapped}}

    def record(self, split: str) -> tuple[Record, ...]:
        """The images of one split (train, val, test), in order of name."""
        return tuple(image for image in self.images if image.split == split)

    def image(self, name: str) -> bytes | None:
        """The encoded image `name`; None where it is gone, or is no longer the one that the run saw."""
        try:
            found = self._reader(name)
        except (HumerisError, Refused, OSError, ValueError):
            return None
        return found if self._digests.get(name, b"") in {b"", digest(found)} else None

    def features(self, taps: tuple[Source, ...]) -> list[Stored] | None:
        """Where the rows of `taps` are read by the digests of images; None where the cache does not have them (any more)."""
        try:
            given = self.data.get("kind") == "features"
            shelf = FeatureFile(str(self.data["root"])) if given else self.store
            return None if shelf is None else select_features.stored(shelf, taps)
        except (HumerisError, KeyError, OSError):
            return None

    @cached_property
    def _reader(self) -> Callable[[str], bytes]:
        try:
            return reader(self.data)
        except KeyError as error:
            raise RunError(f"{self.path}: expected where the images are, found no {error} in run.json") from error

    @cached_property
    def _digests(self) -> dict[str, bytes]:
        given = self.data.get("kind") == "features"  # of rows, not of images
        return {} if given else {image.name: image.digest for image in self.images}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _description(file: Path, missing: list[str]) -> dict[str, Any]:
    try:
        found = read_json(file)
        if not isinstance(found, dict):
            raise ValueError("no table")
    except (OSError, ValueError) as error:
        missing.append(f"run.json is unreadable ({error}): what was asked and how good the winner is on the test images")
        return {}
    if found.get("format") != FORMAT:
        other = found.get("format")
        missing.append(f"run.json is in format {other!r}, not {FORMAT} as of this humeris: what cannot be read is left out")
    if not found.get("complete"):
        again = found.get("command") or "`humeris sweep` with the same arguments"
        missing.append(f"the sweep did not end, so that no winner met the test images; finish it with: {again}")
    return found


def _scores(run: Run, missing: list[str]) -> dict[Trial, Score]:
    file = run.path / "trials.jsonl"
    try:
        scores = run.trials()
        lines = [line for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        missing.append(f"trials.jsonl cannot be read ({error.strerror}): the scores of the trials")
        return {}
    sound = {trial: score for trial, score in scores.items() if _is_sound(trial, score)}
    torn = len(lines) - sum(_is_line(line) for line in lines) + len(scores) - len(sound)
    if torn:
        missing.append(f"{torn} of the {len(lines)} lines of trials.jsonl are torn or of another version: their trials")
    if not lines:
        missing.append("trials.jsonl is empty: no trial has ended")
    return sound


def _is_line(line: bytes) -> bool:
    try:
        value = json.loads(line)
        Trial.from_dict(value["trial"]), Score.from_dict(value["score"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return True


def _is_sound(trial: Trial, score: Score) -> bool:
    """Whether the figures are figures, and the names names."""
    figures = [score.accuracy, score.log_loss, score.seconds, *score.folds]
    if any(isinstance(value, int) and abs(value) > _HUGE for value in figures):  # which no float holds
        return False
    names = [trial.head, *(part for tap in trial.sources for part in vars(tap).values())]
    return (
        all(isinstance(value, int | float) and math.isfinite(value) for value in figures)
        and bool(trial.sources)
        and isinstance(trial.setting, dict)
        and isinstance(score.detail, dict)
        and all(isinstance(name, str) for name in names)
    )


def _images(run: Run, missing: list[str]) -> tuple[Record, ...]:
    if not run.complete:  # it is written at the end
        return ()
    try:
        found = tuple(run.images())
        used = _mapping(run.description.get("data")).get("used")
        if isinstance(used, int) and used != len(found):
            raise RunError(f"expected {used} used images, found {len(found)}")
    except (RunError, TypeError, AttributeError, csv.Error) as error:
        missing.append(f"images.csv cannot be read ({error.__cause__ or error}): which image is in which split")
        return ()
    return found


def _answers(run: Run, description: Mapping[str, Any], missing: list[str]) -> tuple[tuple[Answer, ...], np.ndarray | None]:
    try:
        with (run.path / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [{name: unguarded(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
        answers = tuple(Answer(row["path"], row["label"], row["predicted"], float(row["probability"])) for row in rows)
        tested = _mapping(description.get("test")).get("images")
        if isinstance(tested, int) and tested != len(answers):
            raise ValueError(f"expected the answers to {tested} images, found {len(answers)}")
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        if run.complete:
            missing.append(f"predictions.csv cannot be read ({error}): the answer to each test image")
        return (), None
    try:
        probabilities = run.probabilities()
        classes = len(_mapping(description.get("splits")).get("classes") or ())
        if probabilities.shape != (len(answers), classes) or probabilities.dtype.kind != "f":
            raise ValueError(f"expected ({len(answers)}, {classes}) numbers, found {probabilities.shape}")
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        missing.append(f"probabilities.npy cannot be used ({error}): the probabilities of all classes")
        return answers, None
    return answers, probabilities


def _check_images(description: Mapping[str, Any], images: tuple[Record, ...], missing: list[str]) -> None:
    """Say where the images are gone as a whole, or some of them."""
    data = _mapping(description.get("data"))
    at = _mapping(data.get("images")) or data
    root = at.get("root")
    if at.get("kind") in ("features", "keras", None) or not isinstance(root, str):
        return
    if not os.path.exists(root):
        missing.append(f"the images are not at {root} any more: no picture can be shown; put them back or link them there")
    elif at["kind"] != "arrays":
        gone = sum(not os.path.isfile(os.path.join(root, image.name)) for image in images)
        if gone:
            missing.append(f"{gone} of the {len(images)} images are not under {root} any more: their pictures")


def _store(cache: Path | None, missing: list[str]) -> Store | None:
    try:
        return Store(cache)
    except (CacheError, OSError) as error:
        missing.append(f"the cache cannot be used ({error}): what is drawn from the features")
        return None
