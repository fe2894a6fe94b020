"""The options of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...extract.config import NO_EFFECT, Config


@dataclass(frozen=True)
class ReportConfig(Config):
    """The options of a report; `humeris report` has a flag for each.

    Parameters
    ----------
    latency : bool
        Measure the latency of the networks up to each tap on this machine first, which loads Keras.
    page : Path or str, optional
        The file; `report.html` in the first run by default.
    cache : Path or str, optional
        The cache folder, for sections that need features.
    """

    latency: bool = False
    page: Path | str | None = field(default=None, metadata=NO_EFFECT)
    cache: Path | str | None = field(default=None, metadata=NO_EFFECT)

    def __post_init__(self) -> None:
        self._set_paths("page", "cache")
