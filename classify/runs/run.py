"""The folder a sweep leaves behind: plain files, each wholly written or not there.

run.json               what was asked, what came of it, and everything needed to repeat it
trials.jsonl           a line per trial, appended as they end; an interrupted sweep goes on from here
leaderboard.csv        the trials, best first
images.csv             every path with its outcome
predictions.csv        the test images with their predictions; probabilities.npy has all classes, row for row
heads/<trial>.npz      the arrays of a trained head, described in heads/<trial>.json
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
from .metadata import FORMAT_VERSION, OtherFormat, RunMetadata, read_metadata
from .result import RunResult
from .run_folder import ALTERNATIVE, TEMP_FOLDER, RunFolder
from .summary import RunSummary
from .trial_log import TrialLog


class Run(RunFolder):
    """A run folder. Its files are read when they are asked for, `run.json` and `trials.jsonl` once."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.trial_log = TrialLog(self.path / "trials.jsonl")
        self._metadata: RunMetadata | None = None

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """The finished run at `path`; raises `RunError`."""
        run = cls(path)
        if not run.complete:
            raise RunError(f"{path}: this run was interrupted; finish it with: {run.metadata.resume_command}")
        if not run.load_trials():
            raise RunError(
                f"{path}: expected a whole run, found it without the trials in trials.jsonl; sweep again into another folder"
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
        """Read `run.json`, which `metadata` does once; raises `RunError`, whose cause says what is wrong with it."""
        file = self.path / "run.json"
        if not self.exists:
            raise RunError(f"{self.path}: expected a run folder with a run.json, found none; `humeris sweep` makes one")
        try:
            return read_metadata(file)
        except OtherFormat as error:
            raise RunError(
                f"{file}: expected a run's description in format {FORMAT_VERSION}, found another one; "
                "use the humeris version that made it, or sweep into another folder"
            ) from error
        except (OSError, ValueError) as error:
            raise RunError(f"{file}: expected a run's description, found something unreadable: {error}") from error

    @property
    def complete(self) -> bool:
        """Whether the sweep ended; the last thing it writes says so."""
        return self.metadata.result is not None

    @property
    def result(self) -> RunResult:
        """What came of a finished run; raises `RunError`."""
        if self.metadata.result is None:
            raise RunError(f"{self.path}: this run was interrupted; finish it with: {self.metadata.resume_command}")
        return self.metadata.result

    def begin(self, metadata: RunMetadata) -> None:
        """Write what is going to be done, or check that an interrupted run was going to do the same."""
        if self.exists:
            if self.metadata.config_hash != metadata.config_hash:
                raise RunError(
                    f"{self.path}: expected a run of the same images, features and options, found another one there; "
                    "give another folder with -o"
                )
            return
        if self.path.exists() and (not self.path.is_dir() or set(os.listdir(self.path)) - {TEMP_FOLDER}):
            raise RunError(f"{self.path}: expected a new folder or a run, found other files; give another folder with -o")
        self._write_metadata(metadata)

    def finish(self, result: RunResult, data: DataSummary | None = None) -> None:
        """Write the result; from then on the run is complete. data: where it is now, if it was moved."""
        self._write_metadata(replace(self.metadata, result=result, data=data or self.metadata.data))

    def _write_metadata(self, metadata: RunMetadata) -> None:
        self.write_json("run.json", metadata.to_dict())
        self._metadata = metadata

    def load_trials(self) -> TrialScores:
        """The trials that ended. A line torn by a crash is passed over and its trial is run again."""
        return self.trial_log.scores

    def get_elapsed(self) -> float:
        """Seconds that all sessions together have worked on the run; of one that was killed, up to its last trial."""
        return max(self.result.seconds if self.complete else 0.0, self.trial_log.elapsed)

    def append(self, scores: Mapping[Trial, Score], elapsed: float = 0.0) -> None:
        """Add ended trials, on the disk when this returns; elapsed: seconds worked on the run until now."""
        self.trial_log.append(scores, elapsed, ALTERNATIVE)
        self.heartbeat()

    def find_trial(self, id_prefix: str | None = None) -> tuple[Trial, Score]:
        """The trial whose id begins with `id_prefix`, or the best one; raises `RunError`."""
        scores = self.load_trials()
        if id_prefix is None:
            best_id = self.result.best.id if self.complete else ""
            best_trial = next((trial for trial in scores if trial.id == best_id), None) or scores.ranked[0]
            return best_trial, scores[best_trial]
        matches = [trial for trial in scores if trial.id.startswith(id_prefix)]
        if len(matches) != 1:
            raise RunError(
                f"{self.path}: expected the id of one trial, found {len(matches)} that begin with {id_prefix!r}; "
                "leaderboard.csv lists them"
            )
        return matches[0], scores[matches[0]]

    def compute_depth_curve(self) -> tuple[DepthPoint, ...]:
        """The best trial of each head on each tap, by backbone and depth, and then on several side by side."""
        return compute_depth_curve(self.metadata.depths, self.load_trials())

    def summarize(self) -> RunSummary:
        """A finished run in short."""
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
        """How the features of a tap were made; raises `RunError`."""
        spec = self.metadata.specs.get(tap_ref.extraction)
        if spec is None:
            raise RunError(f"{self.path}: expected how {tap_ref} was made in run.json, found: {tap_ref.extraction!r}")
        return spec

    def load_head(self, trial: Trial) -> Head | None:
        """The trained head of a trial, if the run holds it."""
        metadata_path = self.path / "heads" / f"{trial.id}.json"
        if not metadata_path.exists():
            return None
        try:
            return Head.load(metadata_path.with_suffix(".npz"), json.loads(metadata_path.read_bytes()))
        except ValueError as error:
            raise RunError(f"{metadata_path}: expected the description of a head, found: {error}; delete it") from error

    def save_head(self, trial: Trial, head: Head) -> None:
        """Write a trained head, the description last."""
        self.write(f"heads/{trial.id}.npz", head.to_npz_bytes())
        self.write_json(f"heads/{trial.id}.json", {**head.to_metadata(), "trial": trial.to_dict()})

    def load_image_records(self) -> list[ImageRecord]:
        """The used images as they were, in order of name, as the tables and `probabilities` are; raises `RunError`."""
        return read_image_records(self.path / "images.csv")

    def load_probabilities(self) -> np.ndarray:
        """Probabilities (n, classes) of the test images, in the order of `predictions.csv`."""
        return np.asarray(np.load(self.path / "probabilities.npy", allow_pickle=False))
