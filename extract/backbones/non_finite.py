"""Images whose activations at a tap were NaN or infinite: never stored, and remembered so that they are not tried again."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...cache.key_value_store import KeyValueStore
from ...cache.shard import to_keys
from ...cache.spec import ExtractionSpec
from .taps import Tap


class NonFiniteImages:
    """The images that gave no finite row, for each tap of one extraction.

    Parameters
    ----------
    kv_store : KeyValueStore
        Where they are remembered.
    spec : ExtractionSpec
        The key of the extraction.
    """

    def __init__(self, kv_store: KeyValueStore, spec: ExtractionSpec) -> None:
        self._kv_store, self._extraction_digest = kv_store, spec.digest

    def get(self, tap: Tap) -> set[bytes]:
        """The digests (32 bytes each) of the images known to be bad at `tap`."""
        return {bytes.fromhex(text) for text in self._kv_store.get_json("not_finite", self._format_key(tap)) or []}

    def get_mask(self, tap: Tap, keys: np.ndarray) -> np.ndarray:
        """Mask (n,) of the `keys` (n,) S32 that are bad at `tap`."""
        return np.isin(keys, to_keys(sorted(self.get(tap))))

    def add(self, tap: Tap, digests: Iterable[bytes]) -> None:
        """Remember that `digests` are bad at `tap`."""
        all_digests = self.get(tap) | set(digests)
        self._kv_store.put_json("not_finite", self._format_key(tap), sorted(digest.hex() for digest in all_digests))

    def _format_key(self, tap: Tap) -> str:
        return f"{self._extraction_digest}\n{tap}"


def find_faulty_images(masks: Iterable[np.ndarray]) -> np.ndarray:
    """The images to refuse.

    A tap that is bad for most images is at fault itself (a network that overflows there); its images are not.

    Parameters
    ----------
    masks : iterable of numpy.ndarray
        For each tap, the images (n,) without a finite row there.

    Returns
    -------
    numpy.ndarray
        Mask (n,).
    """
    masks = list(masks)
    return np.asarray(
        np.logical_or.reduce([np.zeros_like(masks[0]), *(mask for mask in masks if 2 * mask.sum() <= len(mask))])
    )
