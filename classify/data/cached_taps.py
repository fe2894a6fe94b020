"""Cached taps that heads could be trained on, and what a user calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ...cache.errors import DataError, LayerError
from ...cache.extraction import Extraction
from ...cache.store import Store
from ...cache.tap_features import Features
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.metadata import recall
from ...extract.backbones.taps import Tap, closest, matches
from ...extract.images.feature_file import FeatureFile, FileRows

Shelf = Store | FeatureFile  # where features are


@dataclass(frozen=True, eq=False)
class Candidate:
    """A cached tap, of the plain view."""

    extraction: Extraction | FeatureFile
    features: Features | FileRows

    @property
    def tap(self) -> Tap:
        """Layer and pool."""
        return Tap(self.features.layer, self.features.pool)

    @property
    def depth(self) -> float | None:
        """The share of the network's forward cost that is spent when the layer is computed; None where it is not known."""
        costs, layer = {item["name"]: item["cost"] for item in self.extraction.layers}, self.features.layer
        return round(costs[layer] / max(1, *costs.values()), 4) if layer in costs else None

    def named(self, text: str, pools: Collection[str] = ()) -> bool:
        """Whether `text`, `[BACKBONE/]LAYER[:POOL]`, names it: where no POOL is written, of `pools` if any."""
        spec = self.extraction.spec
        size = f"{spec.title},image_size={spec.image_size[0]}x{spec.image_size[1]}"
        called = [f"{name}/" for name in (size, spec.title) if text.startswith(f"{name}/")]
        written = [text, *(text.removeprefix(name) for name in called)]
        return any(matches(each, self.tap) and (":" in each or not pools or self.tap.pool in pools) for each in written)


def candidates(
    store: Shelf, requests: Sequence[Request], only: Collection[tuple[str, Tap]] | None = None
) -> list[Candidate]:
    """Every cached tap of the backbones asked for, or of `only` these, as (spec digest, tap); raises `DataError`."""
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
    found = [Candidate(extraction, features) for extraction in extractions for features in extraction.taps()]
    return [each for each in found if only is None or (each.extraction.spec.digest, each.tap) in only]


def check_asked(cached: Sequence[Candidate], patterns: Sequence[str], pools: Sequence[str]) -> None:
    """Raise `LayerError` where a pattern or a pool names none of the cached taps, if there are any."""
    taps = [each.tap for each in cached]
    _check_named(cached, patterns, ())
    for pool in pools if taps else ():
        if not any(tap.pool == pool for tap in taps):
            there = ", ".join(sorted({tap.pool for tap in taps}))
            raise LayerError(
                f"pool {pool!r}: expected a cached pool ({there}), found none; run `humeris extract` with it first"
            )
    _check_named(cached, patterns, pools)


def _check_named(cached: Sequence[Candidate], patterns: Sequence[str], pools: Sequence[str]) -> None:
    for text in patterns if cached else ():
        if not any(each.named(text, pools) for each in cached):
            names = ", ".join(closest(text.partition(":")[0], [str(each.tap) for each in cached]))
            raise LayerError(
                f"layer {text!r}{_with(pools)}: expected a cached tap, found none; closest: {names}; "
                f"run `humeris extract` with -l {text}{''.join(f' --pool {pool}' for pool in pools)} first"
            )


def _with(pools: Sequence[str]) -> str:
    return f" with pool {' or '.join(pools)}" if pools else ""


def one_of(cached: Sequence[Candidate], side: str, sides: Sequence[str], pools: Sequence[str] = ()) -> Candidate:
    """The cached tap that one side of a concatenation names; raises `LayerError` unless it is one."""
    found = [each for each in cached if each.named(side, pools)]
    if len(found) != 1:
        names = titles([each.extraction for each in cached])
        listed = [f"{names[each.extraction.name]}/{each.tap}" for each in found or cached]
        several = f"{len(found)}: {', '.join(listed[:5])}; write one of them"
        none = f"none; closest: {', '.join(closest(side.partition(':')[0], listed))}"
        where = f"layer {side!r} of {'+'.join(sides)}{_with(() if found or ':' in side else pools)}"
        raise LayerError(f"{where}: expected one cached tap, found {several if found else none}")
    return found[0]


def titles(extractions: Sequence[Extraction | FeatureFile]) -> dict[str, str]:
    """What to call each extraction (by folder): its title, with image size and digest where others have the same."""
    specs = {extraction.name: extraction.spec for extraction in extractions}
    sizes = {folder: f",image_size={spec.image_size[0]}x{spec.image_size[1]}" for folder, spec in specs.items()}
    digests = {folder: f" ({spec.digest[:8]})" for folder, spec in specs.items()}
    names = {folder: spec.title for folder, spec in specs.items()}
    for suffix in (sizes, digests):
        count = Counter(names.values())
        names = {folder: name + suffix[folder] if count[name] > 1 else name for folder, name in names.items()}
    return names
