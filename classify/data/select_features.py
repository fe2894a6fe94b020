"""Selection of the cached features that a sweep trains on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...cache.errors import DataError, LayerError, RunError
from ...cache.extraction import Extraction
from ...cache.store import Store
from ...cache.tap_features import TapFeatures
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.non_finite import NonFiniteImages, find_faulty_images
from ...extract.backbones.tap_ref import TapRef
from ...extract.backbones.taps import Tap
from ...extract.images.feature_file import FeatureFile, FileRowReader
from ...extract.images.images import Images
from ...extract.images.item import Rejection
from .cached_taps import (
    CachedTap,
    FeatureStore,
    check_patterns_and_pools,
    disambiguate_titles,
    find_one_tap,
    list_cached_taps,
)
from .feature_matrix import FeatureMatrix, RowReader
from .views import ViewReader, ViewRows, Views


@dataclass(frozen=True)
class FeatureSelection:
    """Taps with rows for every image, by backbone and depth, and taps left out, with the number of images they lack.

    With views, an image counts as present if it has a row for every view, except for views that were not finite.

    row_readers: readers of the taps. inputs: what heads are trained on, each one or more of the taps side by side.
    depths: fraction of the forward cost up to each tap, where known. left_out: number of missing images by tap.
    not_finite: mask (n,) of the images to reject, because some tap has no finite row for them.
    """

    row_readers: dict[TapRef, RowReader]
    inputs: list[tuple[TapRef, ...]]
    depths: dict[TapRef, float | None]
    left_out: dict[TapRef, int]
    not_finite: np.ndarray

    def drop_non_finite(self, images: Images) -> Images:
        """Return the images (n,) without those to reject."""
        names = [images.used[row].name for row in np.nonzero(self.not_finite)[0]]
        return images.reject({name: Rejection(name, "not_finite", "NaN or infinite activations") for name in names})


@dataclass(frozen=True)
class FeatureQuery:
    """What a sweep trains on; by default everything that is cached.

    patterns: taps as `LAYER[:POOL]`, or several side by side as `A+B`, each side one tap, with `BACKBONE/` in front if more
    than one backbone has it. pools: pools of the patterns without one. only_taps: exactly these, as (spec digest, tap).
    concatenate: also all of them side by side. views: augmented views to use.
    """

    backbone_specs: Sequence[BackboneSpec] = ()
    patterns: Sequence[str] = ()
    pools: Sequence[str] = ()
    only_taps: Collection[tuple[str, Tap]] | None = None
    concatenate: bool = False
    views: Views = field(default_factory=Views)

    @property
    def concatenations(self) -> list[list[str]]:
        """The sides of each pattern `A+B`."""
        return [split_pattern(pattern) for pattern in self.patterns if "+" in pattern]

    @property
    def single_patterns(self) -> list[str]:
        """The patterns of single taps."""
        return [pattern for pattern in self.patterns if "+" not in pattern]

    @property
    def default_pools(self) -> Sequence[str]:
        """The pools that apply: none if every pattern names its own."""
        sides = [side for pattern in self.patterns for side in pattern.split("+")]
        return self.pools if not sides or not all(":" in side for side in sides) else ()


def split_pattern(pattern: str) -> list[str]:
    """Return the sides of `A+B`; raises `LayerError`."""
    sides = [side.strip() for side in pattern.split("+")]
    if not all(sides) or len(set(sides)) < len(sides):
        raise LayerError(f"layer {pattern!r}: a side is empty or given twice; give different taps, as in mixed4+mixed7:max")
    return sides


def find_features(store: FeatureStore, keys: np.ndarray, query: FeatureQuery) -> FeatureSelection:
    """Find the cached features that match a query.

    Parameters
    ----------
    store : FeatureStore
        The cache, or a feature file.
    keys : ndarray of shape (n,)
        Keys of the images.
    query : FeatureQuery
        Backbones, taps and views.

    Returns
    -------
    FeatureSelection
        The taps that have rows for all images, and those left out. Taps that hold none of the images belong to other data
        and are ignored.

    Raises
    ------
    DataError, LayerError
        If something requested is not cached.
    """
    cached_taps = list_cached_taps(store, query.backbone_specs, query.only_taps)
    pools = query.default_pools
    check_patterns_and_pools(cached_taps, query.single_patterns, pools)
    concatenated_taps = (
        [[find_one_tap(cached_taps, side, sides, pools) for side in sides] for sides in query.concatenations]
        if cached_taps
        else []
    )
    patterns = query.single_patterns if query.patterns else ["*"]
    single_taps = [
        cached_tap for cached_tap in cached_taps if any(cached_tap.matches_pattern(pattern, pools) for pattern in patterns)
    ]
    selected_taps = [
        cached_tap
        for cached_tap in cached_taps
        if cached_tap in single_taps or any(cached_tap in sides for sides in concatenated_taps)
    ]
    non_finite_masks = {
        cached_tap: NonFiniteImages(store.kv_store, cached_tap.extraction.spec).get_mask(cached_tap.tap, keys)
        for cached_tap in selected_taps
    }
    non_finite = find_faulty_images(non_finite_masks.values()) if non_finite_masks else np.zeros(len(keys), bool)
    selection = FeatureSelection({}, [], {}, {}, non_finite)
    names = disambiguate_titles([cached_tap.extraction for cached_tap in selected_taps])
    tap_refs = {}
    for cached_tap in selected_taps:
        folder = cached_tap.extraction.name
        tap_ref = tap_refs[cached_tap] = TapRef(names[folder], folder, cached_tap.tap.layer, cached_tap.tap.pool)
        row_reader = _open_reader(store, cached_tap.extraction, cached_tap.features, query.views)
        n_missing = int((_find_missing(store, cached_tap, row_reader, keys, query.views) & ~non_finite).sum())
        if n_missing == 0:
            selection.row_readers[tap_ref], selection.depths[tap_ref] = row_reader, cached_tap.depth
        elif n_missing < len(keys) or non_finite_masks[cached_tap].any() or not cached_tap.features.find_missing(keys).all():
            selection.left_out[tap_ref] = n_missing
    inputs: list[tuple[TapRef, ...]] = [(tap_refs[cached_tap],) for cached_tap in single_taps]
    inputs += [tuple(tap_refs[cached_tap] for cached_tap in sides) for sides in concatenated_taps]
    if query.concatenate and len(selection.row_readers) > 1:
        inputs.append(tuple(selection.row_readers))
    selection.inputs.extend(
        taps for taps in dict.fromkeys(inputs) if all(tap_ref in selection.row_readers for tap_ref in taps)
    )
    if not selection.inputs:
        raise DataError(_describe_no_match(store, len(keys), query, selection.left_out))
    return selection


def _describe_no_match(store: FeatureStore, count: int, query: FeatureQuery, left_out: Mapping[TapRef, int]) -> str:
    views = query.views
    query_options = [f" -b {backbone_spec.title}" for backbone_spec in query.backbone_specs] + [
        f" -l {pattern}" for pattern in query.patterns
    ]
    query_options += [f" --views {views.count} --augment {views.policy}"] if views.count else []
    coverage = ", ".join(f"{tap_ref} lacks {n_missing}" for tap_ref, n_missing in left_out.items())
    return (
        f"{store.path}: no features of all {count} images are cached"
        f"{' for' if query_options else ''}{''.join(query_options)}{f' ({coverage})' if coverage else ''}; "
        f"run `humeris extract` on the same data first{', with the same views' if views.count else ''}"
    )


def _find_missing(
    store: FeatureStore, cached_tap: CachedTap, row_reader: RowReader, keys: np.ndarray, views: Views
) -> np.ndarray:
    """Return the mask (n,) of images that lack the plain row or an augmented one.

    Augmented rows that were not finite do not count as missing.
    """
    reader: Any = row_reader
    missing_mask = np.array(reader.find_missing(keys))
    if views.count:
        non_finite = NonFiniteImages(store.kv_store, replace(cached_tap.extraction.spec, views=views.version))
        non_finite_mask = find_faulty_images([non_finite.get_mask(cached_tap.tap, keys)])
        for view in range(1, views.count + 1):
            missing_mask |= reader.find_missing(keys, view) & ~non_finite_mask
    return missing_mask


def load_matrix(store: FeatureStore, tap_refs: Sequence[TapRef], keys: np.ndarray) -> FeatureMatrix:
    """Return the plain rows of the images `keys` (n,), taps side by side; raises `RunError` if they are no longer cached."""
    return ViewRows.from_readers(open_readers(store, tap_refs), keys).features


def open_readers(store: FeatureStore, tap_refs: Sequence[TapRef], views: Views | None = None) -> list[RowReader]:
    """Open the features of each tap, with those of augmented `views`; raises `RunError` if they are no longer cached."""
    extractions = {extraction.name: extraction for extraction in store.iter_extractions()}
    row_readers = []
    for tap_ref in tap_refs:
        if tap_ref.extraction not in extractions and isinstance(store, FeatureFile):
            raise RunError(
                f"{store.path}: the file has changed: it no longer holds the features of {tap_ref}; restore "
                "the file, or run `humeris sweep` on this one"
            )
        if tap_ref.extraction not in extractions:
            raise RunError(
                f"{store.path}: extraction {tap_ref.extraction} is no longer cached; run `humeris extract` "
                f"with -b {tap_ref.backbone} -l {tap_ref.layer}:{tap_ref.pool} again"
            )
        extraction = extractions[tap_ref.extraction]
        row_readers.append(
            _open_reader(store, extraction, extraction.get_features(tap_ref.layer, tap_ref.pool), views or Views())
        )
    return row_readers


def build_matrix(row_readers: Sequence[RowReader], keys: np.ndarray) -> FeatureMatrix:
    """Return the matrix of the plain rows of the images `keys` (n,); only one row is read until it is used."""
    return ViewRows.from_readers(row_readers, keys).features


def _open_reader(
    store: FeatureStore, extraction: Extraction | FeatureFile, features: TapFeatures | FileRowReader, views: Views
) -> RowReader:
    """Return a reader of a tap's rows, with those of its augmented views."""
    if not views.count:
        return features
    if not isinstance(store, Store):
        raise DataError(f"{store.path}: a feature file has no augmented views; leave --views out")
    augmented_extraction = store.get_extraction(replace(extraction.spec, views=views.version))
    return ViewReader(features, augmented_extraction.get_features(features.layer, features.pool))
