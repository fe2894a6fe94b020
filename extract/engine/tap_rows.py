"""The rows of a backbone's taps for every view: which are missing, and where they are stored."""

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
    """Rows of `taps` for view 0, the plain image, and for `views` augmented ones, numbered from 1.

    Augmented rows lie in an extraction of their own, whose key has the policy and its version: the plain ones are shared by
    all policies.
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
        """What is asked for, the same for everyone who asks for it."""
        return f"{self.metadata.spec.digest} {[str(tap) for tap in self.taps]} {self.views} {self.policy}"

    def create(self) -> None:
        """Lay the extractions out; finds out a read-only cache before a network runs."""
        for extraction in self.extractions:
            extraction.create([layer.to_dict() for layer in self.metadata.layers])

    @property
    def is_created(self) -> bool:
        """Whether the extractions are laid out."""
        return all(extraction.is_created for extraction in self.extractions)

    @property
    def has_new_rows(self) -> bool:
        """Whether another process stored rows since this object last looked."""
        return any(
            extraction.get_features(tap.layer, tap.pool).has_new_rows for extraction in self.extractions for tap in self.taps
        )

    def find_missing(self, keys: np.ndarray) -> dict[Tap, np.ndarray]:
        """Mask (n, 1 + views) of the rows of `keys` (n,) that are still to be computed, for each tap that lacks any."""
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
        """Bytes that the rows of `masks`, as `find_missing` gives them, take when they are not compressed."""
        shapes = self.metadata.shapes
        return sum(int(mask.sum()) * (compute_row_bytes(tap, shapes[tap.layer]) + _KEY_BYTES) for tap, mask in masks.items())

    def find_non_finite(self, tap: Tap, keys: np.ndarray) -> list[np.ndarray]:
        """Masks (n,) of the `keys` that are known to give NaN or infinity: in the plain view, and in any augmented one."""
        return [non_finite_images.get_mask(tap, keys) for non_finite_images in self._non_finite]

    def mark_non_finite(self, tap: Tap, keys: np.ndarray, views: np.ndarray) -> None:
        """Remember that these rows are NaN or infinite."""
        for index, non_finite_images in enumerate(self._non_finite):
            if (mask := (views > 0) == index).any():
                non_finite_images.add(tap, [key.ljust(32, b"\0") for key in keys[mask].tolist()])

    def add(self, tap: Tap, keys: np.ndarray, views: np.ndarray, rows: np.ndarray, compression: str) -> int:
        """Store rows (n, ...) for `keys` (n,) and `views` (n,); the bytes written. They then survive a crash."""
        bytes_written = 0
        for index, extraction in enumerate(self.extractions):
            if (mask := (views > 0) == index).any():
                bytes_written += extraction.add(
                    tap.layer, tap.pool, keys[mask], rows[mask], views=views[mask], compression=compression
                )
        return bytes_written
