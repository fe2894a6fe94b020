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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...cache.errors import DeviceError
from ...cache.store import Store
from ..backbones import device
from ..config import to_tuple
from ..images.images import Images
from ..images.load import Progress, load_images
from ..pixels import read_file
from .extract import ExtractResult, extract_features
from .extract_config import ExtractConfig


@dataclass(frozen=True)
class ExtractJob:
    """What every worker is to extract: the images at `data`, into the cache at `cache`."""

    data: Path | str
    cache: Path
    config: ExtractConfig


def run_extract_job(devices: Sequence[str], extract_job: ExtractJob, progress: Progress | None) -> list[list[ExtractResult]]:
    """What each worker did, in the order of `devices`; the rows are in the cache.

    A worker is `extract_features` in a fresh process that sees one device. Raises what it raises, and `DeviceError` when a
    worker dies; what was stored until then is kept.
    """
    context = multiprocessing.get_context("spawn")
    progress_queue = context.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(progress_queue, progress), daemon=True)
    listener.start()
    config = extract_job.config
    jobs = max(1, (config.jobs or read_file.count_cores()) // len(devices))
    worker_job = replace(extract_job, config=replace(config, jobs=jobs))
    try:
        with ProcessPoolExecutor(len(devices), context, _initialize_worker, (progress_queue,)) as pool:
            futures = [pool.submit(_run_worker, index, name, len(devices), worker_job) for index, name in enumerate(devices)]
            finished_futures, unfinished_futures = wait(futures, return_when=FIRST_EXCEPTION)
            if unfinished_futures and any(future.exception() for future in finished_futures):
                for child in multiprocessing.active_children():  # they store what they have
                    os.kill(child.pid or 0, signal.SIGINT)
            for future in finished_futures:
                future.result()
            return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise DeviceError(
            f"devices {', '.join(devices)}: expected every worker to come to its end, found one that was killed; "
            "what was stored is kept, run the command again for the rest"
        ) from error
    finally:
        progress_queue.put(None)
        listener.join(5)


def extract_on_devices(
    images: Images, store: Store, config: ExtractConfig, progress: Callable[[str], Progress] | None = None
) -> list[ExtractResult]:
    """`extract_features`, where the config names several devices by a worker on each of them.

    What the workers did counts as done here. The images are read again by each worker, from where they lie. Raises what
    `extract_features` raises, and `DeviceError`.
    """
    devices = device.choose(to_tuple(config.devices))
    worker_results: list[list[ExtractResult]] = []
    if devices:
        extract_job = ExtractJob(images.source.data, store.path, config)
        worker_results = run_extract_job(devices, extract_job, progress(" + ".join(devices)) if progress else None)
    results = extract_features(images, store, config, progress=progress)  # what the workers left: nothing
    for parts in worker_results:
        for result, part in zip(results, parts, strict=True):
            add_result(result, part)
    return results


def add_result(total: ExtractResult, part: ExtractResult) -> None:
    """Count in `total` what a worker did."""
    total.computed += part.computed
    total.passes += part.passes
    total.bytes += part.bytes
    total.seconds = max(total.seconds, part.seconds)
    for total_counts, part_counts in ((total.rows, part.rows), (total.kept_float32, part.kept_float32)):
        for tap, count in part_counts.items():
            total_counts[tap] = total_counts.get(tap, 0) + count


_progress_queue: Any = None


def _initialize_worker(progress_queue: Any) -> None:
    global _progress_queue
    _progress_queue = progress_queue
    end_with_parent()


def end_with_parent() -> None:
    """Let this process leave soon after the one that started it is gone, however that ended."""
    threading.Thread(target=_exit_after_parent, args=(os.getppid(),), daemon=True).start()


def _exit_after_parent(parent_pid: int) -> None:
    """Leave when the parent is gone: nobody would ask for the result."""
    while os.getppid() == parent_pid:
        time.sleep(1)
    os._exit(1)


def _run_worker(index: int, device_name: str, num_extractors: int, extract_job: ExtractJob) -> list[ExtractResult]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = extract_job.config
    try:
        device.use(device_name)
        with Store(extract_job.cache, write=True) as store:
            images = load_images(extract_job.data, store, limit=config.limit, jobs=config.jobs)

            def start_progress(_: str) -> Progress:
                return lambda n_done, total: (
                    _progress_queue.put((index, n_done, total)) if n_done % 16 == 0 or n_done == total else None
                )

            return extract_features(images, store, config, num_extractors=num_extractors, progress=start_progress)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to store, and a traceback would tell nobody anything


def _listen(progress_queue: Any, progress: Progress | None) -> None:
    completed_counts: dict[int, int] = {}
    while (message := progress_queue.get()) is not None:
        index, completed_counts[index], total = message
        if progress is not None:
            progress(min(sum(completed_counts.values()), total), total)
