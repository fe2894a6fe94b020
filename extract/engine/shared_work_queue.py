"""Slices of the work, taken in turn, so that several extractors on one cache share it."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...cache.leases import Claim, Claims

IMAGES = 1024
_EACH = 4
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Slice:
    """Images, by number (n,), that are computed and stored together; `needs` (n, views): what is missing of each."""

    numbers: np.ndarray
    needs: np.ndarray
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Pause:
    """Nothing to do until others are done with what they have; look again at `until` (seconds of `time.monotonic`)."""

    until: float


class Slices:
    """The images of the mask `pending` (n,), in slices that no other extractor is at.

    All images, pending or not, are divided into blocks that are claimed by name, and the name is made of the block's images
    and of the work: so extractors agree on them, whenever they begin. A slice is as many blocks as have enough to do.
    missing: asks the cache anew what is missing of some images, (n, views). sharers: how many extractors are known to be
    at it; several get smaller blocks, where the work is small.
    """

    def __init__(
        self,
        pending: np.ndarray,
        keys: np.ndarray,
        work: str,
        claims: Claims,
        missing: Callable[[np.ndarray], np.ndarray],
        sharers: int = 1,
    ) -> None:
        self._length = IMAGES if sharers == 1 else max(1, min(IMAGES, len(keys) // (_EACH * sharers)))
        parts = [slice(start, start + self._length) for start in range(0, len(keys), self._length)]
        blocks = [(part.start + np.nonzero(pending[part])[0], _name(work, keys[part])) for part in parts]
        self._waiting = deque((numbers, name) for numbers, name in blocks if len(numbers))
        self._claims, self._missing = claims, missing
        self._active: list[Claim] = []
        self._pause = Pause(0.0)

    def __iter__(self) -> Iterator[Slice | Pause]:
        while self._waiting:
            if time.monotonic() < self._pause.until:  # asked for ahead of time
                yield self._pause
                continue
            numbers, claims = self._take()
            if claims:
                yield Slice(numbers, self._missing(numbers), claims)
            else:
                self._pause = Pause(time.monotonic() + _PAUSE_SECONDS)
                yield self._pause

    def _take(self) -> tuple[np.ndarray, tuple[Claim, ...]]:
        """As many of the waiting blocks as make a slice, and the claims on them; none where others have all of them."""
        taken: list[np.ndarray] = [np.zeros(0, np.int64)]
        claims: list[Claim] = []
        for _ in range(len(self._waiting)):
            numbers, name = self._waiting.popleft()
            if (claim := self._claims.take(name)) is None:
                self._waiting.append((numbers, name))
                continue
            taken.append(numbers)
            claims.append(claim)
            if 2 * sum(map(len, taken)) > self._length:
                break
        self._active += claims
        return np.concatenate(taken), tuple(claims)

    def beat(self) -> None:
        """Say that what was taken is being worked on."""
        for claim in list(self._active):
            claim.beat()

    def release(self, done: Slice) -> None:
        """Give back a slice whose rows are stored."""
        for claim in done.claims:
            self._active.remove(claim)
            claim.release()

    def close(self) -> None:
        """Give everything back."""
        while self._active:
            self._active.pop().release()


def _name(work: str, keys: np.ndarray) -> str:
    return hashlib.sha256(work.encode() + keys.tobytes()).hexdigest()[:32]
