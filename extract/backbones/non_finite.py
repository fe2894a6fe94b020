"""Images with NaN or infinite activations: their rows are not stored, and the cache records which they are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...cache.key_value_store import KeyValueStore
from ...cache.shard import to_keys
from ...cache.spec import ExtractionSpec
from .taps import Tap


class NonFiniteImages:
    """The images without a finite row, for each tap of one extraction.

    Parameters
    ----------
    kv_store : KeyValueStore
        Stores their digests.
    spec : ExtractionSpec
        The key of the extraction.
    """

    def __init__(self, kv_store: KeyValueStore, spec: ExtractionSpec) -> None:
        self._kv_store, self._extraction_digest = kv_store, spec.digest

    def get(self, tap: Tap) -> set[bytes]:
        """Return the digests (32 bytes each) of the images that are not finite at `tap`."""
        return {bytes.fromhex(text) for text in self._kv_store.get_json("not_finite", self._format_key(tap)) or []}

    def get_mask(self, tap: Tap, keys: np.ndarray) -> np.ndarray:
        """Return the mask (n,) of the `keys` (n,) S32 that are not finite at `tap`."""
        return np.isin(keys, to_keys(sorted(self.get(tap))))

    def add(self, tap: Tap, digests: Iterable[bytes]) -> None:
        """Record that `digests` are not finite at `tap`."""
        all_digests = self.get(tap) | set(digests)
        self._kv_store.put_json("not_finite", self._format_key(tap), sorted(digest.hex() for digest in all_digests))

    def _format_key(self, tap: Tap) -> str:
        return f"{self._extraction_digest}\n{tap}"


def find_faulty_images(masks: Iterable[np.ndarray]) -> np.ndarray:
    """Find the images to reject because of NaN or infinite activations.

    If more than half of the images are not finite at a tap, the network overflows there: the tap is at fault, and no image
    is rejected because of it.

    Parameters
    ----------
    masks : iterable of numpy.ndarray
        For each tap, the mask (n,) of the images without a finite row.

    Returns
    -------
    numpy.ndarray
        Mask (n,) of the images to reject.
    """
    masks = list(masks)
    return np.asarray(
        np.logical_or.reduce([np.zeros_like(masks[0]), *(mask for mask in masks if 2 * mask.sum() <= len(mask))])
    )
