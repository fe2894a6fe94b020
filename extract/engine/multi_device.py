"""More than one device: a worker process on each. They share the work by its slices, and the cache merges the results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.errors import DeviceError
from ...cache.store import Store
from ..backbones import device
from ..backbones.backbone_spec import Request
from ..images.load import Progress, load_images
from ..pixels import read_file
from .extract import Extracted, extract_all


@dataclass(frozen=True)
class Order:
    """What every worker is to extract; `options` are those of `extract_all`."""

    data: Path
    limit: int | None
    requests: Sequence[Request]
    patterns: Sequence[str]
    cache: Path
    options: dict[str, Any]


def extract_on(devices: Sequence[str], order: Order, jobs: int | None, progress: Progress | None) -> list[list[Extracted]]:
    """What each worker did, in the order of `devices`; the rows are in the cache.

    A worker is `extract_all` in a fresh process that sees one device. Raises what it raises, and `DeviceError` when a
    worker dies; what was stored until then is kept.
    """
    context = multiprocessing.get_context("spawn")
    news = context.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(news, progress), daemon=True)
    listener.start()
    each = max(1, (jobs or read_file.cores()) // len(devices))
    try:
        with ProcessPoolExecutor(len(devices), context, _begin, (news,)) as pool:
            working = [pool.submit(_work, number, name, len(devices), order, each) for number, name in enumerate(devices)]
            done, others = wait(working, return_when=FIRST_EXCEPTION)
            if others and any(future.exception() for future in done):
                for child in multiprocessing.active_children():  # they store what they have
                    os.kill(child.pid or 0, signal.SIGINT)
            for future in done:
                future.result()
            return [future.result() for future in working]
    except BrokenProcessPool as error:
        raise DeviceError(
            f"devices {', '.join(devices)}: expected every worker to come to its end, found one that was killed; "
            "what was stored is kept, run the command again for the rest"
        ) from error
    finally:
        news.put(None)
        listener.join(5)


def extract_apart(
    devices: Sequence[str], orders: Sequence[Order], jobs: int | None, progress: Callable[[str], Progress]
) -> list[list[Extracted]]:
    """What each worker did of all `orders`, one after the other; [] without devices. Raises as `extract_on`."""
    if not devices:
        return []
    parts = [extract_on(devices, order, jobs, progress(" + ".join(devices))) for order in orders]
    return [[each for part in worker for each in part] for worker in zip(*parts, strict=True)]


def add_all(totals: Sequence[Extracted], apart: Sequence[Sequence[Extracted]]) -> None:
    """Count in `totals` what workers did, each of which did the same requests in the same order."""
    for parts in apart:
        for total, part in zip(totals, parts, strict=True):
            add(total, part)


def add(total: Extracted, part: Extracted) -> None:
    """Count in `total` what a worker did."""
    total.computed += part.computed
    total.passes += part.passes
    total.bytes += part.bytes
    total.seconds = max(total.seconds, part.seconds)
    for mine, its in ((total.rows, part.rows), (total.wide, part.wide)):
        for tap, count in its.items():
            mine[tap] = mine.get(tap, 0) + count


_news: Any = None


def _begin(news: Any) -> None:
    global _news
    _news = news
    end_with_parent()


def end_with_parent() -> None:
    """Let this process leave soon after the one that started it is gone, however that ended."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Leave when the parent is gone: nobody would ask for the result."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(number: int, name: str, sharers: int, order: Order, jobs: int) -> list[Extracted]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        device.use(name)
        with Store(order.cache, write=True) as store:
            images = load_images(order.data, store, limit=order.limit, jobs=jobs)

            def stage(_: str) -> Progress:
                return lambda done, total: _news.put((number, done, total)) if done % 16 == 0 or done == total else None

            return extract_all(
                images, order.requests, order.patterns, store, jobs=jobs, sharers=sharers, progress=stage, **order.options
            )
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to store, and a traceback would tell nobody anything


def _listen(news: Any, progress: Progress | None) -> None:
    done: dict[int, int] = {}
    while (item := news.get()) is not None:
        number, done[number], total = item
        if progress is not None:
            progress(min(sum(done.values()), total), total)
