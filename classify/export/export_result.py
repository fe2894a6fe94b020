"""What an export left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluate.trial import Trial
from .formats.format import Format
from .parity import Parity


@dataclass(frozen=True)
class ExportResult:
    """An exported model: where it and its card are, and how it was checked.

    sha256: of the file, or of a folder's files as `provenance.digest` says. milliseconds: that one image takes, in the
    process that checked it. activations: of a model in int8, what they are computed in. known: whether `humeris predict`
    runs it with the same cache, without being told to trust it.
    """

    path: Path
    card: Path
    format: Format
    precision: str
    activations: str
    trial: Trial
    parity: Parity
    milliseconds: float
    bytes: int
    sha256: str
    trusted: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "model": str(self.path),
            "card": str(self.card),
            "format": self.format.name,
            "precision": self.precision,
            "activations": self.activations,
            "trial": self.trial.id,
            "parity": self.parity.to_dict(),
            "milliseconds": round(self.milliseconds, 3),
            "bytes": self.bytes,
            "sha256": self.sha256,
            "known": self.trusted,
        }
