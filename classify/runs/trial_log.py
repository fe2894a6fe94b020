"""Append-only log of finished trials, one per line, from which an interrupted sweep is resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...cache.atomic_files import translate_write_errors
from ..evaluate.trial import Score, Trial, TrialScores

_TORN_LINE_ERRORS = (ValueError, KeyError, TypeError, RecursionError)  # raised by reading a line torn by a crash


@dataclass(frozen=True)
class _Content:
    """Scores by trial, number of lines and of valid lines, and the largest `elapsed`."""

    scores: TrialScores
    n_lines: int
    n_valid_lines: int
    elapsed: float


class TrialLog:
    """The file `trials.jsonl`, read once and kept up to date as trials are appended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def scores(self) -> TrialScores:
        """Scores of the finished trials. A line torn by a crash is ignored, and its trial is run again."""
        return self._content.scores

    @property
    def elapsed(self) -> float:
        """Seconds that all sessions had spent on the run when the last trial finished."""
        return self._content.elapsed

    @property
    def n_lines(self) -> int:
        """Number of non-empty lines."""
        return self._content.n_lines

    @property
    def n_torn(self) -> int:
        """Number of lines that are not valid trials."""
        return self._content.n_lines - self._content.n_valid_lines

    @cached_property
    def _content(self) -> _Content:
        scores: dict[Trial, Score] = {}
        elapsed, n_valid_lines = 0.0, 0
        lines = [line for line in self.path.read_bytes().splitlines() if line.strip()] if self.path.exists() else []
        for line in lines:
            try:
                trial, score, seconds = _parse_line(line)
            except _TORN_LINE_ERRORS:
                continue
            scores[trial] = score
            elapsed, n_valid_lines = max(elapsed, seconds), n_valid_lines + 1
        return _Content(TrialScores(scores), len(lines), n_valid_lines, elapsed)

    def append(self, scores: Mapping[Trial, Score], elapsed: float, alternative: str) -> None:
        """Append finished trials, synced to disk on return. elapsed: seconds spent on the run so far."""
        lines = [
            json.dumps({"id": trial.id, "trial": trial.to_dict(), "score": score.to_dict(), "elapsed": round(elapsed, 3)})
            for trial, score in scores.items()
        ]
        content = self._content
        with translate_write_errors(self.path, alternative), self.path.open("a+b") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                lines.insert(0, "")
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.__dict__["_content"] = _Content(
            TrialScores({**content.scores, **scores}),
            content.n_lines + len(scores),
            content.n_valid_lines + len(scores),
            max(content.elapsed, round(elapsed, 3)),
        )


def _parse_line(line: bytes) -> tuple[Trial, Score, float]:
    value: Any = json.loads(line)
    return Trial.from_dict(value["trial"]), Score.from_dict(value["score"]), float(value["elapsed"])
