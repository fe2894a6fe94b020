"""Parts of the work, taken in turn, so that several extractors on one cache share it."""

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
    """Images, by number (n,), that are computed and stored together; `missing_mask` (n, views): what is missing of each."""

    indices: np.ndarray
    missing_mask: np.ndarray
    leases: tuple[Lease, ...]


@dataclass(frozen=True)
class Wait:
    """Nothing to do until others are done with what they have; look again at `until` (seconds of `time.monotonic`)."""

    until: float


class SharedWorkQueue:
    """The images of the mask `pending` (n,), in work items that no other extractor is at.

    All images, pending or not, are divided into blocks that are leased by name, and the name is made of the block's images
    and of the work: so extractors agree on them, whenever they begin. An item is as many blocks as have enough to do.
    find_missing: asks the cache anew what is missing of some images, (n, views). num_extractors: how many are known to be
    at it; several get smaller blocks, where the work is small.
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
            if time.monotonic() < self._wait.until:  # asked for ahead of time
                yield self._wait
                continue
            indices, leases = self._acquire_blocks()
            if leases:
                yield WorkItem(indices, self._find_missing(indices), leases)
            else:
                self._wait = Wait(time.monotonic() + _WAIT_SECONDS)
                yield self._wait

    def _acquire_blocks(self) -> tuple[np.ndarray, tuple[Lease, ...]]:
        """As many of the waiting blocks as make a work item, and the leases on them; none where others have all of them."""
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
        """Say that what was taken is being worked on."""
        for lease in list(self._active_leases):
            lease.renew()

    def release(self, work_item: WorkItem) -> None:
        """Give back a slice whose rows are stored."""
        for lease in work_item.leases:
            self._active_leases.remove(lease)
            lease.release()

    def close(self) -> None:
        """Give everything back."""
        while self._active_leases:
            self._active_leases.pop().release()


def _compute_block_name(work_key: str, keys: np.ndarray) -> str:
    return hashlib.sha256(work_key.encode() + keys.tobytes()).hexdigest()[:32]
