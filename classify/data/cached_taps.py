"""The cached taps, and how patterns given by users select them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ...cache.errors import DataError, LayerError
from ...cache.extraction import Extraction
from ...cache.store import Store
from ...cache.tap_features import TapFeatures
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.metadata import get_cached
from ...extract.backbones.tap_patterns import find_closest, is_match
from ...extract.backbones.taps import Tap
from ...extract.images.feature_file import FeatureFile, FileRowReader

FeatureStore = Store | FeatureFile  # where features are read from


@dataclass(frozen=True, eq=False)
class CachedTap:
    """A tap of the cache, in the plain view."""

    extraction: Extraction | FeatureFile
    features: TapFeatures | FileRowReader

    @property
    def tap(self) -> Tap:
        """The layer and pool."""
        return Tap(self.features.layer, self.features.pool)

    @property
    def depth(self) -> float | None:
        """Fraction of the network's forward cost spent up to and including the layer; None if unknown."""
        costs, layer = {item["name"]: item["cost"] for item in self.extraction.layers}, self.features.layer
        return round(costs[layer] / max(1, *costs.values()), 4) if layer in costs else None

    def matches_pattern(self, pattern: str, pools: Collection[str] = ()) -> bool:
        """Return whether `pattern`, `[BACKBONE/]LAYER[:POOL]`, selects this tap; `pools` apply if it has no POOL."""
        spec = self.extraction.spec
        sized_title = f"{spec.title},image_size={spec.image_size[0]}x{spec.image_size[1]}"
        prefixes = [f"{name}/" for name in (sized_title, spec.title) if pattern.startswith(f"{name}/")]
        spellings = [pattern, *(pattern.removeprefix(name) for name in prefixes)]
        return any(
            is_match(spelling, self.tap) and (":" in spelling or not pools or self.tap.pool in pools)
            for spelling in spellings
        )


def list_cached_taps(
    store: FeatureStore, backbone_specs: Sequence[BackboneSpec], only_taps: Collection[tuple[str, Tap]] | None = None
) -> list[CachedTap]:
    """Return the cached taps of `backbone_specs`, of all backbones if there are none.

    only_taps: (spec digest, tap) pairs to which the result is restricted. Raises `DataError` if nothing is cached for one of
    the backbones.
    """
    extractions: list[Extraction | FeatureFile] = [each for each in store.iter_extractions() if each.spec.views == "plain"]
    if backbone_specs and isinstance(store, FeatureFile):
        raise DataError(f"{store.path}: -b {backbone_specs[0].title} does not apply to a feature file; leave -b out")
    if backbone_specs:
        digests = {}
        for backbone_spec in backbone_specs:
            backbone_metadata = get_cached(backbone_spec, store.kv_store)
            digests[backbone_metadata.spec.digest if backbone_metadata else ""] = backbone_spec
        cached_digests = {extraction.spec.digest for extraction in extractions}
        for digest, backbone_spec in digests.items():
            if digest not in cached_digests:
                raise DataError(
                    f"{store.path}: no features are cached for -b {backbone_spec.title}; run `humeris extract` "
                    "with the same -b first"
                )
        extractions = [extraction for extraction in extractions if extraction.spec.digest in digests]
    cached_taps = [CachedTap(extraction, features) for extraction in extractions for features in extraction.list_taps()]
    return [each for each in cached_taps if only_taps is None or (each.extraction.spec.digest, each.tap) in only_taps]


def check_patterns_and_pools(cached_taps: Sequence[CachedTap], patterns: Sequence[str], pools: Sequence[str]) -> None:
    """Raise `LayerError` if a pattern or a pool matches none of the cached taps; nothing is checked if there are no taps."""
    taps = [cached_tap.tap for cached_tap in cached_taps]
    _check_patterns(cached_taps, patterns, ())
    for pool in pools if taps else ():
        if not any(tap.pool == pool for tap in taps):
            cached_pools = ", ".join(sorted({tap.pool for tap in taps}))
            raise LayerError(
                f"pool {pool!r}: not cached (cached pools: {cached_pools}); run `humeris extract` with --pool {pool} first"
            )
    _check_patterns(cached_taps, patterns, pools)


def _check_patterns(cached_taps: Sequence[CachedTap], patterns: Sequence[str], pools: Sequence[str]) -> None:
    for pattern in patterns if cached_taps else ():
        if not any(cached_tap.matches_pattern(pattern, pools) for cached_tap in cached_taps):
            names = ", ".join(find_closest(pattern.partition(":")[0], [str(cached_tap.tap) for cached_tap in cached_taps]))
            raise LayerError(
                f"layer {pattern!r}{_format_pools(pools)}: no cached tap matches (closest: {names}); run "
                f"`humeris extract` with -l {pattern}{''.join(f' --pool {pool}' for pool in pools)} first"
            )


def _format_pools(pools: Sequence[str]) -> str:
    return f" with pool {' or '.join(pools)}" if pools else ""


def find_one_tap(cached_taps: Sequence[CachedTap], side: str, sides: Sequence[str], pools: Sequence[str] = ()) -> CachedTap:
    """Return the one cached tap that a side of a concatenation selects; raises `LayerError` unless exactly one matches."""
    matching_taps = [cached_tap for cached_tap in cached_taps if cached_tap.matches_pattern(side, pools)]
    if len(matching_taps) != 1:
        names = disambiguate_titles([cached_tap.extraction for cached_tap in cached_taps])
        tap_names = [f"{names[cached_tap.extraction.name]}/{cached_tap.tap}" for cached_tap in matching_taps or cached_taps]
        several_text = f"{len(matching_taps)} cached taps match: {', '.join(tap_names[:5])}; write one of them"
        none_text = f"no cached tap matches; closest: {', '.join(find_closest(side.partition(':')[0], tap_names))}"
        subject = f"layer {side!r} of {'+'.join(sides)}{_format_pools(() if matching_taps or ':' in side else pools)}"
        raise LayerError(f"{subject}: {several_text if matching_taps else none_text}")
    return matching_taps[0]


def disambiguate_titles(extractions: Sequence[Extraction | FeatureFile]) -> dict[str, str]:
    """Return a unique title for each extraction, by folder: image size and digest are added where titles would be equal."""
    specs = {extraction.name: extraction.spec for extraction in extractions}
    sizes = {folder: f",image_size={spec.image_size[0]}x{spec.image_size[1]}" for folder, spec in specs.items()}
    digests = {folder: f" ({spec.digest[:8]})" for folder, spec in specs.items()}
    names = {folder: spec.title for folder, spec in specs.items()}
    for suffix in (sizes, digests):
        counts = Counter(names.values())
        names = {folder: name + suffix[folder] if counts[name] > 1 else name for folder, name in names.items()}
    return names
