"""Slices of the work, taken in turn, so that several extractors on one cache share it."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..cache.claims import Claim, Claims

IMAGES = 1024
_EACH = 4
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Slice:
    """Images, by number (n,), that are computed and stored together; `needs` (n, views): what is missing of each."""

    numbers: np.ndarray
    needs: np.ndarray
    claim: Claim


@dataclass(frozen=True)
class Pause:
    """Nothing to do until others are done with what they have; look again at `until` (seconds of `time.monotonic`)."""

    until: float


class Slices:
    """The images `pending` (n,), in slices that no other extractor is at.

    missing: asks the cache anew what is missing of some images, (n, views). sharers: how many extractors are known to be
    at it; several get smaller slices, where the work is small. The name of a slice is made of the work
    itself, so that extractors of the same data agree on it. Rows that others store meanwhile are not computed again.
    """

    def __init__(
        self,
        pending: np.ndarray,
        keys: np.ndarray,
        batch_size: int,
        work: str,
        claims: Claims,
        missing: Callable[[np.ndarray], np.ndarray],
        sharers: int = 1,
    ) -> None:
        length = IMAGES if sharers == 1 else min(IMAGES, -(-len(pending) // (_EACH * sharers)))
        length = -(-length // batch_size) * batch_size
        parts = [pending[start : start + length] for start in range(0, len(pending), length)]
        self._waiting = deque((part, _name(work, keys[part])) for part in parts)
        self._claims, self._missing = claims, missing
        self._active: list[Claim] = []

    def __iter__(self) -> Iterator[Slice | Pause]:
        while self._waiting:
            progress = False
            for _ in range(len(self._waiting)):
                numbers, name = self._waiting.popleft()
                if (claim := self._claims.take(name)) is None:
                    self._waiting.append((numbers, name))
                    continue
                self._active.append(claim)
                progress = True
                yield Slice(numbers, self._missing(numbers), claim)
            if not progress:
                yield Pause(time.monotonic() + _PAUSE_SECONDS)

    def beat(self) -> None:
        """Say that what was taken is being worked on."""
        for claim in self._active:
            claim.beat()

    def release(self, claim: Claim) -> None:
        """Give back a slice whose rows are stored."""
        self._active.remove(claim)
        claim.release()

    def close(self) -> None:
        """Give everything back."""
        for claim in list(self._active):
            self.release(claim)


def _name(work: str, keys: np.ndarray) -> str:
    return hashlib.sha256(work.encode() + keys.tobytes()).hexdigest()[:32]
