"""What a report is to say beside what its runs do, and where it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...extract.config import NO_EFFECT, Config


@dataclass(frozen=True)
class ReportConfig(Config):
    """How a report is made; `humeris report` has an option for each setting.

    Parameters
    ----------
    latency : bool
        First measure how long the networks take up to each tap on this machine, which loads Keras.
    page : Path or str, optional
        The file; `report.html` in the first run unless given.
    cache : Path or str, optional
        The cache folder, for the map of the features and the like.
    """

    latency: bool = False
    page: Path | str | None = field(default=None, metadata=NO_EFFECT)
    cache: Path | str | None = field(default=None, metadata=NO_EFFECT)

    def __post_init__(self) -> None:
        self._set_paths("page", "cache")
