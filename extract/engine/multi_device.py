"""Extraction on several devices: one worker process on each. Workers share the work with leases and store in one cache."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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
from ..images.load import Progress, load_source
from ..images.registry import reopen_source
from ..pixels import read_file
from .extract import ExtractResult, extract_features
from .extract_config import ExtractConfig


@dataclass(frozen=True)
class ExtractJob:
    """The job of every worker: extract the images of the source that is described into the cache at `cache`."""

    source: Mapping[str, Any]
    cache: Path
    config: ExtractConfig


def run_extract_job(devices: Sequence[str], extract_job: ExtractJob, progress: Progress | None) -> list[list[ExtractResult]]:
    """Run `extract_features` in one worker process per device; the rows are in the cache afterwards.

    Parameters
    ----------
    devices : sequence of str
        Single devices; each worker sees one of them.
    extract_job : ExtractJob
        The job of every worker. Its decoder processes are divided among the workers.
    progress : callable or None
        Called with the number of images done and the total.

    Returns
    -------
    list of list of ExtractResult
        The results of each worker, in the order of `devices`.

    Raises
    ------
    DeviceError
        If a worker is killed; the rows stored so far are kept. Errors of `extract_features` are raised as they are.
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
                for child in multiprocessing.active_children():  # they store the rows computed so far
                    os.kill(child.pid or 0, signal.SIGINT)
            for future in finished_futures:
                future.result()
            return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise DeviceError(
            f"devices {', '.join(devices)}: a worker process was killed; the rows stored so far are kept, "
            "run the command again to compute the rest"
        ) from error
    finally:
        progress_queue.put(None)
        listener.join(5)


def extract_on_devices(
    images: Images, store: Store, config: ExtractConfig, progress: Callable[[str], Progress] | None = None
) -> list[ExtractResult]:
    """Extract features as `extract_features` does, with one worker per device if the config has several.

    Each worker opens the image source again. The results include what the workers did.

    Parameters
    ----------
    images : Images
        The result of `load_images`.
    store : Store
        The cache, open for writing.
    config : ExtractConfig
        What to extract.
    progress : callable, optional
        Called with the name of a stage; returns a function of (number done, total).

    Returns
    -------
    list of ExtractResult
        One for each backbone, in order.

    Raises
    ------
    DeviceError
        If a device does not exist, or a worker is killed. Errors of `extract_features` are raised as they are.
    """
    devices = device.choose(to_tuple(config.devices))
    worker_results: list[list[ExtractResult]] = []
    if devices:
        extract_job = ExtractJob(images.source.describe(), store.path, config)
        worker_results = run_extract_job(devices, extract_job, progress(" + ".join(devices)) if progress else None)
    results = extract_features(images, store, config, progress=progress)  # nothing is missing after workers
    for parts in worker_results:
        results = [combine_results(result, part) for result, part in zip(results, parts, strict=True)]
    return results


def combine_results(result: ExtractResult, part: ExtractResult) -> ExtractResult:
    """Return `result` with the counts of a worker's result added."""
    return replace(
        result,
        computed=result.computed + part.computed,
        passes=result.passes + part.passes,
        bytes=result.bytes + part.bytes,
        seconds=max(result.seconds, part.seconds),
        rows=_add_counts(result.rows, part.rows),
        kept_float32=_add_counts(result.kept_float32, part.kept_float32),
    )


def _add_counts(counts: Mapping[str, int], more_counts: Mapping[str, int]) -> dict[str, int]:
    return {tap: counts.get(tap, 0) + more_counts.get(tap, 0) for tap in {**counts, **more_counts}}


_progress_queue: Any = None


def _initialize_worker(progress_queue: Any) -> None:
    global _progress_queue
    _progress_queue = progress_queue
    end_with_parent()


def end_with_parent() -> None:
    """Make this process exit about a second after its parent has ended, even if the parent was killed."""
    threading.Thread(target=_exit_after_parent, args=(os.getppid(),), daemon=True).start()


def _exit_after_parent(parent_pid: int) -> None:
    """Exit once the parent process has ended."""
    while os.getppid() == parent_pid:
        time.sleep(1)
    os._exit(1)


def _run_worker(index: int, device_name: str, num_extractors: int, extract_job: ExtractJob) -> list[ExtractResult]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = extract_job.config
    try:
        device.use(device_name)
        with Store(extract_job.cache, write=True) as store:
            source = reopen_source(extract_job.source, store.kv_store)
            images = load_source(source, store, limit=config.limit, jobs=config.jobs)

            def start_progress(_: str) -> Progress:
                return lambda n_done, total: (
                    _progress_queue.put((index, n_done, total)) if n_done % 16 == 0 or n_done == total else None
                )

            return extract_features(images, store, config, num_extractors=num_extractors, progress=start_progress)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is stored: an interrupt would only print a traceback


def _listen(progress_queue: Any, progress: Progress | None) -> None:
    completed_counts: dict[int, int] = {}
    while (message := progress_queue.get()) is not None:
        index, completed_counts[index], total = message
        if progress is not None:
            progress(min(sum(completed_counts.values()), total), total)
