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

from ...cache.leases import Claim, Claims
from ...cache.errors import RunError
from ...cache.atomic_files import make_folder, publish, write_errors
from ...cache.spec import Spec
from ..evaluate.depth_curve import depth_curve
from ..heads.head import Head
from ..evaluate.trial import Score, Source, Trial, ranked

FORMAT = 2
_DRAFTS = ".drafts"  # files on their way
_INSTEAD = "another folder with -o"
_KEPT = ("plan", "splits", "sources", "left_out", "specs", "seed", "views", "data", "best", "test")
_TORN = (ValueError, KeyError, TypeError, RecursionError)  # what reading a line that a crash tore may raise
_GUARDED = {"=", "+", "-", "@", "\t", "\r", "'"}


@dataclass(frozen=True)
class Record:
    """A used image as a run saw it: path relative to the data's root, label, role (train, val, test), digest.

    group: of images that belong together; "" where it stands for itself, or an older humeris did not write it down.
    """

    name: str
    label: str
    split: str
    digest: bytes
    group: str = ""


class Run:
    """A run folder. `description` is the content of `run.json`, `{}` before it is written; or what is given, unchecked."""

    def __init__(self, path: Path | str, description: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._claim = Claim(None)
        self.description: dict[str, Any] = dict(description or {})
        file = self.path / "run.json"
        if description is None and file.exists():
            try:
                self.description = json.loads(file.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                raise RunError(f"{file}: expected a run's description, found something unreadable: {error}") from error
            if not isinstance(self.description, dict) or self.description.get("format") != FORMAT:
                raise RunError(
                    f"{file}: expected a run's description in format {FORMAT}, found another one; "
                    "use the humeris version that made it, or sweep into another folder"
                )

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """The finished run at `path`; raises `RunError`."""
        run = cls(path)
        if not run.description:
            raise RunError(f"{path}: expected a run folder with a run.json, found none; `humeris sweep` makes one")
        if not run.complete:
            again = run.description.get("command") or "`humeris sweep` with the same arguments"
            raise RunError(f"{path}: this run was interrupted; finish it with: {again}")
        lacking = [name for name in _KEPT if name not in run.description]
        if lacking or not run.trials():
            what = f"{', '.join(lacking)} in run.json" if lacking else "the trials in trials.jsonl"
            raise RunError(f"{path}: expected a whole run, found it without {what}; sweep again into another folder")
        return run

    @property
    def complete(self) -> bool:
        """Whether the sweep ended; the last thing it writes says so."""
        return bool(self.description.get("complete"))

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Write what is going to be done, or check that an interrupted run was going to do the same."""
        if self.description:
            if self.description["plan"] != plan["plan"]:
                raise RunError(
                    f"{self.path}: expected a run of the same images, features and options, found another one there; "
                    "give another folder with -o"
                )
            return
        if self.path.exists() and (not self.path.is_dir() or set(os.listdir(self.path)) - {_DRAFTS}):
            raise RunError(f"{self.path}: expected a new folder or a run, found other files; give another folder with -o")
        self.write_json("run.json", {"format": FORMAT, "complete": False, **plan})
        self.description = {"format": FORMAT, "complete": False, **plan}

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from working on the run meanwhile; raises `RunError` where one does.

        A claim is void once its process is gone (see `cache.claims`).
        """
        drafts = self.path / _DRAFTS
        make_folder(drafts.absolute(), _INSTEAD)
        claim = Claims(drafts).take("sweep")
        if claim is None:
            raise RunError(
                f"{self.path}: expected nobody at work on this run, found another process; wait until it has ended, "
                "or give another folder with -o"
            )
        self._claim = claim
        try:
            yield
        finally:
            claim.release()
            with contextlib.suppress(OSError):
                drafts.rmdir()

    def beat(self) -> None:
        """Say that this process is still at work on the run, as `append` does; others take a silent claim for void."""
        self._claim.beat()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result; from then on the run is complete."""
        self.description = {**self.description, **result, "complete": True}
        self.write_json("run.json", self.description)

    def trials(self) -> dict[Trial, Score]:
        """The trials that ended. A line torn by a crash is passed over and its trial is run again."""
        found: dict[Trial, Score] = {}
        for line in self._lines():
            with contextlib.suppress(*_TORN):
                value = json.loads(line)
                found[Trial.from_dict(value["trial"])] = Score.from_dict(value["score"])
        return found

    def spent(self) -> float:
        """Seconds that all sessions together have worked on the run; of one that was killed, up to its last trial."""
        found = [float(self.description.get("seconds") or 0.0)]
        for line in self._lines():
            with contextlib.suppress(*_TORN):
                found.append(float(json.loads(line)["spent"]))
        return max(found)

    def _lines(self) -> list[bytes]:
        path = self.path / "trials.jsonl"
        return path.read_bytes().splitlines() if path.exists() else []

    def append(self, scores: Mapping[Trial, Score], spent: float = 0.0) -> None:
        """Add ended trials, one line each, on the disk when this returns; spent: seconds worked on the run until now."""
        lines = [
            json.dumps({"id": trial.id, "trial": trial.to_dict(), "score": score.to_dict(), "spent": round(spent, 3)})
            for trial, score in scores.items()
        ]
        path = self.path / "trials.jsonl"
        with write_errors(path, _INSTEAD), path.open("a+b") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                lines.insert(0, "")
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self._claim.beat()

    def trial(self, name: str | None = None) -> tuple[Trial, Score]:
        """The trial whose id begins with `name`, or the best one; raises `RunError`."""
        scores = self.trials()
        if name is None:
            best = (self.description.get("best") or {}).get("id")
            chosen = next((trial for trial in scores if trial.id == best), None) or ranked(scores)[0]
            return chosen, scores[chosen]
        found = [trial for trial in scores if trial.id.startswith(name)]
        if len(found) != 1:
            raise RunError(
                f"{self.path}: expected the id of one trial, found {len(found)} that begin with {name!r}; "
                "leaderboard.csv lists them"
            )
        return found[0], scores[found[0]]

    def depth_curve(self) -> list[dict[str, Any]]:
        """The best trial of each head on each source, by backbone and depth, and then on several side by side."""
        return depth_curve(self.description["sources"], self.trials())

    def summary(self) -> dict[str, Any]:
        """The answer, as JSON values: where, which trial, how good along the depth, and on the test split."""
        described = self.description
        return {
            "run": str(self.path),
            "best": described["best"],
            "depth": self.depth_curve(),
            "runner_up": described.get("runner_up"),
            "groups": described.get("groups"),
            "accuracy_95": described.get("accuracy_95", {}),
            "test": described["test"],
            "test_plain": described.get("test_plain"),
            "near_duplicates": described.get("near_duplicates"),
            "notes": described.get("notes", []),
            "views": described["views"],
            "seconds": described.get("seconds"),
            "trials": len(self.trials()),
            "splits": described["splits"],
            "left_out": described["left_out"],
            "advice": described.get("advice"),
        }

    def spec(self, source: Source) -> Spec:
        """How the features of `source` were made; raises `RunError`."""
        try:
            return Spec.from_dict(self.description["specs"][source.extraction])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path}: expected how {source} was made in run.json, found: {error}") from error

    def head(self, trial: Trial) -> Head | None:
        """The trained head of a trial, if the run holds it."""
        description = self.path / "heads" / f"{trial.id}.json"
        if not description.exists():
            return None
        try:
            return Head.load(description.with_suffix(".npz"), json.loads(description.read_bytes()))
        except ValueError as error:
            raise RunError(f"{description}: expected the description of a head, found: {error}; delete it") from error

    def save_head(self, trial: Trial, head: Head) -> None:
        """Write a trained head, the description last."""
        self.write(f"heads/{trial.id}.npz", head.arrays())
        self.write_json(f"heads/{trial.id}.json", {**head.description(), "trial": trial.to_dict()})

    def images(self) -> list[Record]:
        """The used images as they were, in order of name, as the tables and `probabilities` are; raises `RunError`."""
        path = self.path / "images.csv"
        try:
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                rows = [{name: unguarded(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
            return [
                Record(row["path"], row["label"], row["split"], bytes.fromhex(row["sha256"]), row.get("group") or "")
                for row in rows
                if row["outcome"] == "used"
            ]
        except (OSError, KeyError, ValueError) as error:
            raise RunError(f"{path}: expected the run's table of images, found: {error}") from error

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the run, whole."""
        path = self.path / name
        make_folder(path.parent.absolute(), _INSTEAD)
        publish(data, path, self.path / _DRAFTS, 0o644, _INSTEAD)
        with contextlib.suppress(OSError):  # another file may be on its way
            (self.path / _DRAFTS).rmdir()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one JSON file of the run."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write one CSV file of the run. A cell that a spreadsheet would run as a formula gets a leading apostrophe."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(header)
        writer.writerows([[guarded(value) for value in row] for row in rows])
        self.write(name, text.getvalue().encode("utf-8", "surrogateescape"))

    def probabilities(self) -> np.ndarray:
        """Probabilities (n, classes) of the test images, in the order of `predictions.csv`."""
        return np.asarray(np.load(self.path / "probabilities.npy", allow_pickle=False))


def guarded(value: Any) -> Any:
    """The cell of a table, with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _GUARDED else value


def unguarded(cell: str) -> str:
    """The cell that `guarded` guarded."""
    return cell[1:] if cell[:1] == "'" else cell
