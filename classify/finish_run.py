"""The steps after a run is complete: export its winner, and write its report; none of them can lose the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..cache.store import Store
from ..extract.backbones.backbone_spec import BackboneSpec
from ..extract.images.load import Progress
from .export.export import export
from .export.export_result import ExportResult
from .export.formats.registry import FORMATS
from .report.page import ReportResult, write_report
from .report.report_config import ReportConfig
from .runs.failed_step import FailedStep, collect_failure
from .runs.run import Run


def finish_run(
    run: Run,
    store: Store,
    model: Path | None,
    backbone_specs: Sequence[BackboneSpec],
    report_config: ReportConfig,
    command: str = "",
    progress: Callable[[str], Progress] | None = None,
) -> tuple[ExportResult | None, ReportResult | None, tuple[FailedStep, ...]]:
    """Export the winner of a complete run, and write its report, whatever fails.

    Parameters
    ----------
    run : Run
        The complete run.
    store : Store
        The cache that it was made with.
    model : Path or None
        The file of the model; by default ``model.keras`` in the run's folder.
    backbone_specs : sequence of BackboneSpec
        The requested networks, by which the export finds files of the user.
    report_config : ReportConfig
        How the report is written.
    command : str
        The command line, recorded in the model.
    progress : callable, optional
        Returns the progress callback of a named stage.

    Returns
    -------
    export_result : ExportResult or None
    report_result : ReportResult or None
    failed_steps : tuple of FailedStep
        The steps whose result is None.
    """
    failed_steps: list[FailedStep] = []
    export_result = report_result = None
    path = model or run.path / "model.keras"
    cache = ["--cache", store.path]
    with collect_failure("export", ["humeris", "export", run.path, "-o", _replace_format(path), *cache], failed_steps):
        export_result = export(run, store, path, backbone_specs=backbone_specs, command=command)
    with collect_failure("report", ["humeris", "report", run.path, *cache], failed_steps):
        report_result = write_report(
            [run],
            report_config.page,
            store.path,
            latency=report_config.latency,
            progress=progress("latency") if progress and report_config.latency else None,
        )
    return export_result, report_result, tuple(failed_steps)


def _replace_format(path: Path) -> Path:
    """Return the path of a model in another format: one that fails may be written in that."""
    others = (each for each in FORMATS.values() if each.suffix and each.suffix != path.suffix)
    return path.with_suffix(next(others).suffix)
