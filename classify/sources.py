"""Which cached features a sweep is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..cache.errors import DataError, LayerError, RunError
from ..cache.extraction import Extraction
from ..cache.features import Features
from ..cache.store import Store
from ..extract.card import recall
from ..extract.feature_file import FeatureFile, FileRows
from ..extract.not_finite import NotFinite, images_at_fault
from ..extract.request import Request
from ..extract.taps import Tap, closest, matches
from .matrix import Matrix, Part
from .trial import Source

Shelf = Store | FeatureFile  # where features are
Candidate = tuple[Extraction | FeatureFile, Features | FileRows]


@dataclass(frozen=True)
class Found:
    """Sources that hold every image, by backbone and depth, and those left out, each with the images it lacks.

    depth: share of the forward pass spent up to each source, where it is known.
    not_finite: mask (n,) of images to be refused, because some source has no finite row of them.
    """

    complete: dict[Source, Features | FileRows]
    depth: dict[Source, float | None]
    left_out: dict[Source, int]
    not_finite: np.ndarray


def find(
    store: Shelf,
    keys: np.ndarray,
    requests: Sequence[Request] = (),
    patterns: Sequence[str] = (),
    pools: Sequence[str] = (),
    only: Collection[tuple[str, Tap]] | None = None,
) -> Found:
    """The cached features of the images `keys` (n,), of the backbones, layers and pools asked for (all when none is named).

    `only` names them exactly instead, as (spec digest, tap). Sources that hold none of the images belong to other data
    and are passed over. Raises `DataError` or `LayerError` where something asked for is not there.
    """
    candidates = _candidates(store, requests, only)
    chosen = [
        (extraction, features)
        for extraction, features in candidates
        if (not patterns or any(matches(text, _tap(features)) for text in patterns))
        and (not pools or features.pool in pools)
    ]
    _check_asked(candidates, patterns, pools)
    bad = {features: NotFinite(store.memo, extraction.spec).mask(_tap(features), keys) for extraction, features in chosen}
    excused = images_at_fault(bad.values()) if bad else np.zeros(len(keys), bool)
    complete: dict[Source, Features | FileRows] = {}
    left_out: dict[Source, int] = {}
    depth: dict[Source, float | None] = {}
    names = _names([extraction for extraction, _ in chosen])
    for extraction, features in chosen:
        source = Source(names[extraction.path.name], extraction.path.name, features.layer, features.pool)
        missing = features.missing(keys)
        lacking = int((missing & ~excused).sum())
        if lacking == 0:
            complete[source], depth[source] = features, _depth(extraction, features.layer)
        elif lacking < len(keys) or bad[features].any():
            left_out[source] = lacking
    if not complete:
        asked = "".join([*(f" -b {request.title}" for request in requests), *(f" -l {text}" for text in patterns)])
        found = ", ".join(f"{source} lacks {lacking}" for source, lacking in left_out.items()) or "none"
        raise DataError(
            f"{store.path}: expected cached features of these {len(keys)} images{asked and ' for' + asked}, found {found}; "
            "run `humeris extract` on the same data first"
        )
    return Found(complete, depth, left_out, excused)


def load(store: Shelf, wanted: Sequence[Source], keys: np.ndarray) -> Matrix:
    """The features of the images `keys` (n,), those of the sources side by side; `RunError` when the cache lost them."""
    extractions = {extraction.path.name: extraction for extraction in store.extractions()}
    for source in wanted:
        if source.extraction not in extractions:
            raise RunError(
                f"{store.path}: expected the extraction {source.extraction}, found it gone; "
                f"run `humeris extract` with -b {source.backbone} -l {source.layer}:{source.pool} again"
            )
    return matrix([extractions[source.extraction].features(source.layer, source.pool) for source in wanted], keys)


def matrix(stored: Sequence[Features | FileRows], keys: np.ndarray) -> Matrix:
    """The plain views of the images `keys` (n,), nothing of them read yet but one row."""
    return Matrix.stored([Part(each, keys, np.zeros(len(keys), np.intp)) for each in stored])


def _tap(features: Features | FileRows) -> Tap:
    return Tap(features.layer, features.pool)


def _candidates(store: Shelf, requests: Sequence[Request], only: Collection[tuple[str, Tap]] | None) -> list[Candidate]:
    """Every cached tap of the extractions asked for, of the plain view."""
    extractions: list[Extraction | FeatureFile] = [each for each in store.extractions() if each.spec.views == "plain"]
    if requests and isinstance(store, FeatureFile):
        raise DataError(f"{store.path}: its features are of one network, found -b {requests[0].title}; leave -b out")
    if requests:
        digests = {}
        for request in requests:
            card = recall(request, store.memo)
            digests[card.spec.digest if card else ""] = request
        cached = {extraction.spec.digest for extraction in extractions}
        for digest, request in digests.items():
            if digest not in cached:
                raise DataError(
                    f"{store.path}: expected cached features of -b {request.title}, found none made so; "
                    "run `humeris extract` with the same -b first"
                )
        extractions = [extraction for extraction in extractions if extraction.spec.digest in digests]
    return [
        (extraction, features)
        for extraction in extractions
        for features in extraction.taps()
        if only is None or (extraction.spec.digest, _tap(features)) in only
    ]


def _check_asked(candidates: Sequence[Candidate], patterns: Sequence[str], pools: Sequence[str]) -> None:
    taps = [_tap(features) for _, features in candidates]
    for text in patterns if taps else ():
        if not any(matches(text, tap) for tap in taps):
            names = ", ".join(closest(text.partition(":")[0], [str(tap) for tap in taps]))
            raise LayerError(
                f"layer {text!r}: expected a cached tap, found none; closest: {names}; "
                f"run `humeris extract` with -l {text} first"
            )
    for pool in pools if taps else ():
        if not any(tap.pool == pool for tap in taps):
            there = ", ".join(sorted({tap.pool for tap in taps}))
            raise LayerError(
                f"pool {pool!r}: expected a cached pool ({there}), found none; run `humeris extract` with it first"
            )


def _names(extractions: Sequence[Extraction | FeatureFile]) -> dict[str, str]:
    """What to call each extraction (by folder): its title, with image size and digest where others have the same."""
    specs = {extraction.path.name: extraction.spec for extraction in extractions}
    sizes = {folder: f",image_size={spec.image_size[0]}x{spec.image_size[1]}" for folder, spec in specs.items()}
    digests = {folder: f" ({spec.digest[:8]})" for folder, spec in specs.items()}
    names = {folder: spec.title for folder, spec in specs.items()}
    for suffix in (sizes, digests):
        count = Counter(names.values())
        names = {folder: name + suffix[folder] if count[name] > 1 else name for folder, name in names.items()}
    return names


def _depth(extraction: Extraction | FeatureFile, layer: str) -> float | None:
    """The share of the network's forward cost that is spent when `layer` is computed; None where it is not known."""
    costs = {item["name"]: item["cost"] for item in extraction.layers}
    return round(costs[layer] / max(1, *costs.values()), 4) if layer in costs else None
