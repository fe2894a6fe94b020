"""Everything at once: images -> features -> run -> model and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.errors import DataError, LayerError, ModelError
from ..cache.store import Store
from ..extract.backbones.backbone_spec import BackboneSpec
from ..extract.backbones.taps import Tap
from ..extract.engine.extract import ExtractResult, extract_all
from ..extract.engine.multi_device import ExtractJob, extract_on_devices
from ..extract.images.images import Images
from ..extract.images.load import Progress
from ..extract.pixels.augment import Policy
from .data.select_features import split_pattern
from .data.splits import split
from .data.views import Views
from .export.export import export
from .export.export_result import ExportResult
from .heads.head_grid import HeadGrid
from .report.page import ReportResult, write_report
from .runs.run import Run
from .sweep.sweep import sweep

ProgressFactory = Callable[[str], Progress]


@dataclass(frozen=True)
class PipelineResult:
    """What became of the images, what each backbone cost, the run, the model, and the page about it."""

    images: Images
    extract_results: list[ExtractResult]
    run: Run
    export_result: ExportResult
    report_result: ReportResult

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "data": self.images.summarize(),
            "extracted": [result.to_dict() for result in self.extract_results],
            **self.run.summarize(),
            "exported": self.export_result.to_dict(),
            "reported": self.report_result.to_dict(),
        }


def run(
    images: Images,
    backbone_specs: Sequence[BackboneSpec],
    patterns: Sequence[str],
    head_grids: Sequence[HeadGrid],
    store: Store,
    *,
    pools: Sequence[str] = (),
    batch_size: int = 32,
    concatenate: bool = False,
    views: Views | None = None,
    select: str | None = None,
    out: Path | None = None,
    model: Path | None = None,
    seed: int = 0,
    jobs: int | None = None,
    command: str = "",
    progress: ProgressFactory | None = None,
) -> PipelineResult:
    """Extract the taps of every backbone, sweep the heads over them, export the winner, and write the report.

    `progress` gives the callback of a named stage. The labels are checked before anything is computed. The model is
    written into the run's folder unless `model` says where. Raises what the three stages raise.
    """
    split(images, select)
    _check_one_size(backbone_specs, patterns, head_grids, concatenate)
    extract_results = extract_taps(
        images,
        backbone_specs,
        patterns,
        store,
        pools=pools,
        batch_size=batch_size,
        views=views,
        jobs=jobs,
        progress=progress,
    )
    images = extract_results[-1].images
    finished_run = sweep(
        images,
        store,
        head_grids,
        patterns=patterns,
        only_taps=collect_taps(extract_results),
        concatenate=concatenate,
        views=views,
        select=select,
        out=out,
        seed=seed,
        jobs=jobs,
        command=command,
        progress=progress("heads") if progress else None,
    )
    export_result = export(
        finished_run, store, model or finished_run.path / "model.keras", backbone_specs=backbone_specs, command=command
    )
    return PipelineResult(
        images, extract_results, finished_run, export_result, write_report([finished_run.path], cache=store.path)
    )


def extract_taps(
    images: Images,
    backbone_specs: Sequence[BackboneSpec],
    patterns: Sequence[str],
    store: Store,
    *,
    pools: Sequence[str] = (),
    batch_size: int = 32,
    views: Views | None = None,
    jobs: int | None = None,
    progress: ProgressFactory | None = None,
) -> list[ExtractResult]:
    """Fill the cache with every tap that a sweep's `patterns` name, as `group_backbones_by_taps` orders them.

    Raises as `extract_all`.
    """
    if images.feature_file is not None:
        raise DataError(f"{images.feature_file.path}: expected images to extract features of, found a file of features")
    views = views or Views()
    results: list[ExtractResult] = []
    for backbone_group, taps in group_backbones_by_taps(backbone_specs, patterns):
        results += extract_all(
            images,
            backbone_group,
            taps,
            store,
            pools=pools,
            views=views.count,
            policy=views.parsed_policy,
            batch_size=batch_size,
            jobs=jobs,
            progress=progress,
        )
        images = results[-1].images
    for result in results:
        result.images = images
    return results


def extract_taps_on_devices(
    devices: Sequence[str],
    data: Path,
    limit: int | None,
    backbone_specs: Sequence[BackboneSpec],
    patterns: Sequence[str],
    cache: Path,
    *,
    pools: Sequence[str] = (),
    batch_size: int = 32,
    views: Views | None = None,
    jobs: int | None = None,
    progress: ProgressFactory,
) -> list[list[ExtractResult]]:
    """What a worker on each of `devices` did of `extract_taps`, in order; [] without any. Raises as `run_extract_job`."""
    if not devices:
        return []
    options: dict[str, Any] = {"pools": pools, "batch_size": batch_size}
    if views is not None:
        options |= {"views": views.count, "policy": Policy.parse(views.policy)}
    extract_jobs = [
        ExtractJob(data, limit, backbone_group, taps, cache, options)
        for backbone_group, taps in group_backbones_by_taps(backbone_specs, patterns)
    ]
    return extract_on_devices(devices, extract_jobs, jobs, progress)


def group_backbones_by_taps(
    backbone_specs: Sequence[BackboneSpec], patterns: Sequence[str]
) -> list[tuple[list[BackboneSpec], list[str]]]:
    """The backbones with the taps to extract of each, those of the same taps together.

    A pattern is as a sweep takes it: `LAYER[:POOL]`, or `A+B`, with `BACKBONE/` before what is of one backbone only. Raises
    `LayerError` where nothing is asked of a backbone.
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
                f"-b {backbone_spec.title}: expected a layer of it with -l, found none among {', '.join(patterns)}"
            )
        specs_by_taps.setdefault(tuple(dict.fromkeys(own_sides)), []).append(backbone_spec)
    return [(backbone_group, list(taps)) for taps, backbone_group in specs_by_taps.items()]


def _find_named_backbones(side: str, backbone_specs: Sequence[BackboneSpec]) -> list[BackboneSpec]:
    """The backbones that a side names, [] where it names none and is of all."""
    return [backbone_spec for backbone_spec in backbone_specs if side.startswith(f"{backbone_spec.label}/")]


def _check_one_size(
    backbone_specs: Sequence[BackboneSpec], patterns: Sequence[str], head_grids: Sequence[HeadGrid], concatenate: bool
) -> None:
    """Raise `ModelError` where heads over networks of several image sizes are asked for, before anything is computed.

    The size of a file's input is found out later; the export then says the same.
    """
    sizes = {each.image_size or each.info.image_size for each in backbone_specs} - {None}
    if len(sizes) < 2:
        return
    options = ["--concatenate"] if concatenate else []
    options += [f"--head {head_grid.family.name}" for head_grid in head_grids if head_grid.family.uses_all_taps]
    for pattern in patterns:
        titles = {
            backbone_spec.title
            for side in split_pattern(pattern)
            for backbone_spec in _find_named_backbones(side, backbone_specs)
        }
        options += [f"-l {pattern}"] if len(titles) > 1 else []
    if options:
        raise ModelError(
            f"{options[0]} with backbones of several image sizes: expected one, since the model that `run` ends with has "
            "one input; give --image-size, or use `humeris sweep --extract`"
        )


def collect_taps(extract_results: Sequence[ExtractResult]) -> set[tuple[str, Tap]]:
    """(spec digest, tap) of everything extracted."""
    return {(result.metadata.spec.digest, tap) for result in extract_results for tap in result.taps}
