"""The result of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluate.trial import Trial
from .formats.format import Format
from .parity import Parity


@dataclass(frozen=True, repr=False)
class ExportResult:
    """An exported model.

    Parameters
    ----------
    path, card : Path
        The model and its model card.
    format : Format
        Format of the model.
    precision : str
        Precision of its weights.
    activations : str
        Data type that an ``int8`` model computes its activations in; "" for other models.
    trial : Trial
        The exported trial.
    parity : Parity
        Agreement of the model with the cache.
    milliseconds : float
        Median inference time of one image, in the process that checked the model.
    bytes : int
        Size of the file, or of all files in the folder.
    sha256 : str
        Digest of the model, see `provenance.compute_digest`.
    trusted : bool
        Whether `humeris predict` runs the model without ``--trust`` if given the same cache.
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

    def __repr__(self) -> str:
        return (
            f"<ExportResult {self.path}: {self.format.name}, {self.precision}, {self.bytes / 1e6:.1f} MB, "
            f"{self.milliseconds:.1f} ms per image, {self.parity.top1_agree} of {self.parity.images} images as cached>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
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
