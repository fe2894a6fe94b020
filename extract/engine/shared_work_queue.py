"""Work queue that several extractors on one cache share by leases."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...cache.leases import Lease, Leases

MAX_IMAGES_PER_BLOCK = 1024
_BLOCKS_PER_EXTRACTOR = 4
_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class WorkItem:
    """Images that are computed and stored together: their `indices` (n,), and the mask (n, 1 + views) of missing views."""

    indices: np.ndarray
    missing_mask: np.ndarray
    leases: tuple[Lease, ...]


@dataclass(frozen=True)
class Wait:
    """Other extractors hold the leases on all remaining work; try again at `until` (seconds of `time.monotonic`)."""

    until: float


class SharedWorkQueue:
    """Iterates over work items: pending images on which this extractor holds the leases.

    All images, pending or not, are divided into blocks. A block is leased by a name that depends on its images and the work,
    so that extractors that start at different times agree on the blocks. A work item is one or more blocks, until it has
    enough pending images.

    Parameters
    ----------
    pending : np.ndarray
        Mask (n,) of the images that lack any row.
    keys : np.ndarray
        Digests (n,) S32 of all images.
    work_key : str
        Identifies the work: extraction, taps and views.
    leases : Leases
        The leases of the cache.
    find_missing : callable
        Takes the indices (m,) of images; returns the mask (m, 1 + views) of the views that the cache lacks now.
    num_extractors : int
        Number of extractors that are known to share the work; blocks are smaller for more of them if the work is small.
    """

    def __init__(
        self,
        pending: np.ndarray,
        keys: np.ndarray,
        work_key: str,
        leases: Leases,
        find_missing: Callable[[np.ndarray], np.ndarray],
        num_extractors: int = 1,
    ) -> None:
        self._block_length = (
            MAX_IMAGES_PER_BLOCK
            if num_extractors == 1
            else max(1, min(MAX_IMAGES_PER_BLOCK, len(keys) // (_BLOCKS_PER_EXTRACTOR * num_extractors)))
        )
        parts = [slice(start, start + self._block_length) for start in range(0, len(keys), self._block_length)]
        blocks = [(part.start + np.nonzero(pending[part])[0], _compute_block_name(work_key, keys[part])) for part in parts]
        self._waiting_blocks = deque((indices, name) for indices, name in blocks if len(indices))
        self._leases, self._find_missing = leases, find_missing
        self._active_leases: list[Lease] = []
        self._wait = Wait(0.0)

    def __iter__(self) -> Iterator[WorkItem | Wait]:
        while self._waiting_blocks:
            if time.monotonic() < self._wait.until:  # the pipeline reads ahead, so it asks before the wait is over
                yield self._wait
                continue
            indices, leases = self._acquire_blocks()
            if leases:
                yield WorkItem(indices, self._find_missing(indices), leases)
            else:
                self._wait = Wait(time.monotonic() + _WAIT_SECONDS)
                yield self._wait

    def _acquire_blocks(self) -> tuple[np.ndarray, tuple[Lease, ...]]:
        """Lease waiting blocks until they make a work item; none if other extractors hold the leases on all of them."""
        index_blocks: list[np.ndarray] = [np.zeros(0, np.int64)]
        leases: list[Lease] = []
        for _ in range(len(self._waiting_blocks)):
            indices, name = self._waiting_blocks.popleft()
            if (lease := self._leases.acquire(name)) is None:
                self._waiting_blocks.append((indices, name))
                continue
            index_blocks.append(indices)
            leases.append(lease)
            if 2 * sum(map(len, index_blocks)) > self._block_length:
                break
        self._active_leases += leases
        return np.concatenate(index_blocks), tuple(leases)

    def renew_leases(self) -> None:
        """Renew the leases on the current work items."""
        for lease in list(self._active_leases):
            lease.renew()

    def release(self, work_item: WorkItem) -> None:
        """Release the leases on a work item whose rows are stored."""
        for lease in work_item.leases:
            self._active_leases.remove(lease)
            lease.release()

    def close(self) -> None:
        """Release all leases."""
        while self._active_leases:
            self._active_leases.pop().release()


def _compute_block_name(work_key: str, keys: np.ndarray) -> str:
    return hashlib.sha256(work_key.encode() + keys.tobytes()).hexdigest()[:32]
