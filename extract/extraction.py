"""Stage one: run frozen networks once over each image and store the activations of every tap."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..cache import compression as compressing
from ..cache.errors import BackboneError, CacheFull
from ..cache.files import free_bytes
from ..cache.store import Store
from . import pixels, source
from .augment import Policy
from .backbone import Backbone, build
from .card import Card, look_up
from .dataset import Refusal
from .decoders import Decoders
from .images import Images, Progress
from .lane import Lane
from .not_finite import images_at_fault
from .request import Request
from .rows import Rows
from .slices import Pause, Slice, Slices
from .stage import Stage
from .taps import Tap, resolve


@dataclass
class Extracted:
    """What one extraction did.

    computed: image views that went through the network; passes: batches of them; rows: stored rows per tap; wide: those
    that float16 cannot hold and that are stored in float32; seconds: of the pass, which backbones of one image size share.
    not_finite: how many images gave NaN or infinity, for each tap where any did; such rows are not stored, and the images
    are refused unless most images are so there.
    """

    card: Card
    taps: list[Tap]
    images: Images
    views: int = 0
    computed: int = 0
    passes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    wide: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0
    not_finite: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "backbone": self.card.spec.title,
            "extraction": self.card.spec.folder,
            "precision": self.card.spec.precision,
            "taps": [str(tap) for tap in self.taps],
            "images": len(self.images.used),
            "views": self.views,
            "computed": self.computed,
            "forward_passes": self.passes,
            "rows": self.rows,
            "rows_kept_in_float32": self.wide,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "not_finite": self.not_finite,
        }


@dataclass
class _Job:
    """One backbone's part of the work; `missing` as `Rows.missing`."""

    request: Request
    rows: Rows
    backbone: Backbone | None
    missing: dict[Tap, np.ndarray]
    result: Extracted

    @property
    def pending(self) -> np.ndarray:
        """Mask (n,) of the images that lack a row at any tap."""
        return np.asarray(np.logical_or.reduce([mask.any(axis=1) for mask in self.missing.values()]))


def extract_features(
    images: Images,
    request: Request | str,
    patterns: Sequence[str],
    store: Store,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Extracted:
    """Fill the cache with the taps of one backbone that `patterns` name, for `images`; only what is missing is computed.

    `request` is a backbone (`mobilenet_v2,alpha=0.35`). `options` and errors are those of `extract_all`.
    """
    request = Request.parse(request) if isinstance(request, str) else request
    stage = None if progress is None else lambda _: progress
    return extract_all(images, [request], patterns, store, progress=stage, **options)[0]


def extract_all(
    images: Images,
    requests: Sequence[Request],
    patterns: Sequence[str],
    store: Store,
    *,
    pools: Sequence[str] = (),
    views: int = 0,
    policy: Policy | None = None,
    compression: str = "none",
    batch_size: int = 32,
    jobs: int | None = None,
    sharers: int = 1,
    progress: Callable[[str], Progress] | None = None,
) -> list[Extracted]:
    """Fill the cache with the taps that `patterns` name, of each backbone; backbones of one image size share the decoding.

    Without patterns a backbone's default taps are taken. With `views`, so many augmentations of each image by `policy` are
    cached beside the plain one. `compression` is that of whole maps (`none`, `gzip`, `blosc2`). `jobs` decoder processes
    work ahead. `sharers` extractors do the same work at once, and share it. Images that cannot be decoded are refused and
    the rest is done. On `KeyboardInterrupt` what was computed is stored before the interrupt goes on. Raises
    `BackboneError`, `LayerError`, `CacheReadOnly`, `CacheFull`, and `CacheError` for a compression that cannot be used.
    """
    compressing.check(compression)
    work = [_job(images, request, patterns, store, pools, views, policy) for request in requests]
    if compression == "none":
        _check_room(work, store)
    for job in work:
        if job.missing or not job.rows.created:
            job.rows.create()  # finds out a read-only cache before a network runs
    sizes: dict[tuple[int, int], list[_Job]] = {}
    for job in work:
        if job.missing:
            sizes.setdefault(job.result.card.spec.image_size, []).append(job)
    for size, together in sizes.items():
        began = time.monotonic()
        stage = progress(" + ".join(job.request.title for job in together)) if progress else None
        try:
            refused = _Pass(images, size, together, store, batch_size, jobs or source.cores(), compression, sharers)(stage)
        finally:
            for job in together:
                job.result.seconds = time.monotonic() - began
        images = images.without(refused)
    for job in work:
        images = images.without(_not_finite(job, images))
    for job in work:
        job.result.images = images
    images.known.save()
    store.close()
    return [job.result for job in work]


def _job(
    images: Images,
    request: Request,
    patterns: Sequence[str],
    store: Store,
    pools: Sequence[str],
    views: int,
    policy: Policy | None,
) -> _Job:
    card, backbone = look_up(request, store.memo)
    taps = resolve(patterns, card.layers, card.defaults, pools)
    rows = Rows(store, card, taps, views, policy)
    return _Job(request, rows, backbone, rows.missing(images.keys), Extracted(card, taps, images, views))


def _check_room(work: Sequence[_Job], store: Store) -> None:
    """Raise `CacheFull` when the disk cannot hold what is missing: better now than after hours."""
    needed, free = sum(job.rows.size(job.missing) for job in work), free_bytes(store.path)
    if needed > free:
        raise CacheFull(
            f"{store.path}: expected {needed:,} bytes free for the rows to compute, found {free:,}; give fewer or smaller "
            "taps (--dry-run lists them), compress whole maps with --compress, or give another folder with --cache"
        )


def _built(job: _Job, store: Store) -> Backbone:
    backbone, spec = job.backbone or build(job.request), job.result.card.spec
    if backbone.spec.digest != spec.digest:
        raise BackboneError(
            f"backbone {job.request.title}: expected the weights {spec.weights_sha256[:12]} that were there before, "
            f"found {backbone.spec.weights_sha256[:12]}; delete {store.path / 'known'} and run the command again"
        )
    return backbone


@dataclass(frozen=True)
class _Decode:
    number: int
    views: tuple[int, ...]


class _Pass:
    """Images of one size through the networks of `together`.

    Decoders work ahead in processes of their own, this thread hands their images out, one thread computes, one stores.
    """

    def __init__(
        self,
        images: Images,
        size: tuple[int, int],
        together: Sequence[_Job],
        store: Store,
        batch_size: int,
        jobs: int,
        compression: str,
        sharers: int,
    ) -> None:
        self._images, self._size, self._together = images, size, together
        self._ahead, self._jobs = 2 * batch_size + 2 * jobs, jobs
        self._stages = Stage("compute", 2), Stage("store", 1)
        keys = images.keys
        self._lanes = [
            Lane(job.rows, _built(job, store).graph, job.missing, keys, batch_size, self._stages, compression)
            for job in together
        ]
        pending = np.nonzero(np.logical_or.reduce([job.pending for job in together]))[0]
        names = [f"{job.result.card.spec.digest} {[str(tap) for tap in job.missing]}" for job in together]
        policy = together[0].rows.policy
        self._policy = str(policy) if policy else ""
        what = f"{names} {self._policy} {together[0].rows.views}"
        self._slices = Slices(pending, keys, batch_size, what, store.claims, self._missing, sharers)
        self._total = len(pending)

    def __call__(self, progress: Progress | None) -> dict[str, Refusal]:
        """The images that turned out to be unusable, by name."""
        compute, storing = self._stages
        refused: dict[str, Refusal] = {}
        done = 0
        with ExitStack() as stack:
            stack.callback(self._account)
            stack.callback(self._slices.close)
            stack.callback(storing.close)
            stack.callback(storing.drain)
            for lane in self._lanes:  # what was computed is stored, also after an interruption
                stack.callback(lane.writer.flush)
            stack.callback(compute.close)
            stack.callback(compute.drain)
            decoders = stack.enter_context(Decoders(self._jobs))
            steps = source.in_order(lambda step: self._decode(step, decoders), self._steps(), self._jobs, self._ahead)
            stack.enter_context(closing(steps))
            for step, outcome in steps:
                self._slices.beat()
                if isinstance(step, Pause):
                    time.sleep(max(0.0, step.until - time.monotonic()))
                elif isinstance(step, Slice):
                    self._total -= int((~step.needs.any(axis=1)).sum())
                    self._finish(step)
                elif isinstance(outcome, pixels.Refused):
                    image = self._images.used[step.number]
                    refused[image.name] = Refusal(image.name, outcome.reason, str(outcome))
                    if outcome.reason in pixels.LASTING:
                        self._images.known.refuse(image.name, outcome.reason, str(outcome))
                    done += 1
                else:
                    for view, pixel in zip(step.views, outcome, strict=True):
                        for lane in self._lanes:
                            lane.add(step.number, view, pixel)
                    done += 1
                if progress is not None:
                    progress(done, self._total)
        return refused

    def _missing(self, numbers: np.ndarray) -> np.ndarray:
        return np.asarray(np.logical_or.reduce([lane.missing(numbers) for lane in self._lanes]))

    def _steps(self) -> Iterator[_Decode | Slice | Pause]:
        """What is to be done, in order; a slice comes after its images."""
        for turn in self._slices:
            if isinstance(turn, Slice):
                for number, needs in zip(turn.numbers, turn.needs, strict=True):
                    if needs.any():
                        yield _Decode(int(number), tuple(np.nonzero(needs)[0].tolist()))
            yield turn

    def _decode(self, step: _Decode | Slice | Pause, decoders: Decoders) -> tuple[Any, Any]:
        if not isinstance(step, _Decode):
            return step, None
        try:
            image = self._images.used[step.number]
            file = image.path if image.item.in_file else image.item.read()
            return step, decoders.decode(file, self._size, image.digest, step.views, self._policy)
        except pixels.Refused as refused:
            return step, refused

    def _finish(self, done: Slice) -> None:
        """Compute and store the rest of a slice, and then give it back."""
        compute, storing = self._stages
        for lane in self._lanes:
            lane.finish()
        compute(storing, self._slices.release, done.claim)

    def _account(self) -> None:
        for job, lane in zip(self._together, self._lanes, strict=True):
            result, writer = job.result, lane.writer
            result.computed, result.passes, result.bytes = lane.images, lane.passes, writer.bytes
            result.rows = {str(tap): count for tap, count in writer.stored.items() if tap in job.missing}
            result.wide = {str(tap): count for tap, count in writer.wide.items() if count}


def _not_finite(job: _Job, images: Images) -> dict[str, Refusal]:
    """The images without a finite row, to be refused; counts those of each tap."""
    masks = {tap: job.rows.not_finite(tap, images.keys) for tap in job.result.taps}
    counts = {tap: int(np.logical_or.reduce(columns).sum()) for tap, columns in masks.items()}
    job.result.not_finite = {str(tap): count for tap, count in counts.items() if count}
    refused = {}
    for number in np.nonzero(images_at_fault([columns[0] for columns in masks.values()]))[0]:
        name = images.used[number].name
        where = ", ".join(str(tap) for tap, columns in masks.items() if columns[0][number])
        refused[name] = Refusal(name, "not_finite", f"NaN or infinite activations at {where}")
    return refused
