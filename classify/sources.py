"""Which cached features a sweep is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cache.errors import DataError, RunError
from ..cache.extraction import Extraction
from ..cache.features import Features
from ..cache.spec import Spec
from ..cache.store import Store
from ..extract.backbone import file_architecture
from ..extract.request import Request
from ..extract.taps import Tap, matches
from .trial import Source


@dataclass(frozen=True)
class Found:
    """Sources that hold every image, and those left out, each with the number of images they lack."""

    complete: dict[Source, Features]
    left_out: dict[Source, int]


def find(
    store: Store, keys: np.ndarray, requests: Sequence[Request], patterns: Sequence[str], pools: Sequence[str] = ()
) -> Found:
    """The cached features of the images `keys` (n,), of the backbones and layers asked for (all when none is named).

    By backbone, then by depth. Sources that hold none of the images belong to other data and are passed over. Raises
    `DataError` when nothing is left.
    """
    complete: dict[Source, Features] = {}
    left_out: dict[Source, int] = {}
    for extraction in store.extractions():
        if requests and not any(_is(extraction.spec, request) for request in requests):
            continue
        for features in _by_depth(extraction):
            tap = Tap(features.layer, features.pool)
            if (pools and tap.pool not in pools) or (patterns and not any(matches(text, tap) for text in patterns)):
                continue
            lacking = int(features.missing(keys).sum())
            source = Source(extraction.spec.title, extraction.path.name, tap.layer, tap.pool)
            if lacking == 0:
                complete[source] = features
            elif lacking < len(keys):
                left_out[source] = lacking
    if not complete:
        asked = " ".join([*(f"-b {request.title}" for request in requests), *(f"-l {text}" for text in patterns)])
        found = ", ".join(f"{source} lacks {lacking}" for source, lacking in left_out.items()) or "none"
        raise DataError(
            f"{store.path}: expected cached features of these {len(keys)} images"
            f"{' for ' + asked if asked else ''}, found {found}; run `humeris extract` on the same data first"
        )
    return Found(complete, left_out)


def load(store: Store, wanted: Sequence[Source], keys: np.ndarray) -> np.ndarray:
    """Rows (n, d) float32 of the sources side by side; raises `RunError` when the cache no longer has them."""
    extractions = {extraction.path.name: extraction for extraction in store.extractions()}
    for source in wanted:
        if source.extraction not in extractions:
            raise RunError(
                f"{store.path}: expected the extraction {source.extraction}, found it gone; "
                f"run `humeris extract` with -b {source.backbone} -l {source.layer}:{source.pool} again"
            )
    parts = [rows(extractions[source.extraction].features(source.layer, source.pool), keys) for source in wanted]
    return parts[0] if len(parts) == 1 else np.hstack(parts)


def rows(features: Features, keys: np.ndarray) -> np.ndarray:
    """Rows (n, d) float32, maps flattened in row-major order."""
    return features.read(keys).reshape(len(keys), -1).astype(np.float32, copy=False)


def _by_depth(extraction: Extraction) -> list[Features]:
    order = {layer["name"]: number for number, layer in enumerate(extraction.attached("layers") or [])}
    return sorted(extraction.taps(), key=lambda features: (order.get(features.layer, 0), features.pool))


def depth(store: Store, source: Source) -> float | None:
    """The share of the network's forward cost that is spent when `source` is computed; None where it is not known."""
    for extraction in store.extractions():
        if extraction.path.name == source.extraction and (layers := extraction.attached("layers")):
            costs = {layer["name"]: layer["cost"] for layer in layers}
            return float(round(costs[source.layer] / max(1, *costs.values()), 4))
    return None


def _is(spec: Spec, request: Request) -> bool:
    """Whether an extraction was made as asked; what the request leaves open is not compared."""
    if request.file is not None:
        same = spec.architecture == file_architecture(request.file)
    else:
        same = spec.backbone == request.name and dict(spec.arguments) == dict(request.arguments)
        same = same and spec.weights in {request.weights, f"random, seed {request.seed}", _absolute(request.weights)}
        same = same and (spec.weights.startswith("random") == (request.weights == "random"))
    return same and request.image_size in {None, spec.image_size} and request.preprocessing in {None, spec.preprocessing}


def _absolute(path: str) -> str:
    return str(Path(path).absolute())
