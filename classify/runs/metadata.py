"""What `run.json` says: everything needed to repeat a run, and, once it is finished, what came of it."""

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
    """A `run.json` of another format."""

    def __init__(self, version: object) -> None:
        super().__init__(f"format {version!r:.60}, not {FORMAT_VERSION}")
        self.version = version


@dataclass(frozen=True)
class SweptTap:
    """A tap that heads were trained on, with its depth: the share of the forward cost up to it, None where not known."""

    backbone: str
    extraction: str
    layer: str
    pool: str
    depth: float | None

    @classmethod
    def from_tap_ref(cls, tap_ref: TapRef, depth: float | None) -> SweptTap:
        """A tap with its depth."""
        return cls(tap_ref.backbone, tap_ref.extraction, tap_ref.layer, tap_ref.pool, depth)

    @property
    def tap_ref(self) -> TapRef:
        """The tap itself."""
        return TapRef(self.backbone, self.extraction, self.layer, self.pool)


@dataclass(frozen=True)
class LeftOutTap:
    """A cached tap that was left out, since it lacks so many of the images."""

    backbone: str
    extraction: str
    layer: str
    pool: str
    images_missing: int

    @classmethod
    def from_tap_ref(cls, tap_ref: TapRef, images_missing: int) -> LeftOutTap:
        """A tap and how many images it lacks."""
        return cls(tap_ref.backbone, tap_ref.extraction, tap_ref.layer, tap_ref.pool, images_missing)


@dataclass(frozen=True)
class HeadSummary:
    """A head family and the hyperparameters that were tried; halving_rounds: (how many, epochs) of a search by halving."""

    head: str
    hyperparameter_sets: tuple[Mapping[str, Any], ...]
    halving_rounds: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class FinetuneOrigin:
    """What is fine-tuned: the frozen run's folder, the id of the trial started from, and the trial that comes of it."""

    run: str
    start_trial: str
    trial: Trial


@dataclass(frozen=True, kw_only=True)
class RunMetadata:
    """A run: what was asked, and what came of it.

    config_hash: digest of everything that decides the result. humeris: the version. specs: how features were made, by the
    extraction's name. finetune: of a fine-tuning. result: None until the run is complete.
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
        """What to type to finish an interrupted run."""
        return self.command or "`humeris sweep` with the same arguments"

    @property
    def depths(self) -> dict[TapRef, float | None]:
        """The depth of each tap, in the order of the backbones."""
        return {tap.tap_ref: tap.depth for tap in self.taps}

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the content of `run.json`."""
        return {"format": FORMAT_VERSION, **to_json(self)}

    @classmethod
    def from_dict(cls, value: Any) -> RunMetadata:
        """What `to_dict` wrote; raises `OtherFormat`, and `ValueError` in one line that says where it is another value."""
        if not isinstance(value, dict):
            raise ValueError("no object")
        if value.get("format") != FORMAT_VERSION or type(value["format"]) is not int:
            raise OtherFormat(value.get("format"))
        return from_json(cls, {name: member for name, member in value.items() if name != "format"})


def read_metadata(file: Path) -> RunMetadata:
    """The content of a `run.json`; raises `OSError`, and what `RunMetadata.from_dict` raises."""
    return RunMetadata.from_dict(read_json(file))
