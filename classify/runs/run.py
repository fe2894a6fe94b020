"""The folder of a run: plain files, each written completely or not at all.

run.json               configuration and result: everything needed to reproduce the run
trials.jsonl           one line per finished trial; an interrupted sweep is resumed from here
leaderboard.csv        trials, best first
images.csv             every path with its outcome
predictions.csv        test images with their predictions; probabilities.npy has all classes, row by row
heads/<trial>.npz      arrays of a trained head, with its metadata in heads/<trial>.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...cache.errors import RunError
from ...cache.spec import ExtractionSpec
from ...extract.backbones.tap_ref import TapRef
from ..evaluate.depth_curve import DepthPoint, compute_depth_curve
from ..evaluate.trial import Score, Trial, TrialScores
from ..heads.head import Head
from .data_summary import DataSummary
from .image_records import ImageRecord, read_image_records
from .metadata import OtherFormat, RunMetadata, read_metadata
from .result import RunResult
from .run_folder import ALTERNATIVE, TEMP_FOLDER, RunFolder
from .summary import RunSummary
from .trial_log import TrialLog


class Run(RunFolder):
    """A run folder. Files are read when needed, `run.json` and `trials.jsonl` only once."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.trial_log = TrialLog(self.path / "trials.jsonl")
        self._metadata: RunMetadata | None = None

    def __repr__(self) -> str:
        try:
            result = self.metadata.result
        except RunError:
            return f"<Run {self.path}: cannot be read>" if self.exists else f"<Run {self.path}: nothing there>"
        if result is None:
            return f"<Run {self.path}: unfinished>"
        return f"<Run {self.path}: {result.best.trial}, test accuracy {result.test.accuracy:.4f}>"

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Open the complete run at `path`; raises `RunError`."""
        run = cls(path)
        if not run.complete:
            raise RunError(f"{path}: the run was interrupted; resume it with: {run.metadata.resume_command}")
        if not run.load_trials():
            raise RunError(
                f"{path}: incomplete run: trials.jsonl is missing or has no readable trials; sweep again into "
                "another folder with -o"
            )
        return run

    @property
    def exists(self) -> bool:
        """Whether there is a `run.json`."""
        return (self.path / "run.json").exists()

    @property
    def metadata(self) -> RunMetadata:
        """The content of `run.json`; raises `RunError`."""
        if self._metadata is None:
            self._metadata = self.read_metadata()
        return self._metadata

    def read_metadata(self) -> RunMetadata:
        """Read `run.json`; `metadata` does so only once. Raises `RunError`, with the error of reading as its cause."""
        file = self.path / "run.json"
        if not self.exists:
            raise RunError(f"{self.path}: not a run folder (no run.json in it); `humeris sweep` creates one")
        try:
            return read_metadata(file)
        except OtherFormat as error:
            raise RunError(
                f"{file}: cannot read the run: {error}; use the humeris version that wrote it, or sweep into "
                "another folder with -o"
            ) from error
        except (OSError, ValueError) as error:
            raise RunError(f"{file}: cannot read the run: {error}; sweep again into another folder with -o") from error

    @property
    def complete(self) -> bool:
        """Whether the run has ended: its result is written last."""
        return self.metadata.result is not None

    @property
    def result(self) -> RunResult:
        """The result of a complete run; raises `RunError`."""
        if self.metadata.result is None:
            raise RunError(f"{self.path}: the run was interrupted; resume it with: {self.metadata.resume_command}")
        return self.metadata.result

    def begin(self, metadata: RunMetadata) -> None:
        """Write the configuration, or check that it is the one of the interrupted run in this folder."""
        if self.exists:
            if self.metadata.config_hash != metadata.config_hash:
                raise RunError(
                    f"{self.path}: the folder holds a run of other images, features or options; give another folder with -o"
                )
            return
        if self.path.exists() and (not self.path.is_dir() or set(os.listdir(self.path)) - {TEMP_FOLDER}):
            raise RunError(f"{self.path}: not empty, and not a run folder; give another folder with -o")
        self._write_metadata(metadata)

    def finish(self, result: RunResult, data: DataSummary | None = None) -> None:
        """Write the result, which completes the run. data: updated summary, if the data was moved."""
        self._write_metadata(replace(self.metadata, result=result, data=data or self.metadata.data))

    def _write_metadata(self, metadata: RunMetadata) -> None:
        self.write_json("run.json", metadata.to_dict())
        self._metadata = metadata

    def load_trials(self) -> TrialScores:
        """Return the finished trials. A line torn by a crash is ignored, and its trial is run again."""
        return self.trial_log.scores

    def get_elapsed(self) -> float:
        """Return the seconds that all sessions spent on the run; for an interrupted run, up to its last trial."""
        return max(self.result.seconds if self.complete else 0.0, self.trial_log.elapsed)

    def append(self, scores: Mapping[Trial, Score], elapsed: float = 0.0) -> None:
        """Append finished trials, synced to disk on return. elapsed: seconds spent on the run so far."""
        self.trial_log.append(scores, elapsed, ALTERNATIVE)
        self.heartbeat()

    def find_trial(self, id_prefix: str | None = None) -> tuple[Trial, Score]:
        """Return the trial whose id begins with `id_prefix`, by default the best one; raises `RunError`."""
        scores = self.load_trials()
        if id_prefix is None:
            best_id = self.result.best.id if self.complete else ""
            best_trial = next((trial for trial in scores if trial.id == best_id), None) or scores.ranked[0]
            return best_trial, scores[best_trial]
        matches = [trial for trial in scores if trial.id.startswith(id_prefix)]
        if len(matches) != 1:
            raise RunError(
                f"{self.path}: {len(matches) or 'no'} trials have an id that begins with {id_prefix!r}; give "
                "an id listed in leaderboard.csv"
            )
        return matches[0], scores[matches[0]]

    def compute_depth_curve(self) -> tuple[DepthPoint, ...]:
        """Return the best trial of each head on each tap, by backbone and depth, then those on several taps side by side."""
        return compute_depth_curve(self.metadata.depths, self.load_trials())

    def summarize(self) -> RunSummary:
        """Return a summary of a complete run."""
        metadata, result = self.metadata, self.result
        return RunSummary(
            run=str(self.path),
            best=result.best,
            depth=self.compute_depth_curve(),
            runner_up=result.runner_up,
            groups=result.groups,
            accuracy_95=result.accuracy_95,
            test=result.test,
            test_plain=result.test_plain,
            near_duplicates=result.near_duplicates,
            notes=result.notes,
            views=metadata.views,
            seconds=result.seconds,
            trials=len(self.load_trials()),
            splits=metadata.splits,
            left_out=metadata.left_out,
            advice=result.advice,
        )

    def get_spec(self, tap_ref: TapRef) -> ExtractionSpec:
        """Return the extraction spec of a tap; raises `RunError`."""
        spec = self.metadata.specs.get(tap_ref.extraction)
        if spec is None:
            raise RunError(
                f"{self.path}: run.json has no spec of extraction {tap_ref.extraction!r} (of {tap_ref}); sweep "
                "again into another folder with -o"
            )
        return spec

    def load_head(self, trial: Trial) -> Head | None:
        """Load the trained head of a trial; None if it is not in the run."""
        metadata_path = self.path / "heads" / f"{trial.id}.json"
        if not metadata_path.exists():
            return None
        try:
            return Head.load(metadata_path.with_suffix(".npz"), json.loads(metadata_path.read_bytes()))
        except ValueError as error:
            raise RunError(
                f"{metadata_path}: cannot read the head's metadata: {error}; delete the file to train the head again"
            ) from error

    def save_head(self, trial: Trial, head: Head) -> None:
        """Write a trained head, its metadata last."""
        self.write(f"heads/{trial.id}.npz", head.to_npz_bytes())
        self.write_json(f"heads/{trial.id}.json", {**head.to_metadata(), "trial": trial.to_dict()})

    def load_image_records(self) -> list[ImageRecord]:
        """Return the used images in order of name, the order of all tables; raises `RunError`."""
        return read_image_records(self.path / "images.csv")

    def load_probabilities(self) -> np.ndarray:
        """Return the probabilities (n, classes) of the test images, in the order of `predictions.csv`."""
        return np.asarray(np.load(self.path / "probabilities.npy", allow_pickle=False))
