"""Single-thread executor with a bounded queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class SerialExecutor:
    """Runs calls one after another in a thread; submitting one blocks while `max_pending` calls are unfinished.

    An exception of a call is raised by a later submission, or by `drain`.

    Parameters
    ----------
    name : str
        The name of the thread.
    max_pending : int
        The largest number of unfinished calls.
    """

    def __init__(self, name: str, max_pending: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._futures: deque[Future[Any]] = deque()
        self._max_pending = max_pending

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Submit a call; raises the exception of an earlier one."""
        while len(self._futures) >= self._max_pending or (self._futures and self._futures[0].done()):
            self._futures.popleft().result()
        self._futures.append(self._pool.submit(function, *arguments))

    def drain(self) -> None:
        """Wait until all calls are finished, then raise the first exception, if any."""
        first_error: BaseException | None = None
        while self._futures:
            error = self._futures.popleft().exception()
            first_error = first_error or error
        if first_error is not None:
            raise first_error

    def close(self) -> None:
        """Wait until all calls are finished and end the thread."""
        self._pool.shutdown()
