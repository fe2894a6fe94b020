"""The rows of a backbone's taps for every view: which are missing, and where they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from ...cache.store import Store
from ..backbones.metadata import Card
from ..backbones.taps import Tap, row_bytes
from ..pixels.augment import Policy
from .non_finite import NotFinite

_KEY_BYTES = 34


class Rows:
    """Rows of `taps` for view 0, the plain image, and for `views` augmented ones, numbered from 1.

    Augmented rows lie in an extraction of their own, whose key has the policy and its version: the plain ones are shared by
    all policies.
    """

    def __init__(self, store: Store, card: Card, taps: Sequence[Tap], views: int = 0, policy: Policy | None = None) -> None:
        self.card, self.taps, self.views, self.policy = card, list(taps), views, policy
        specs = [card.spec]
        if views and policy is not None:
            specs.append(replace(card.spec, views=policy.version))
        self.extractions = [store.extraction(spec) for spec in specs]
        self._bad = [NotFinite(store.memo, spec) for spec in specs]

    @property
    def work(self) -> str:
        """What is asked for, the same for everyone who asks for it."""
        return f"{self.card.spec.digest} {[str(tap) for tap in self.taps]} {self.views} {self.policy}"

    def create(self) -> None:
        """Lay the extractions out; finds out a read-only cache before a network runs."""
        for extraction in self.extractions:
            extraction.create([asdict(layer) for layer in self.card.layers])

    @property
    def created(self) -> bool:
        """Whether the extractions are laid out."""
        return all(extraction.created for extraction in self.extractions)

    @property
    def news(self) -> bool:
        """Whether another process stored rows since this object last looked."""
        return any(each.features(tap.layer, tap.pool).news for each in self.extractions for tap in self.taps)

    def missing(self, keys: np.ndarray) -> dict[Tap, np.ndarray]:
        """Mask (n, 1 + views) of the rows of `keys` (n,) that are still to be computed, for each tap that lacks any."""
        masks = {}
        for tap in self.taps:
            known = self.not_finite(tap, keys)
            columns = [
                self.extractions[view > 0].features(tap.layer, tap.pool).missing(keys, view) & ~known[view > 0]
                for view in range(1 + self.views)
            ]
            mask = np.stack(columns, axis=1)
            if mask.any():
                masks[tap] = mask
        return masks

    def size(self, masks: Mapping[Tap, np.ndarray]) -> int:
        """Bytes that the rows of `masks`, as `missing` gives them, take when they are not compressed."""
        shapes = self.card.shapes
        return sum(int(mask.sum()) * (row_bytes(tap, shapes[tap.layer]) + _KEY_BYTES) for tap, mask in masks.items())

    def not_finite(self, tap: Tap, keys: np.ndarray) -> list[np.ndarray]:
        """Masks (n,) of the `keys` that are known to give NaN or infinity: in the plain view, and in any augmented one."""
        return [bad.mask(tap, keys) for bad in self._bad]

    def reject(self, tap: Tap, keys: np.ndarray, views: np.ndarray) -> None:
        """Remember that these rows are NaN or infinite."""
        for number, bad in enumerate(self._bad):
            if (mine := (views > 0) == number).any():
                bad.add(tap, [key.ljust(32, b"\0") for key in keys[mine].tolist()])

    def add(self, tap: Tap, keys: np.ndarray, views: np.ndarray, rows: np.ndarray, compression: str) -> int:
        """Store rows (n, ...) for `keys` (n,) and `views` (n,); the bytes written. They then survive a crash."""
        written = 0
        for number, extraction in enumerate(self.extractions):
            if (mine := (views > 0) == number).any():
                written += extraction.add(
                    tap.layer, tap.pool, keys[mine], rows[mine], views=views[mine], compression=compression
                )
        return written
