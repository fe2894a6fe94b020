"""Which cached features a sweep is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...cache.errors import DataError, LayerError, RunError
from ...cache.extraction import Extraction
from ...cache.store import Store
from ...cache.tap_features import Features
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.taps import Tap
from ...extract.engine.non_finite import NotFinite, images_at_fault
from ...extract.images.dataset import Refusal
from ...extract.images.feature_file import FeatureFile, FileRows
from ...extract.images.load import Images
from ..evaluate.trial import Source
from .cached_taps import Candidate, Shelf, candidates, check_asked, one_of, titles
from .feature_matrix import Matrix, Stored
from .views import Shown, Viewed, Views


@dataclass(frozen=True)
class Found:
    """Sources that hold every image, by backbone and depth, and those left out, each with the images it lacks.

    With views a source holds an image that has a row in every one of them, but for those that were not finite.

    inputs: what heads are trained on, each one or more of the sources side by side.
    depth: share of the forward pass spent up to each source, where it is known.
    not_finite: mask (n,) of images to be refused, because some source has no finite row of them.
    """

    complete: dict[Source, Stored]
    inputs: list[tuple[Source, ...]]
    depth: dict[Source, float | None]
    left_out: dict[Source, int]
    not_finite: np.ndarray

    def finite(self, images: Images) -> Images:
        """The images (n,) without those to be refused."""
        names = [images.used[row].name for row in np.nonzero(self.not_finite)[0]]
        return images.without({name: Refusal(name, "not_finite", "NaN or infinite activations") for name in names})


@dataclass(frozen=True)
class Wanted:
    """What a sweep is over; everything that is cached when nothing is said.

    patterns: taps as `LAYER[:POOL]`, or several side by side as `A+B`, each side one tap, with `BACKBONE/` before it where
    it is in more than one. pools: those of taps that are written without one. only: exactly these, as (spec digest, tap).
    concatenate: also all of them side by side.
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

    @property
    def asked_pools(self) -> Sequence[str]:
        """The pools that decide something, because some tap is written without one or none is written."""
        sides = [side for text in self.patterns for side in text.split("+")]
        return self.pools if not sides or not all(":" in side for side in sides) else ()


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
    cached = candidates(store, wanted.requests, wanted.only)
    pools = wanted.asked_pools
    check_asked(cached, wanted.single, pools)
    sums = [[one_of(cached, side, sides, pools) for side in sides] for sides in wanted.sums] if cached else []
    patterns = wanted.single if wanted.patterns else ["*"]
    alone = [each for each in cached if any(each.named(text, pools) for text in patterns)]
    chosen = [each for each in cached if each in alone or any(each in sides for sides in sums)]
    bad = {each: NotFinite(store.memo, each.extraction.spec).mask(each.tap, keys) for each in chosen}
    excused = images_at_fault(bad.values()) if bad else np.zeros(len(keys), bool)
    found = Found({}, [], {}, {}, excused)
    names = titles([each.extraction for each in chosen])
    called = {}
    for each in chosen:
        folder = each.extraction.name
        source = called[each] = Source(names[folder], folder, each.tap.layer, each.tap.pool)
        stored = _viewed(store, each.extraction, each.features, wanted.views)
        lacking = int((_missing(store, each, stored, keys, wanted.views) & ~excused).sum())
        if lacking == 0:
            found.complete[source], found.depth[source] = stored, each.depth
        elif lacking < len(keys) or bad[each].any() or not each.features.missing(keys).all():
            found.left_out[source] = lacking
    inputs: list[tuple[Source, ...]] = [(called[each],) for each in alone]
    inputs += [tuple(called[each] for each in sides) for sides in sums]
    if wanted.concatenate and len(found.complete) > 1:
        inputs.append(tuple(found.complete))
    found.inputs.extend(taps for taps in dict.fromkeys(inputs) if all(source in found.complete for source in taps))
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


def _missing(store: Shelf, each: Candidate, stored: Stored, keys: np.ndarray, views: Views) -> np.ndarray:
    """Mask (n,) of the images without a plain row or without one of their augmented rows.

    Of an image whose augmented rows were not all finite, the ones that there are will do.
    """
    reader: Any = stored
    lacking = np.array(reader.missing(keys))
    if views.count:
        known = NotFinite(store.memo, replace(each.extraction.spec, views=views.version))
        refused = images_at_fault([known.mask(each.tap, keys)])
        for view in range(1, views.count + 1):
            lacking |= reader.missing(keys, view) & ~refused
    return lacking


def load(store: Shelf, wanted: Sequence[Source], keys: np.ndarray) -> Matrix:
    """The plain views of the images `keys` (n,), the sources side by side; `RunError` when the cache lost them."""
    return Shown.of(stored(store, wanted), keys).features


def stored(store: Shelf, wanted: Sequence[Source], views: Views | None = None) -> list[Stored]:
    """The features of each source, with those of augmented `views`; `RunError` when the cache lost them."""
    extractions = {extraction.name: extraction for extraction in store.extractions()}
    found = []
    for source in wanted:
        if source.extraction not in extractions and isinstance(store, FeatureFile):
            raise RunError(
                f"{store.path}: expected the features that {source} was made from, found others; put the file back as it "
                "was, or run `humeris sweep` on this one"
            )
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
