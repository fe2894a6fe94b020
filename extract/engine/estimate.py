"""What an extraction would cost, before anything is computed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache import compression as compressing
from ...cache.atomic_files import free_bytes
from ...cache.store import Store
from ..backbones.backbone_spec import Request
from ..backbones.metadata import Card, look_up
from ..backbones.taps import Tap, resolve
from ..images.load import Images
from ..pixels.augment import Policy
from ..pixels.read_file import cores
from .tap_rows import Rows

# A forward pass takes its multiply-adds at the speed of a matrix product, and this long per value it writes. On two cores
# that gave 0.8 to 1.3 times the measured time of MobileNetV2-0.35, MobileNet, ResNet50 and VGG16, and half that of nano.
_SECONDS_PER_ELEMENT = 0.4e-9
_DECODE_SECONDS = 0.004  # a 500 x 375 JPEG, on one core


@dataclass(frozen=True)
class Plan:
    """Images and rows still to compute, bytes they will take, bytes free on the disk, and a rough time."""

    card: Card
    taps: list[Tap]
    images: int
    to_compute: int
    rows: dict[str, int]
    bytes: int
    free: int
    seconds: float
    views: int = 0
    compression: str = "none"

    @property
    def fits(self) -> bool:
        """Whether the disk can hold the rows; of whole maps to be compressed nobody knows."""
        return self.bytes <= self.free or self.compression != "none"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "backbone": self.card.spec.title,
            "extraction": self.card.spec.folder,
            "taps": [str(tap) for tap in self.taps],
            "images": self.images,
            "to_compute": self.to_compute,
            "rows": self.rows,
            "bytes": self.bytes,
            "bytes_free": self.free,
            "fits": self.fits,
            "views": self.views,
            "seconds_estimated": round(self.seconds, 1),
        }


def plan(
    images: Images,
    request: Request,
    patterns: Sequence[str],
    store: Store,
    pools: Sequence[str] = (),
    views: int = 0,
    policy: Policy | None = None,
    compression: str = "none",
) -> Plan:
    """What `extract_features` with the same arguments would do; runs no forward pass and stores no row.

    A backbone that was never built here is built once to learn its shapes. The seconds are of this processor.
    """
    compressing.check(compression)
    card, _ = look_up(request, store.memo)
    taps = resolve(patterns, card.layers, card.defaults, pools)
    wanted = Rows(store, card, taps, views, policy)
    masks = wanted.missing(images.keys)
    rows = {tap: int(masks[tap].sum()) if tap in masks else 0 for tap in taps}
    pending = int(np.logical_or.reduce(list(masks.values())).sum()) if masks else 0
    tapped = [layer for layer in card.layers if any(tap.layer == layer.name for tap in masks)]
    forward = max((layer.cost for layer in tapped), default=0) / _multiply_adds_per_second()
    forward += max((layer.elements for layer in tapped), default=0) * _SECONDS_PER_ELEMENT
    return Plan(
        card=card,
        taps=taps,
        images=len(images.used),
        to_compute=pending,
        rows={str(tap): count for tap, count in rows.items()},
        bytes=wanted.size(masks),
        free=free_bytes(store.path),
        views=views,
        compression=compression,
        seconds=pending * (forward + _DECODE_SECONDS / cores()),
    )


def _multiply_adds_per_second() -> float:
    """The speed of a matrix product on all cores, from a few milliseconds of it."""
    side = 768
    matrix = np.ones((side, side), np.float32)
    matrix @ matrix
    began = time.perf_counter()
    for _ in range(5):
        matrix @ matrix
    return 5 * side**3 / (time.perf_counter() - began)
