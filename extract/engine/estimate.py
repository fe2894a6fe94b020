"""Estimate the cost of an extraction before anything is computed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.atomic_files import get_free_bytes
from ...cache.store import Store
from ..backbones.backbone_spec import BackboneSpec
from ..backbones.metadata import BackboneMetadata, get_or_build
from ..backbones.tap_patterns import resolve_taps
from ..backbones.taps import Tap
from ..config import to_tuple
from ..images.images import Images
from ..pixels.read_file import count_cores
from .extract_config import ExtractConfig
from .tap_rows import TapRows

# Time of a forward pass: its multiply-adds at the speed of a matrix product, plus this for each value that it writes. On two
# cores the estimate was 0.8 to 1.3 times the time of MobileNetV2-0.35, MobileNet, ResNet50 and VGG16, and half that of nano.
_SECONDS_PER_ELEMENT = 0.4e-9
_DECODE_SECONDS = 0.004  # of a 500 x 375 JPEG on one core


@dataclass(frozen=True)
class ExtractEstimate:
    """The estimated cost of an extraction from one backbone.

    Parameters
    ----------
    metadata : BackboneMetadata
        The backbone.
    taps : list of Tap
        The taps to extract.
    images : int
        Number of images.
    to_compute : int
        Number of image views to compute.
    rows : dict
        Tap -> number of rows to compute.
    bytes : int
        Size of these rows, before compression.
    bytes_free : int
        Free disk space of the cache.
    seconds : float
        Rough time on this CPU.
    views : int
        Number of augmented views of each image.
    compression : str
        Compression of whole maps.
    """

    metadata: BackboneMetadata
    taps: list[Tap]
    images: int
    to_compute: int
    rows: dict[str, int]
    bytes: int
    bytes_free: int
    seconds: float
    views: int = 0
    compression: str = "none"

    @property
    def fits(self) -> bool:
        """Whether the disk can hold the rows; True with compression, as the compressed size is unknown."""
        return self.bytes <= self.bytes_free or self.compression != "none"

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {
            "backbone": self.metadata.spec.title,
            "extraction": self.metadata.spec.folder_name,
            "taps": [str(tap) for tap in self.taps],
            "images": self.images,
            "to_compute": self.to_compute,
            "rows": self.rows,
            "bytes": self.bytes,
            "bytes_free": self.bytes_free,
            "fits": self.fits,
            "views": self.views,
            "seconds_estimated": round(self.seconds, 1),
        }


def estimate_extraction(images: Images, store: Store, config: ExtractConfig) -> list[ExtractEstimate]:
    """Estimate what `extract_features` would compute; runs no forward pass and stores no row.

    A backbone whose metadata is not cached is built once. The time is estimated for the CPU.

    Parameters
    ----------
    images : Images
        The images.
    store : Store
        The cache.
    config : ExtractConfig
        What to extract.

    Returns
    -------
    list of ExtractEstimate
        One for each backbone, in order.
    """
    return [_estimate_backbone(images, backbone_spec, store, config) for backbone_spec in config.backbone_specs]


def _estimate_backbone(images: Images, backbone_spec: BackboneSpec, store: Store, config: ExtractConfig) -> ExtractEstimate:
    metadata, _ = get_or_build(backbone_spec, store.kv_store)
    taps = resolve_taps(to_tuple(config.layers), metadata.layers, metadata.default_layers, to_tuple(config.pools))
    tap_rows = TapRows(store, metadata, taps, config.views, config.policy)
    masks = tap_rows.find_missing(images.keys)
    rows = {tap: int(masks[tap].sum()) if tap in masks else 0 for tap in taps}
    pending = int(np.logical_or.reduce(list(masks.values())).sum()) if masks else 0
    tapped_layers = [layer for layer in metadata.layers if any(tap.layer == layer.name for tap in masks)]
    forward_seconds = max((layer.cost for layer in tapped_layers), default=0) / _measure_multiply_adds_per_second()
    forward_seconds += max((layer.elements for layer in tapped_layers), default=0) * _SECONDS_PER_ELEMENT
    return ExtractEstimate(
        metadata=metadata,
        taps=taps,
        images=len(images.used),
        to_compute=pending,
        rows={str(tap): count for tap, count in rows.items()},
        bytes=tap_rows.count_bytes(masks),
        bytes_free=get_free_bytes(store.path),
        views=config.views,
        compression=config.compression,
        seconds=pending * (forward_seconds + _DECODE_SECONDS / count_cores()),
    )


def _measure_multiply_adds_per_second() -> float:
    """Measure the speed of a matrix product on all cores, in a few milliseconds."""
    side = 768
    matrix = np.ones((side, side), np.float32)
    matrix @ matrix
    start_time = time.perf_counter()
    for _ in range(5):
        matrix @ matrix
    return 5 * side**3 / (time.perf_counter() - start_time)
