"""Images whose activations at a tap were NaN or infinite: never stored, and remembered so that they are not tried again."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...cache.key_value_store import Memo
from ...cache.shard import as_keys
from ...cache.spec import Spec
from ..backbones.taps import Tap


class NotFinite:
    """The digests (32 bytes each) that gave no finite row, for each tap of one extraction."""

    def __init__(self, memo: Memo, spec: Spec) -> None:
        self._memo, self._extraction = memo, spec.digest

    def get(self, tap: Tap) -> set[bytes]:
        """The digests known to be bad at `tap`."""
        return {bytes.fromhex(text) for text in self._memo.get_json("not_finite", self._key(tap)) or []}

    def mask(self, tap: Tap, keys: np.ndarray) -> np.ndarray:
        """Mask (n,) of the `keys` (n,) S32 that are bad at `tap`."""
        return np.isin(keys, as_keys(sorted(self.get(tap))))

    def add(self, tap: Tap, digests: Iterable[bytes]) -> None:
        """Remember that `digests` are bad at `tap`."""
        known = self.get(tap) | set(digests)
        self._memo.put_json("not_finite", self._key(tap), sorted(digest.hex() for digest in known))

    def _key(self, tap: Tap) -> str:
        return f"{self._extraction}\n{tap}"


def images_at_fault(masks: Iterable[np.ndarray]) -> np.ndarray:
    """Mask (n,) of the images to refuse, of masks (n,) of the bad ones at each of several taps.

    A tap that is bad for most images is at fault itself (a network that overflows there); its images are not.
    """
    masks = list(masks)
    return np.asarray(
        np.logical_or.reduce([np.zeros_like(masks[0]), *(mask for mask in masks if 2 * mask.sum() <= len(mask))])
    )
