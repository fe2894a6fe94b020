"""The commands `export` and `predict`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..cache.formatting import to_utf8
from . import options
from .terminal import build_cache_options, get_command_line, handle_errors, render

if TYPE_CHECKING:
    from ..classify.export.predict import Prediction


@handle_errors
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", envvar="HUMERIS_OUT", help="The model file: NAME.keras, NAME.onnx, NAME.tflite, or a folder."
        ),
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            envvar="HUMERIS_EXPORT_FORMAT",
            help="keras, savedmodel, onnx or litert.",
            show_default="from the suffix of -o",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            envvar="HUMERIS_EXPORT_PRECISION", help="Precision of the weights: float32, float16 or int8 (onnx, litert)."
        ),
    ] = "float32",
    trial: Annotated[
        str | None, typer.Option(envvar="HUMERIS_TRIAL", help="Id of a trial in leaderboard.csv.", show_default="the winner")
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone",
            "-b",
            metavar="NAME[,key=value]",
            help="A backbone at its new path, if its file was moved. Repeatable.",
        ),
    ] = None,
    cache: options.CacheFolder = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Export a head stacked on its backbone as one model, checked against the cached features."""
    from ..classify.api.models import export as run_export
    from .render import classify

    result = run_export(
        run_folder, out, trial=trial, format=form, precision=precision, backbones=backbone or (), cache=cache,
        command=get_command_line(),
    )  # fmt: skip
    return render(
        {"exported": result.to_dict()},
        as_json,
        quiet,
        classify.format_export,
        ["predict", result.path, "IMAGES", *build_cache_options(cache)],
    )


@handle_errors
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model exported by humeris.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES…", help="Image files or folders.")],
    top: Annotated[int, typer.Option(envvar="HUMERIS_TOP", min=1, help="Number of classes per image.")] = 1,
    form: Annotated[
        str | None, typer.Option("--format", "-f", envvar="HUMERIS_FORMAT", help="table (default), csv or jsonl.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", envvar="HUMERIS_PREDICTIONS", help="Write to a file instead of standard output."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", envvar="HUMERIS_TRUST", help="Run a SavedModel or LiteRT model that was not exported with this cache."
        ),
    ] = False,
    batch_size: options.BatchSize = 32,
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    as_json: options.Json = False,
) -> int:
    """Classify images with an exported model."""
    from ..classify.export.predict import Predictor, list_image_files
    from .render import classify

    if as_json and form is not None:
        raise typer.BadParameter("give --json or --format, not both", param_hint="--format")
    if form not in {None, "table", "csv", "jsonl"}:
        raise typer.BadParameter(f"must be table, csv or jsonl, not {form!r}", param_hint="--format")
    paths = list_image_files(images)
    predictor = Predictor(model, cache=cache, trust=trust)
    predictions = predictor.predict(paths, top=top, batch_size=batch_size, jobs=jobs)
    n_refused = 0

    def count_refused() -> Iterator[Prediction]:
        nonlocal n_refused
        for prediction in predictions:
            n_refused += bool(prediction.rejection)
            yield prediction

    with out.open("w", encoding="utf-8", errors="surrogateescape") if out else nullcontext(sys.stdout) as file:
        if as_json:
            print(json.dumps(to_utf8({"predictions": [each.to_dict() for each in count_refused()]}), indent=2), file=file)
        else:
            for line in classify.format_predictions(count_refused(), form or "table", min(top, len(predictor.classes))):
                print(line, file=file)
    return 1 if n_refused else 0
