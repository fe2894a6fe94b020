"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .settings import Settings, take_settings
from .terminal import handle_errors, render, show_progress


@handle_errors
@take_settings("report")
def report(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders; several are compared.")],
    settings: Settings,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Write a self-contained HTML report of one or several runs."""
    from ..classify.api.models import report as write_report
    from ..classify.report import wording
    from ..classify.report.report_config import ReportConfig

    with show_progress(as_json or quiet) as stage:
        result = write_report(run_folders, settings.build(ReportConfig), progress=stage)
    output = {"report": str(result.path), "bytes": result.n_bytes, "left_out": list(result.omissions)}
    return render(output, as_json, quiet, wording.format_report)
