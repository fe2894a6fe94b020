"""The rows of a backbone's taps for every view: find the missing ones, and store new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...cache.store import Store
from ..backbones.metadata import BackboneMetadata
from ..backbones.non_finite import NonFiniteImages
from ..backbones.taps import Tap, compute_row_bytes
from ..pixels.augment import Policy

_KEY_BYTES = 34


class TapRows:
    """The rows of taps for view 0, the plain image, and for augmented views, numbered from 1.

    Augmented rows are stored in a separate extraction, whose key includes the policy and its version, so that the rows of
    plain images are shared by all policies.

    Parameters
    ----------
    store : Store
        The cache.
    metadata : BackboneMetadata
        The backbone.
    taps : sequence of Tap
        The taps.
    views : int
        Number of augmented views.
    policy : Policy, optional
        The augmentation of views.
    """

    def __init__(
        self, store: Store, metadata: BackboneMetadata, taps: Sequence[Tap], views: int = 0, policy: Policy | None = None
    ) -> None:
        self.metadata, self.taps, self.views, self.policy = metadata, list(taps), views, policy
        specs = [metadata.spec]
        if views and policy is not None:
            specs.append(replace(metadata.spec, views=policy.version))
        self.extractions = [store.get_extraction(spec) for spec in specs]
        self._non_finite = [NonFiniteImages(store.kv_store, spec) for spec in specs]

    @property
    def work_key(self) -> str:
        """A text that identifies the work: equal for extractors that do the same extraction."""
        return f"{self.metadata.spec.digest} {[str(tap) for tap in self.taps]} {self.views} {self.policy}"

    def create(self) -> None:
        """Create the folders of the extractions; raises `CacheReadOnly`."""
        for extraction in self.extractions:
            extraction.create([layer.to_dict() for layer in self.metadata.layers])

    @property
    def is_created(self) -> bool:
        """Whether the folders of the extractions exist."""
        return all(extraction.is_created for extraction in self.extractions)

    @property
    def has_new_rows(self) -> bool:
        """Whether another process has stored rows since `find_missing` was last called."""
        return any(
            extraction.get_features(tap.layer, tap.pool).has_new_rows for extraction in self.extractions for tap in self.taps
        )

    def find_missing(self, keys: np.ndarray) -> dict[Tap, np.ndarray]:
        """Return tap -> mask (n, 1 + views) of the rows of `keys` (n,) S32 to compute, for the taps that lack any."""
        masks = {}
        for tap in self.taps:
            non_finite_masks = self.find_non_finite(tap, keys)
            view_masks = [
                self.extractions[view > 0].get_features(tap.layer, tap.pool).find_missing(keys, view)
                & ~non_finite_masks[view > 0]
                for view in range(1 + self.views)
            ]
            mask = np.stack(view_masks, axis=1)
            if mask.any():
                masks[tap] = mask
        return masks

    def count_bytes(self, masks: Mapping[Tap, np.ndarray]) -> int:
        """Return the uncompressed bytes of the rows of `masks`, which come from `find_missing`."""
        shapes = self.metadata.shapes
        return sum(int(mask.sum()) * (compute_row_bytes(tap, shapes[tap.layer]) + _KEY_BYTES) for tap, mask in masks.items())

    def find_non_finite(self, tap: Tap, keys: np.ndarray) -> list[np.ndarray]:
        """Return the masks (n,) of the `keys` (n,) known to be not finite: in the plain view, and in any augmented view."""
        return [non_finite_images.get_mask(tap, keys) for non_finite_images in self._non_finite]

    def mark_non_finite(self, tap: Tap, keys: np.ndarray, views: np.ndarray) -> None:
        """Record that the rows of these `keys` (n,) and `views` (n,) are not finite."""
        for index, non_finite_images in enumerate(self._non_finite):
            if (mask := (views > 0) == index).any():
                non_finite_images.add(tap, [key.ljust(32, b"\0") for key in keys[mask].tolist()])

    def add(self, tap: Tap, keys: np.ndarray, views: np.ndarray, rows: np.ndarray, compression: str) -> int:
        """Store the rows (n, ...) of `keys` (n,) and `views` (n,), durably; return the bytes written."""
        bytes_written = 0
        for index, extraction in enumerate(self.extractions):
            if (mask := (views > 0) == index).any():
                bytes_written += extraction.add(
                    tap.layer, tap.pool, keys[mask], rows[mask], views=views[mask], compression=compression
                )
        return bytes_written
