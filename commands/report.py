"""The command of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cache.errors import HumerisError
from . import options
from .terminal import handle_errors, render, show_progress


@handle_errors
def report(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders; several are put side by side.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The page.", show_default="report.html in the first run"),
    ] = None,
    cache: options.CacheFolder = None,
    latency: Annotated[
        bool,
        typer.Option(
            envvar="HUMERIS_LATENCY", help="First measure how long the networks take up to each tap here; loads Keras."
        ),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Write what runs found as one HTML page that needs no network."""
    from ..classify.report import page, wording
    from ..classify.runs.run import Run

    runs = [Run(folder) for folder in run_folders]
    latency_errors: list[str] = []
    if latency:
        from ..classify.diagnose.latency import measure_all

        with show_progress(as_json or quiet) as stage:
            try:
                measure_all(runs, stage("latency"))
            except HumerisError as error:  # the page comes all the same
                latency_errors.append(str(error))
    result = page.write_report(runs, out, cache)
    output = {"report": str(result.path), "bytes": result.n_bytes, "left_out": [*latency_errors, *result.omissions]}
    return render(output, as_json, quiet, wording.format_report)
