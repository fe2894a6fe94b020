"""Export a trial as one model, which is checked in a fresh process before it is published."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.atomic_files import make_folder, translate_write_errors
from ...cache.atomic_files import publish as publish_file
from ...cache.store import Store
from ...extract.backbones.backbone_spec import BackboneSpec
from ..runs.run import Run
from . import provenance, publish
from .check_model import check_model
from .export_result import ExportResult
from .export_source import ExportSource
from .export_target import ALTERNATIVE, ExportTarget
from .formats.format import explain_write_errors
from .model_card import render_model_card
from .model_metadata import ModelMetadata


def export(
    run: Run,
    store: Store,
    out: Path | str,
    *,
    trial: str | None = None,
    format: str | None = None,  # noqa: A002  # as Keras's own `Model.export` calls it
    precision: str = "float32",
    backbone_specs: Sequence[BackboneSpec] = (),
    command: str = "",
) -> ExportResult:
    """Write the head of a trial, stacked on its backbone, as one model, and a model card beside it.

    The model is run in a fresh process on up to 64 of the run's test images (256 for ``int8``); its predictions must agree
    with those from the cached features.

    Parameters
    ----------
    run : Run
        A finished run.
    store : Store
        The cache that the run was computed with.
    out : Path or str
        Path of the model. An exported model that is already there is replaced.
    trial : str, optional
        First digits of the trial's id; the best trial by default.
    format : str, optional
        ``keras``, ``savedmodel``, ``onnx``, ``litert`` or a registered format; by default, that of the suffix of `out`.
    precision : str
        Precision of the weights: ``float32``, ``float16`` or ``int8``, if the format supports it.
    backbone_specs : sequence of BackboneSpec
        Backbones whose files were moved, with their new paths.
    command : str
        Command to quote in the model card; by default, one that exports the same model.

    Returns
    -------
    ExportResult
        The model, its model card and its agreement with the cache.

    Raises
    ------
    ParityError
        If the model does not agree with the cache. Nothing is written then, and an older model is kept.
    ModelError
        If `out` is taken by something else, the format does not support the model, or the backbone has changed.
    RunError
        If there is no such trial, or its features are no longer cached.
    DataError
        If an image that is needed is missing or has changed.

    Examples
    --------
    >>> export(run, store, "flowers.onnx", precision="float16")  # doctest: +SKIP
    """
    target = ExportTarget.create(Path(out), format, precision)
    publish.remove_stale_drafts(target.path, target.format.suffix)
    source = ExportSource.load(run, store, trial, backbone_specs)
    model = source.build_model(backbone_specs)
    calibration = source.load_calibration_images() if target.precision.needs_calibration else None
    folder = target.path.absolute().parent
    make_folder(folder, ALTERNATIVE)
    temp_path = target.make_temp_path()
    try:
        _write_model(target, temp_path, model, source.build_metadata(precision), calibration)
        parity, milliseconds = check_model(temp_path, target.format, target.precision, source)
        metadata = target.format.read_metadata(temp_path)
        with translate_write_errors(target.path, ALTERNATIVE):
            publish.move_into_place(temp_path, target.path)
    finally:
        publish.remove(temp_path)
    sha256 = provenance.compute_digest(target.path)
    result = ExportResult(
        path=target.path,
        card=target.card_path,
        format=target.format,
        precision=precision,
        activations=metadata.activations if metadata else "",
        trial=source.trial,
        parity=parity,
        milliseconds=milliseconds,
        bytes=publish.get_size(target.path),
        sha256=sha256,
        trusted=provenance.remember(store, sha256) or not target.format.runs_code,
    )
    card = render_model_card(
        result, run, source.score, source.records, list(source.specs.values()), command or _build_command(run, store, result)
    )
    publish_file(card.encode("utf-8", "replace"), result.card, folder, 0o644, ALTERNATIVE)
    return result


def _write_model(
    target: ExportTarget, temp_path: Path, model: Any, metadata: ModelMetadata, calibration: np.ndarray | None
) -> None:
    """Write the model to `temp_path`; converters raise errors of their own types, also if the disk is full."""
    with explain_write_errors(target.path, target.format.name), translate_write_errors(target.path, ALTERNATIVE):
        target.format.write(model, temp_path, metadata, target.precision.name, calibration)


def _build_command(run: Run, store: Store, result: ExportResult) -> str:
    """Return a command that exports the same model."""
    words = ["humeris", "export", run.path, "-o", result.path, "-f", result.format.name, "--precision", result.precision]
    return shlex.join(map(str, [*words, "--trial", result.trial.id, "--cache", store.path]))
