"""Content of `run.json`: everything needed to reproduce a run, and its result once it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.atomic_files import read_json
from ...cache.spec import ExtractionSpec
from ...cache.typed_json import from_json, to_json
from ...extract.backbones.tap_ref import TapRef
from ..data.splits import SplitsSummary
from ..data.views import Views
from ..evaluate.trial import Trial
from .data_summary import DataSummary
from .result import RunResult

FORMAT_VERSION = 3


class OtherFormat(ValueError):
    """A `run.json` in another format."""

    def __init__(self, version: object) -> None:
        super().__init__(f"format {version!r:.60}, not {FORMAT_VERSION}")
        self.version = version


@dataclass(frozen=True)
class SweptTap:
    """A tap that heads were trained on. depth: fraction of the forward cost up to it, None if unknown."""

    backbone: str
    extraction: str
    layer: str
    pool: str
    depth: float | None

    @classmethod
    def from_tap_ref(cls, tap_ref: TapRef, depth: float | None) -> SweptTap:
        """Return a tap with its depth."""
        return cls(tap_ref.backbone, tap_ref.extraction, tap_ref.layer, tap_ref.pool, depth)

    @property
    def tap_ref(self) -> TapRef:
        """The tap without its depth."""
        return TapRef(self.backbone, self.extraction, self.layer, self.pool)


@dataclass(frozen=True)
class LeftOutTap:
    """A cached tap that was left out because it lacks rows for some images."""

    backbone: str
    extraction: str
    layer: str
    pool: str
    images_missing: int

    @classmethod
    def from_tap_ref(cls, tap_ref: TapRef, images_missing: int) -> LeftOutTap:
        """Return a tap with the number of images it lacks."""
        return cls(tap_ref.backbone, tap_ref.extraction, tap_ref.layer, tap_ref.pool, images_missing)


@dataclass(frozen=True)
class HeadSummary:
    """A head family and the hyperparameters tried.

    halving_rounds: (number of trials, epochs) of each round of a search by halving.
    """

    head: str
    hyperparameter_sets: tuple[Mapping[str, Any], ...]
    halving_rounds: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class FinetuneOrigin:
    """Start of a fine-tuning: folder of the frozen run, id of its trial, and the resulting trial."""

    run: str
    start_trial: str
    trial: Trial


@dataclass(frozen=True, kw_only=True)
class RunMetadata:
    """Configuration and result of a run.

    config_hash: digest of everything that determines the result. humeris: its version. specs: extraction specs, by the
    extraction's name. finetune: for fine-tuning only. result: None until the run is complete.
    """

    config_hash: str
    command: str
    humeris: str
    data: DataSummary
    splits: SplitsSummary
    taps: tuple[SweptTap, ...]
    left_out: tuple[LeftOutTap, ...]
    specs: Mapping[str, ExtractionSpec]
    heads: tuple[HeadSummary, ...]
    views: Views
    seed: int
    finetune: FinetuneOrigin | None = None
    result: RunResult | None = None

    @property
    def resume_command(self) -> str:
        """The command that resumes an interrupted run."""
        return self.command or "`humeris sweep` with the same arguments"

    @property
    def depths(self) -> dict[TapRef, float | None]:
        """The depth of each tap, in the order of the backbones."""
        return {tap.tap_ref: tap.depth for tap in self.taps}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: the content of `run.json`."""
        return {"format": FORMAT_VERSION, **to_json(self)}

    @classmethod
    def from_dict(cls, value: Any) -> RunMetadata:
        """Parse what `to_dict` wrote; raises `OtherFormat`, or a one-line `ValueError` that names the invalid field."""
        if not isinstance(value, dict):
            raise ValueError("no object")
        if value.get("format") != FORMAT_VERSION or type(value["format"]) is not int:
            raise OtherFormat(value.get("format"))
        return from_json(cls, {name: member for name, member in value.items() if name != "format"})


def read_metadata(file: Path) -> RunMetadata:
    """Read a `run.json`; raises `OSError`, and whatever `RunMetadata.from_dict` raises."""
    return RunMetadata.from_dict(read_json(file))
