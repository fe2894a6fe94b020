"""Stage one: run a frozen network once over each image and store the activations of every tap."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..cache.errors import BackboneError
from ..cache.extraction import Extraction
from ..cache.store import Store
from . import pixels, source
from .backbone import Backbone, build
from .card import Card, look_up
from .dataset import Refusal
from .forward import Forward
from .images import Image, Images, Progress
from .not_finite import NotFinite, images_at_fault
from .request import Request
from .taps import Tap, resolve
from .writer import Writer


@dataclass
class Extracted:
    """What one extraction did.

    computed: images that went through the network; passes: batches of them; rows: stored rows per tap.
    not_finite: how many images gave NaN or infinity, for each tap where any did; such rows are not stored, and the images
    are refused unless most images are so there.
    """

    card: Card
    taps: list[Tap]
    images: Images
    computed: int = 0
    passes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0
    not_finite: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "backbone": self.card.spec.title,
            "extraction": self.card.spec.folder,
            "taps": [str(tap) for tap in self.taps],
            "images": len(self.images.used),
            "computed": self.computed,
            "forward_passes": self.passes,
            "rows": self.rows,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "not_finite": self.not_finite,
        }


def missing(extraction: Extraction, taps: Sequence[Tap], keys: np.ndarray, bad: NotFinite) -> dict[Tap, np.ndarray]:
    """Mask (n,) of the keys whose row is still to be computed, for each tap that lacks any."""
    masks = {tap: extraction.features(tap.layer, tap.pool).missing(keys) & ~bad.mask(tap, keys) for tap in taps}
    return {tap: mask for tap, mask in masks.items() if mask.any()}


def extract_features(
    images: Images,
    request: Request | str,
    patterns: Sequence[str],
    store: Store,
    *,
    pools: Sequence[str] = (),
    batch_size: int = 32,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Extracted:
    """Fill the cache with the taps that `patterns` name, for `images`; only what is missing is computed.

    `request` is a backbone (`mobilenet_v2,alpha=0.35`); without patterns its default taps are taken.
    Images that cannot be decoded are refused and the rest is done. On `KeyboardInterrupt` what was computed is stored
    before the interrupt goes on. Raises `BackboneError`, `LayerError`, `CacheReadOnly`, `CacheFull`.
    """
    began = time.monotonic()
    request = Request.parse(request) if isinstance(request, str) else request
    card, backbone = look_up(request, store.memo)
    taps = resolve(patterns, card.layers, card.defaults, pools)
    result = Extracted(card, taps, images)
    extraction = store.extraction(card.spec)
    bad = NotFinite(store.memo, card.spec)
    masks = missing(extraction, taps, images.keys, bad)
    if masks or not extraction.created:
        extraction.create([asdict(layer) for layer in card.layers])  # finds out a read-only cache before the network runs
    if masks:
        needed = np.logical_or.reduce(list(masks.values()))
        pending = [image for image, need in zip(images.used, needed, strict=True) if need]
        backbone = backbone or build(request)
        if backbone.spec.digest != card.spec.digest:
            raise BackboneError(
                f"backbone {request.title}: expected the weights {card.spec.weights_sha256[:12]} that were there before, "
                f"found {backbone.spec.weights_sha256[:12]}; delete {store.path / 'known'} and run the command again"
            )
        _compute(result, pending, masks, backbone, extraction, bad, batch_size, jobs or source.cores(), progress)
    _refuse(result, bad)
    images.known.save()
    store.close()
    result.seconds = time.monotonic() - began
    return result


def _compute(
    result: Extracted,
    pending: list[Image],
    masks: dict[Tap, np.ndarray],
    backbone: Backbone,
    extraction: Extraction,
    bad: NotFinite,
    batch_size: int,
    jobs: int,
    progress: Progress | None,
) -> None:
    """Decode ahead in threads, forward in this one, store as rows come in."""
    size = result.card.spec.image_size
    wanted = {
        tap: {image.digest for image, need in zip(result.images.used, mask, strict=True) if need}
        for tap, mask in masks.items()
    }
    forward = Forward(backbone.graph, list(masks), batch_size)
    writer = Writer(extraction, wanted)
    refused: dict[str, Refusal] = {}
    batch: list[tuple[Image, np.ndarray]] = []

    def flush() -> None:
        if batch:
            rows = forward([pixel for _, pixel in batch])
            writer.add([image for image, _ in batch], dict(zip(forward.taps, rows, strict=True)))
            batch.clear()

    try:
        decoded = source.in_order(lambda image: _decode(image, size), pending, jobs, 2 * batch_size + 2 * jobs)
        for done, (image, outcome) in enumerate(decoded, start=1):
            if isinstance(outcome, pixels.Refused):
                refused[image.name] = Refusal(image.name, outcome.reason, str(outcome))
                if outcome.reason in pixels.LASTING:
                    result.images.known.refuse(image.name, outcome.reason, str(outcome))
            else:
                batch.append((image, outcome))
            if len(batch) == batch_size or done == len(pending):
                flush()
            if progress is not None:
                progress(done, len(pending))
    finally:
        writer.close()
        result.images = result.images.without(refused)
        result.computed, result.passes = writer.images, forward.passes
        result.rows, result.bytes = writer.rows, writer.bytes
        for tap, digests in writer.not_finite.items():
            bad.add(tap, digests)


def _refuse(result: Extracted, bad: NotFinite) -> None:
    """Move the images without a finite row to the refused, and count them per tap."""
    keys = result.images.keys
    masks = {tap: bad.mask(tap, keys) for tap in result.taps}
    result.not_finite = {str(tap): int(mask.sum()) for tap, mask in masks.items() if mask.any()}
    refused = {}
    for number in np.nonzero(images_at_fault(masks.values()))[0]:
        name = result.images.used[number].name
        where = ", ".join(str(tap) for tap, mask in masks.items() if mask[number])
        refused[name] = Refusal(name, "not_finite", f"NaN or infinite activations at {where}")
    result.images = result.images.without(refused)


def _decode(image: Image, size: tuple[int, int]) -> tuple[Image, np.ndarray | pixels.Refused]:
    """The pixels of an image, if its file still holds the bytes that were identified."""
    try:
        data = source.read(image.path)
        if source.digest(data) != image.digest:
            raise pixels.Refused("changed", "the file changed while it was used; run the command again")
        return image, pixels.decode(data, size)
    except pixels.Refused as refused:
        return image, refused
