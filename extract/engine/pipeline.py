"""One pass over the images: decoded ahead, handed to every network, computed and stored, all at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.leases import Claims
from ..images.dataset import Refusal
from ..images.load import Images, Progress
from ..pixels import decode, read_file
from ..pixels.decode_pool import Decoders
from .backbone_batcher import Lane
from .serial_executor import Stage
from .shared_work_queue import Pause, Slice, Slices

_TOGETHER = 8


@dataclass(frozen=True)
class _Decode:
    """An image, by number, and up to `_TOGETHER` of its views; `last` of those that are wanted."""

    number: int
    views: tuple[int, ...]
    last: bool


_Step = _Decode | Slice | Pause


class Conveyor:
    """Images of one `size` through the networks of several lanes, which all have the same views.

    `jobs` decoders work ahead in processes of their own, this thread hands their images out, `compute` computes and `store`
    stores, each in a thread of its own. Slices of the work are shared with other extractors by `claims`.
    """

    def __init__(
        self,
        images: Images,
        size: tuple[int, int],
        lanes: Sequence[Lane],
        compute: Stage,
        store: Stage,
        claims: Claims,
        *,
        batch_size: int,
        jobs: int,
        sharers: int,
    ) -> None:
        self._images, self._size, self._lanes = images, size, lanes
        self._compute, self._store = compute, store
        self._policy = lanes[0].rows.policy
        together = min(1 + lanes[0].rows.views, _TOGETHER)
        self._jobs, self._ahead = jobs, 2 * batch_size // together + 2 * jobs
        pending = np.logical_or.reduce([lane.pending for lane in lanes])
        work = " ".join(lane.rows.work for lane in lanes)
        self._slices = Slices(pending, images.keys, work, claims, self._missing, sharers)
        self._total = int(pending.sum())

    def run(self, progress: Progress | None = None) -> dict[str, Refusal]:
        """Do all of it; the images that turned out to be unusable, by name.

        What was computed is stored also when this is interrupted.
        """
        refused: dict[str, Refusal] = {}
        done = 0
        with ExitStack() as stack:
            stack.callback(self._slices.close)
            stack.callback(self._store.close)
            stack.callback(self._store.drain)
            for lane in self._lanes:
                stack.callback(lane.writer.flush)
            stack.callback(self._compute.close)
            stack.callback(self._compute.drain)
            decoders = stack.enter_context(Decoders(self._jobs))
            steps = read_file.in_order(lambda step: self._decode(step, decoders), self._steps(), self._jobs, self._ahead)
            stack.enter_context(closing(steps))
            for step, outcome in steps:
                self._slices.beat()
                if isinstance(step, Pause):
                    time.sleep(max(0.0, step.until - time.monotonic()))
                elif isinstance(step, Slice):
                    self._total -= int((~step.needs.any(axis=1)).sum())
                    self._finish(step)
                else:
                    done += step.last
                    if isinstance(outcome, decode.Refused):
                        refused.update(self._refuse(step, outcome))
                    else:
                        self._hand_out(step, outcome)
                if progress is not None:
                    progress(done, self._total)
        return refused

    def _missing(self, numbers: np.ndarray) -> np.ndarray:
        return np.asarray(np.logical_or.reduce([lane.missing(numbers) for lane in self._lanes]))

    def _steps(self) -> Iterator[_Step]:
        """What is to be done, in order; a slice comes after its images."""
        for turn in self._slices:
            if isinstance(turn, Slice):
                for number, needs in zip(turn.numbers, turn.needs, strict=True):
                    views = np.nonzero(needs)[0].tolist()
                    for start in range(0, len(views), _TOGETHER):
                        part = tuple(views[start : start + _TOGETHER])
                        yield _Decode(int(number), part, start + len(part) == len(views))
            yield turn

    def _decode(self, step: _Step, decoders: Decoders) -> tuple[Any, Any]:
        if not isinstance(step, _Decode):
            return step, None
        try:
            image = self._images.used[step.number]
            file = image.path if image.item.in_file else image.item.read()
            return step, decoders.decode(file, self._size, image.digest, step.views, str(self._policy or ""))
        except decode.Refused as refused:
            return step, refused

    def _hand_out(self, step: _Decode, views: np.ndarray) -> None:
        for view, pixel in zip(step.views, views, strict=True):
            for lane in self._lanes:
                lane.add(step.number, view, pixel)

    def _refuse(self, step: _Decode, why: decode.Refused) -> dict[str, Refusal]:
        name = self._images.used[step.number].name
        if why.reason in decode.LASTING:
            self._images.known.refuse(name, why.reason, str(why))
        return {name: Refusal(name, why.reason, str(why))}

    def _finish(self, done: Slice) -> None:
        """Compute and store the rest of a slice, and then give it back."""
        for lane in self._lanes:
            lane.finish()
        self._compute(self._store, self._slices.release, done)
