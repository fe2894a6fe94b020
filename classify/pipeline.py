"""The whole pipeline: images -> features -> run -> model and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cache.errors import DataError, LayerError, ModelError
from ..cache.store import Store
from ..cache.typed_json import to_json
from ..extract.backbones.backbone_spec import BackboneSpec
from ..extract.backbones.taps import Tap
from ..extract.config import to_tuple
from ..extract.engine.extract import ExtractResult
from ..extract.engine.extract_config import ExtractConfig
from ..extract.engine.multi_device import extract_on_devices
from ..extract.images.images import Images
from ..extract.images.load import Progress
from .data.select_features import split_pattern
from .data.splits import split
from .export.export_result import ExportResult
from .finish_run import finish_run
from .report.page import ReportResult
from .report.report_config import ReportConfig
from .runs.failed_step import FailedStep
from .runs.run import Run
from .sweep.sweep import sweep
from .sweep.sweep_config import SweepConfig

ProgressFactory = Callable[[str], Progress]


@dataclass(frozen=True, repr=False)
class PipelineResult:
    """Images, cost of each backbone, run, model and report.

    A step after the sweep that fails does not undo it: `export_result` or `report_result` is then None, and `failed_steps`
    says why and what to do.
    """

    images: Images
    extract_results: list[ExtractResult]
    run: Run
    export_result: ExportResult | None
    report_result: ReportResult | None
    failed_steps: tuple[FailedStep, ...] = ()

    def __repr__(self) -> str:
        late_parts = (self.export_result, self.report_result, *self.failed_steps)
        parts = (self.images, *self.extract_results, self.run, *(part for part in late_parts if part is not None))
        return "\n".join(["<PipelineResult>", *(f"  {part!r}" for part in parts)])

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data": self.images.summarize(),
            "extracted": [result.to_dict() for result in self.extract_results],
            **to_json(self.run.summarize()),
            "exported": self.export_result and self.export_result.to_dict(),
            "reported": self.report_result and self.report_result.to_dict(),
            "failed": to_json(self.failed_steps),
        }


def run(
    images: Images,
    store: Store,
    extract_config: ExtractConfig,
    sweep_config: SweepConfig,
    report_config: ReportConfig | None = None,
    *,
    model: Path | None = None,
    command: str = "",
    progress: ProgressFactory | None = None,
) -> PipelineResult:
    """Extract the taps of every backbone, sweep the heads over them, export the winner, and write the report.

    Parameters
    ----------
    images : Images
        The images, with labels.
    store : Store
        The cache, open for writing.
    extract_config, sweep_config : ExtractConfig, SweepConfig
        What to extract, and what to train on it.
    report_config : ReportConfig, optional
        How the report is written.
    model : Path, optional
        File of the exported model; by default in the run's folder.
    command : str
        The command line, recorded in the run.
    progress : callable, optional
        Returns the progress callback of a named stage.

    Returns
    -------
    PipelineResult
        The results of the stages; `failed_steps` has the errors of the export and the report.

    Raises
    ------
    HumerisError
        The errors of extraction and sweep, and `ModelError` if heads would need backbones of several image sizes.
    """
    _check_one_size(extract_config.backbone_specs, sweep_config)
    extract_results, finished_run = extract_and_sweep(
        images, store, extract_config, sweep_config, command=command, progress=progress
    )
    export_result, report_result, failed_steps = finish_run(
        finished_run, store, model, extract_config.backbone_specs, report_config or ReportConfig(), command, progress
    )
    return PipelineResult(
        extract_results[-1].images, extract_results, finished_run, export_result, report_result, failed_steps
    )


def extract_and_sweep(
    images: Images,
    store: Store,
    extract_config: ExtractConfig | None,
    sweep_config: SweepConfig,
    *,
    command: str = "",
    progress: ProgressFactory | None = None,
) -> tuple[list[ExtractResult], Run]:
    """Extract the rows missing from the cache, then sweep over exactly these taps.

    Labels are checked before anything is computed.

    Parameters
    ----------
    images : Images
        The images, with labels.
    store : Store
        The cache, open for writing if anything is extracted.
    extract_config : ExtractConfig or None
        What to extract; if it has no layers, those of `sweep_config` are. None to sweep over cached taps.
    sweep_config : SweepConfig
        What to train on the features.
    command : str
        The command line, recorded in the run.
    progress : callable, optional
        Returns the progress callback of a named stage.

    Returns
    -------
    extract_results : list of ExtractResult
        One for each backbone.
    run : Run
        The complete run.

    Raises
    ------
    HumerisError
        The errors of the two stages.
    """
    extract_results: list[ExtractResult] = []
    if extract_config is not None:
        split(images, sweep_config.select)
        patterns = to_tuple(extract_config.layers) or to_tuple(sweep_config.layers)
        extract_results = extract_taps(images, store, replace(extract_config, layers=patterns), progress)
        images = extract_results[-1].images
    finished_run = sweep(
        images,
        store,
        sweep_config,
        only_taps=None if extract_config is None else collect_taps(extract_results),
        command=command,
        progress=progress("heads") if progress else None,
    )
    return extract_results, finished_run


def extract_taps(
    images: Images, store: Store, config: ExtractConfig, progress: ProgressFactory | None = None
) -> list[ExtractResult]:
    """Cache every tap that a sweep over the config's layers uses, including those of concatenations.

    Results are in the order of the backbones, grouped by equal taps. Raises as `extract_on_devices`.
    """
    if images.feature_file is not None:
        raise DataError(
            f"{images.feature_file.path}: a feature file has no images to extract features from; use `humeris sweep`"
        )
    results: list[ExtractResult] = []
    for backbone_group, taps in group_backbones_by_taps(config.backbone_specs, to_tuple(config.layers)):
        results += extract_on_devices(images, store, replace(config, backbones=backbone_group, layers=taps), progress)
        images = results[-1].images
    return [replace(result, images=images) for result in results]


def group_backbones_by_taps(
    backbone_specs: Sequence[BackboneSpec], patterns: Sequence[str]
) -> list[tuple[list[BackboneSpec], list[str]]]:
    """Group the backbones by the taps to extract from them.

    A pattern is as in a sweep: `LAYER[:POOL]`, or `A+B`, with `BACKBONE/` in front if it is of one backbone only. Raises
    `LayerError` if a backbone has no pattern.
    """
    sides = [side for pattern in patterns for side in split_pattern(pattern)]
    specs_by_taps: dict[tuple[str, ...], list[BackboneSpec]] = {}
    for backbone_spec in backbone_specs:
        own_sides = []
        for side in sides:
            named_specs = _find_named_backbones(side, backbone_specs)
            if not named_specs or backbone_spec in named_specs:
                own_sides.append(side.removeprefix(f"{backbone_spec.label}/") if named_specs else side)
        if sides and not own_sides:
            raise LayerError(
                f"-b {backbone_spec.title}: no layer of this backbone is given with -l "
                f"({', '.join(patterns)}); add one, or leave the backbone out"
            )
        specs_by_taps.setdefault(tuple(dict.fromkeys(own_sides)), []).append(backbone_spec)
    return [(backbone_group, list(taps)) for taps, backbone_group in specs_by_taps.items()]


def _find_named_backbones(side: str, backbone_specs: Sequence[BackboneSpec]) -> list[BackboneSpec]:
    """Return the backbones named by a side of a pattern; [] if it names none and so applies to all."""
    return [backbone_spec for backbone_spec in backbone_specs if side.startswith(f"{backbone_spec.label}/")]


def _check_one_size(backbone_specs: Sequence[BackboneSpec], config: SweepConfig) -> None:
    """Raise `ModelError` if heads would span backbones of several image sizes, before anything is computed.

    The input size of a model file is only known later; the export then raises the error.
    """
    sizes = {each.image_size or each.info.image_size for each in backbone_specs} - {None}
    if len(sizes) < 2:
        return
    options = ["--concatenate"] if config.concatenate else []
    options += [f"--head {head_grid.family.name}" for head_grid in config.head_grids if head_grid.family.uses_all_taps]
    for pattern in to_tuple(config.layers):
        titles = {
            backbone_spec.title
            for side in split_pattern(pattern)
            for backbone_spec in _find_named_backbones(side, backbone_specs)
        }
        options += [f"-l {pattern}"] if len(titles) > 1 else []
    if options:
        raise ModelError(
            f"{options[0]}: the backbones have several image sizes, but the exported model has one input; "
            "give --image-size, or use `humeris sweep --extract`"
        )


def collect_taps(extract_results: Sequence[ExtractResult]) -> set[tuple[str, Tap]]:
    """Return (spec digest, tap) of everything extracted."""
    return {(result.metadata.spec.digest, tap) for result in extract_results for tap in result.taps}
