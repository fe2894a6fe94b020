"""Which cached features a sweep is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
from .matrix import Matrix, Stored
from .trial import Source
from .views import Shown, Viewed, Views

Shelf = Store | FeatureFile  # where features are
Candidate = tuple[Extraction | FeatureFile, Features | FileRows]


@dataclass(frozen=True)
class Found:
    """Sources that hold every image, by backbone and depth, and those left out, each with the images it lacks.

    inputs: what heads are trained on, each one or more of the sources side by side.
    depth: share of the forward pass spent up to each source, where it is known.
    not_finite: mask (n,) of images to be refused, because some source has no finite row of them.
    """

    complete: dict[Source, Stored]
    inputs: list[tuple[Source, ...]]
    depth: dict[Source, float | None]
    left_out: dict[Source, int]
    not_finite: np.ndarray


@dataclass(frozen=True)
class Wanted:
    """What a sweep is over; everything that is cached when nothing is said.

    patterns: taps as `LAYER[:POOL]`, or several side by side as `A+B`, each side one tap, with `BACKBONE/` before it where
    it is in more than one. only: exactly these, as (spec digest, tap). concatenate: also all of them side by side.
    """

    requests: Sequence[Request] = ()
    patterns: Sequence[str] = ()
    pools: Sequence[str] = ()
    only: Collection[tuple[str, Tap]] | None = None
    concatenate: bool = False
    views: Views = field(default_factory=Views)

    @property
    def sums(self) -> list[list[str]]:
        """The sides of each pattern `A+B`."""
        return [sides_of(text) for text in self.patterns if "+" in text]

    @property
    def single(self) -> list[str]:
        """The patterns of taps that are taken alone."""
        return [text for text in self.patterns if "+" not in text]


def sides_of(pattern: str) -> list[str]:
    """The sides of `A+B`; raises `LayerError`."""
    sides = [side.strip() for side in pattern.split("+")]
    if not all(sides) or len(set(sides)) < len(sides):
        raise LayerError(f"layer {pattern!r}: expected different taps to put side by side, as in mixed4+mixed7:max")
    return sides


def find(store: Shelf, keys: np.ndarray, wanted: Wanted) -> Found:
    """The cached features of the images `keys` (n,), of the backbones, layers and pools asked for.

    Sources that hold none of the images belong to other data and are passed over. Raises `DataError` or `LayerError` where
    something asked for is not there.
    """
    candidates = _candidates(store, wanted)
    _check_asked(candidates, wanted.single, wanted.pools)
    pooled = [each for each in candidates if not wanted.pools or each[1].pool in wanted.pools]
    sums = [[_one_of(pooled, side, sides) for side in sides] for sides in wanted.sums] if candidates else []
    alone = [each for each in pooled if any(_names_it(text, each) for text in wanted.single) or not wanted.patterns]
    chosen = [each for each in pooled if each in alone or any(each in sides for sides in sums)]
    bad = {features: NotFinite(store.memo, extraction.spec).mask(_tap(features), keys) for extraction, features in chosen}
    excused = images_at_fault(bad.values()) if bad else np.zeros(len(keys), bool)
    found = Found({}, [], {}, {}, excused)
    names = _names([extraction for extraction, _ in chosen])
    called = {
        features: Source(names[extraction.path.name], extraction.path.name, features.layer, features.pool)
        for extraction, features in chosen
    }
    for extraction, features in chosen:
        source, stored = called[features], _viewed(store, extraction, features, wanted.views)
        lacking = int((_missing(stored, keys, wanted.views) & ~excused).sum())
        if lacking == 0:
            found.complete[source], found.depth[source] = stored, _depth(extraction, features.layer)
        elif lacking < len(keys) or bad[features].any() or not features.missing(keys).all():
            found.left_out[source] = lacking
    inputs: list[tuple[Source, ...]] = [(called[features],) for _, features in alone]
    inputs += [tuple(called[features] for _, features in sides) for sides in sums]
    if wanted.concatenate and len(found.complete) > 1:
        inputs.append(tuple(found.complete))
    found.inputs.extend(each for each in dict.fromkeys(inputs) if all(source in found.complete for source in each))
    if not found.inputs:
        raise DataError(_nothing(store, len(keys), wanted, found.left_out))
    return found


def _nothing(store: Shelf, count: int, wanted: Wanted, left_out: Mapping[Source, int]) -> str:
    views = wanted.views
    asked = [f" -b {request.title}" for request in wanted.requests] + [f" -l {text}" for text in wanted.patterns]
    asked += [f" --views {views.count} --augment {views.policy}"] if views.count else []
    found = ", ".join(f"{source} lacks {lacking}" for source, lacking in left_out.items()) or "none"
    return (
        f"{store.path}: expected cached features of these {count} images{' for' if asked else ''}{''.join(asked)}, "
        f"found {found}; run `humeris extract` on the same data first{', with the same views' if views.count else ''}"
    )


def _missing(stored: Stored, keys: np.ndarray, views: Views) -> np.ndarray:
    """Mask (n,) of the images without a plain row; all of them where there should be augmented rows and is none."""
    reader: Any = stored
    if views.count and all(reader.missing(keys, view).all() for view in range(1, views.count + 1)):
        return np.ones(len(keys), bool)
    return np.asarray(reader.missing(keys))


def _names_it(text: str, candidate: Candidate) -> bool:
    """Whether `text`, `[BACKBONE/]LAYER[:POOL]`, names a cached tap; a glob may name several."""
    extraction, features = candidate
    spec = extraction.spec
    size = f"{spec.title},image_size={spec.image_size[0]}x{spec.image_size[1]}"
    called = [f"{name}/" for name in (size, spec.title) if text.startswith(f"{name}/")]
    return any(matches(each, _tap(features)) for each in [text, *(text.removeprefix(name) for name in called)])


def _one_of(candidates: Sequence[Candidate], side: str, sides: Sequence[str]) -> Candidate:
    """The cached tap that one side of a concatenation names; raises `LayerError` unless it is one."""
    found = [each for each in candidates if _names_it(side, each)]
    if len(found) != 1:
        names = _names([extraction for extraction, _ in candidates])
        listed = [f"{names[extraction.path.name]}/{_tap(features)}" for extraction, features in found or candidates]
        several = f"{len(found)}: {', '.join(listed[:5])}; write one of them"
        none = f"none; closest: {', '.join(closest(side.partition(':')[0], listed))}"
        raise LayerError(f"layer {side!r} of {'+'.join(sides)}: expected one cached tap, found {several if found else none}")
    return found[0]


def load(store: Shelf, wanted: Sequence[Source], keys: np.ndarray) -> Matrix:
    """The plain views of the images `keys` (n,), the sources side by side; `RunError` when the cache lost them."""
    return Shown.of(stored(store, wanted), keys).features


def stored(store: Shelf, wanted: Sequence[Source], views: Views | None = None) -> list[Stored]:
    """The features of each source, with those of augmented `views`; `RunError` when the cache lost them."""
    extractions = {extraction.path.name: extraction for extraction in store.extractions()}
    found = []
    for source in wanted:
        if source.extraction not in extractions:
            raise RunError(
                f"{store.path}: expected the extraction {source.extraction}, found it gone; "
                f"run `humeris extract` with -b {source.backbone} -l {source.layer}:{source.pool} again"
            )
        extraction = extractions[source.extraction]
        found.append(_viewed(store, extraction, extraction.features(source.layer, source.pool), views or Views()))
    return found


def matrix(wanted: Sequence[Stored], keys: np.ndarray) -> Matrix:
    """The plain views of the images `keys` (n,), nothing of them read yet but one row."""
    return Shown.of(wanted, keys).features


def _viewed(store: Shelf, extraction: Extraction | FeatureFile, features: Features | FileRows, views: Views) -> Stored:
    """The rows of a tap, with those of its augmented views."""
    if not views.count:
        return features
    if not isinstance(store, Store):
        raise DataError(f"{store.path}: expected images, which have views, found a file of features; leave --views out")
    augmented = store.extraction(replace(extraction.spec, views=views.version))
    return Viewed(features, augmented.features(features.layer, features.pool))


def _tap(features: Features | FileRows) -> Tap:
    return Tap(features.layer, features.pool)


def _candidates(store: Shelf, wanted: Wanted) -> list[Candidate]:
    """Every cached tap of the extractions asked for, of the plain view."""
    requests, only = wanted.requests, wanted.only
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
        if not any(_names_it(text, each) for each in candidates):
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
