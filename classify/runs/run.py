"""The folder a sweep leaves behind: plain files, each wholly written or not there.

run.json               what was asked, what was found, and everything needed to repeat it
trials.jsonl           a line per trial, appended as they end; an interrupted sweep goes on from here
leaderboard.csv        the trials, best first
images.csv             every path with its outcome
predictions.csv        the test images with their answers; probabilities.npy has all classes, row for row
heads/<trial>.npz      the arrays of a trained head, described in heads/<trial>.json
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.atomic_files import make_folder, publish, translate_write_errors
from ...cache.errors import RunError
from ...cache.leases import Lease, Leases
from ...cache.spec import ExtractionSpec
from ..data.tap_ref import TapRef
from ..evaluate.depth_curve import compute_depth_curve
from ..evaluate.trial import Score, Trial, rank_trials
from ..heads.head import Head

FORMAT = 2
_TEMP_FOLDER = ".drafts"  # files on their way
_REMEDY = "another folder with -o"
_REQUIRED_KEYS = ("plan", "splits", "sources", "left_out", "specs", "seed", "views", "data", "best", "test")
_TORN_LINE_ERRORS = (ValueError, KeyError, TypeError, RecursionError)  # what reading a line that a crash tore may raise
_FORMULA_PREFIXES = {"=", "+", "-", "@", "\t", "\r", "'"}


@dataclass(frozen=True)
class ImageRecord:
    """A used image as a run saw it: path relative to the data's root, label, role (train, val, test), digest.

    group: of images that belong together; "" where it stands for itself, or an older humeris did not write it down.
    """

    name: str
    label: str
    split: str
    digest: bytes
    group: str = ""


class Run:
    """A run folder. `metadata` is the content of `run.json`, `{}` before it is written; or what is given, unchecked."""

    def __init__(self, path: Path | str, metadata: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._lease = Lease(None)
        self.metadata: dict[str, Any] = dict(metadata or {})
        file = self.path / "run.json"
        if metadata is None and file.exists():
            try:
                self.metadata = json.loads(file.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                raise RunError(f"{file}: expected a run's description, found something unreadable: {error}") from error
            if not isinstance(self.metadata, dict) or self.metadata.get("format") != FORMAT:
                raise RunError(
                    f"{file}: expected a run's description in format {FORMAT}, found another one; "
                    "use the humeris version that made it, or sweep into another folder"
                )

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """The finished run at `path`; raises `RunError`."""
        run = cls(path)
        if not run.metadata:
            raise RunError(f"{path}: expected a run folder with a run.json, found none; `humeris sweep` makes one")
        if not run.complete:
            command = run.metadata.get("command") or "`humeris sweep` with the same arguments"
            raise RunError(f"{path}: this run was interrupted; finish it with: {command}")
        missing_keys = [name for name in _REQUIRED_KEYS if name not in run.metadata]
        if missing_keys or not run.load_trials():
            missing_part = f"{', '.join(missing_keys)} in run.json" if missing_keys else "the trials in trials.jsonl"
            raise RunError(f"{path}: expected a whole run, found it without {missing_part}; sweep again into another folder")
        return run

    @property
    def complete(self) -> bool:
        """Whether the sweep ended; the last thing it writes says so."""
        return bool(self.metadata.get("complete"))

    def begin(self, metadata: Mapping[str, Any]) -> None:
        """Write what is going to be done, or check that an interrupted run was going to do the same."""
        if self.metadata:
            if self.metadata["plan"] != metadata["plan"]:
                raise RunError(
                    f"{self.path}: expected a run of the same images, features and options, found another one there; "
                    "give another folder with -o"
                )
            return
        if self.path.exists() and (not self.path.is_dir() or set(os.listdir(self.path)) - {_TEMP_FOLDER}):
            raise RunError(f"{self.path}: expected a new folder or a run, found other files; give another folder with -o")
        self.write_json("run.json", {"format": FORMAT, "complete": False, **metadata})
        self.metadata = {"format": FORMAT, "complete": False, **metadata}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from working on the run meanwhile; raises `RunError` where one does.

        A claim is void once its process is gone (see `cache.leases`).
        """
        temp_folder = self.path / _TEMP_FOLDER
        make_folder(temp_folder.absolute(), _REMEDY)
        lease = Leases(temp_folder).acquire("sweep")
        if lease is None:
            raise RunError(
                f"{self.path}: expected nobody at work on this run, found another process; wait until it has ended, "
                "or give another folder with -o"
            )
        self._lease = lease
        try:
            yield
        finally:
            lease.release()
            with contextlib.suppress(OSError):
                temp_folder.rmdir()

    def heartbeat(self) -> None:
        """Say that this process is still at work on the run, as `append` does; others take a silent claim for void."""
        self._lease.renew()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result; from then on the run is complete."""
        self.metadata = {**self.metadata, **result, "complete": True}
        self.write_json("run.json", self.metadata)

    def load_trials(self) -> dict[Trial, Score]:
        """The trials that ended. A line torn by a crash is passed over and its trial is run again."""
        scores: dict[Trial, Score] = {}
        for line in self._read_lines():
            with contextlib.suppress(*_TORN_LINE_ERRORS):
                value = json.loads(line)
                scores[Trial.from_dict(value["trial"])] = Score.from_dict(value["score"])
        return scores

    def get_elapsed(self) -> float:
        """Seconds that all sessions together have worked on the run; of one that was killed, up to its last trial."""
        elapsed_times = [float(self.metadata.get("seconds") or 0.0)]
        for line in self._read_lines():
            with contextlib.suppress(*_TORN_LINE_ERRORS):
                elapsed_times.append(float(json.loads(line)["spent"]))
        return max(elapsed_times)

    def _read_lines(self) -> list[bytes]:
        path = self.path / "trials.jsonl"
        return path.read_bytes().splitlines() if path.exists() else []

    def append(self, scores: Mapping[Trial, Score], elapsed: float = 0.0) -> None:
        """Add ended trials, one line each, on the disk when this returns; elapsed: seconds worked on the run until now."""
        lines = [
            json.dumps({"id": trial.id, "trial": trial.to_dict(), "score": score.to_dict(), "spent": round(elapsed, 3)})
            for trial, score in scores.items()
        ]
        path = self.path / "trials.jsonl"
        with translate_write_errors(path, _REMEDY), path.open("a+b") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                lines.insert(0, "")
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self._lease.renew()

    def find_trial(self, id_prefix: str | None = None) -> tuple[Trial, Score]:
        """The trial whose id begins with `id_prefix`, or the best one; raises `RunError`."""
        scores = self.load_trials()
        if id_prefix is None:
            best_id = (self.metadata.get("best") or {}).get("id")
            best_trial = next((trial for trial in scores if trial.id == best_id), None) or rank_trials(scores)[0]
            return best_trial, scores[best_trial]
        matches = [trial for trial in scores if trial.id.startswith(id_prefix)]
        if len(matches) != 1:
            raise RunError(
                f"{self.path}: expected the id of one trial, found {len(matches)} that begin with {id_prefix!r}; "
                "leaderboard.csv lists them"
            )
        return matches[0], scores[matches[0]]

    def compute_depth_curve(self) -> list[dict[str, Any]]:
        """The best trial of each head on each source, by backbone and depth, and then on several side by side."""
        return compute_depth_curve(self.metadata["sources"], self.load_trials())

    def summarize(self) -> dict[str, Any]:
        """The answer, as JSON values: where, which trial, how good along the depth, and on the test split."""
        metadata = self.metadata
        return {
            "run": str(self.path),
            "best": metadata["best"],
            "depth": self.compute_depth_curve(),
            "runner_up": metadata.get("runner_up"),
            "groups": metadata.get("groups"),
            "accuracy_95": metadata.get("accuracy_95", {}),
            "test": metadata["test"],
            "test_plain": metadata.get("test_plain"),
            "near_duplicates": metadata.get("near_duplicates"),
            "notes": metadata.get("notes", []),
            "views": metadata["views"],
            "seconds": metadata.get("seconds"),
            "trials": len(self.load_trials()),
            "splits": metadata["splits"],
            "left_out": metadata["left_out"],
            "advice": metadata.get("advice"),
        }

    def get_spec(self, tap_ref: TapRef) -> ExtractionSpec:
        """How the features of `tap_ref` were made; raises `RunError`."""
        try:
            return ExtractionSpec.from_dict(self.metadata["specs"][tap_ref.extraction])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path}: expected how {tap_ref} was made in run.json, found: {error}") from error

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
        """The used images as they were, in order of name, as the tables and `load_probabilities` are; raises `RunError`."""
        path = self.path / "images.csv"
        try:
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                rows = [{name: unescape_formula(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
            return [
                ImageRecord(row["path"], row["label"], row["split"], bytes.fromhex(row["sha256"]), row.get("group") or "")
                for row in rows
                if row["outcome"] == "used"
            ]
        except (OSError, KeyError, ValueError) as error:
            raise RunError(f"{path}: expected the run's table of images, found: {error}") from error

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the run, whole."""
        path = self.path / name
        make_folder(path.parent.absolute(), _REMEDY)
        publish(data, path, self.path / _TEMP_FOLDER, 0o644, _REMEDY)
        with contextlib.suppress(OSError):  # another file may be on its way
            (self.path / _TEMP_FOLDER).rmdir()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one JSON file of the run."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write one CSV file of the run. A cell that a spreadsheet would run as a formula gets a leading apostrophe."""
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer)
        writer.writerow(header)
        writer.writerows([[escape_formula(value) for value in row] for row in rows])
        self.write(name, buffer.getvalue().encode("utf-8", "surrogateescape"))

    def load_probabilities(self) -> np.ndarray:
        """Probabilities (n, classes) of the test images, in the order of `predictions.csv`."""
        return np.asarray(np.load(self.path / "probabilities.npy", allow_pickle=False))


def escape_formula(value: Any) -> Any:
    """The cell of a table, with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA_PREFIXES else value


def unescape_formula(cell: str) -> str:
    """The cell that `escape_formula` guarded."""
    return cell[1:] if cell[:1] == "'" else cell
