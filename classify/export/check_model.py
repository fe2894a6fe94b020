"""Check an exported model against the cached predictions of its trial."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ...cache.errors import ParityError
from . import parity
from .export_source import ExportSource
from .formats.format import Format
from .formats.registry import FORMATS
from .formats.weight_precision import WeightPrecision

MAP_TOLERANCE = 1e-3  # whole maps are cached in float16, which alone changes probabilities by about 1e-4


def check_model(
    path: Path, model_format: Format, precision: WeightPrecision, source: ExportSource
) -> tuple[parity.Parity, float]:
    """Run a model in a fresh process and compare its predictions with those from the cache.

    Parameters
    ----------
    path : Path
        The model.
    model_format : Format
        Format of the model.
    precision : WeightPrecision
        Precision of its weights.
    source : ExportSource
        The trial that the model was built from.

    Returns
    -------
    parity : Parity
        Agreement of the predictions.
    milliseconds : float
        Median inference time of one image.

    Raises
    ------
    ParityError
        If they do not agree, or the model cannot be run.
    """
    cached = source.load_cached_predictions(precision.n_parity_images)
    with _explain_half_precision(model_format, source):
        images = source.load_pixels(cached.records)
        predictions, milliseconds = parity.predict_in_subprocess(model_format, path, images)
        if precision.compares_classes:
            return parity.compare_classes(source.target, cached.probabilities, predictions), milliseconds
        has_maps = any(tap_ref.pool == "map" for tap_ref in source.trial.tap_refs)
        tolerance = max(model_format.tolerance, precision.min_tolerance, MAP_TOLERANCE if has_maps else 0.0)
        ties = None
        if cached.features is not None:
            ties = source.head.find_ties(cached.features, tolerance * parity.COSINE_TOLERANCE, tolerance)
        return parity.compare(source.target, cached.probabilities, predictions, tolerance, ties), milliseconds


@contextlib.contextmanager
def _explain_half_precision(model_format: Format, source: ExportSource) -> Iterator[None]:
    """Add to a `ParityError` that the features are in half precision, if they are."""
    try:
        yield
    except ParityError as error:
        half_precisions = ", ".join(sorted({spec.precision for spec in source.specs.values()} - {"float32"}))
        if not half_precisions or not model_format.computes_in_float32:
            raise
        other_formats = " or ".join(other.name for other in FORMATS.values() if not other.computes_in_float32)
        raise ParityError(
            f"the features were computed in {half_precisions}, but {model_format.runtime} computes in float32: {error}, "
            f"or export with -f {other_formats}, or extract and sweep again with --precision float32"
        ) from error
