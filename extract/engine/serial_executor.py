"""One step of the assembly line: a thread that does what it is given, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class SerialExecutor:
    """Calls run one after another in a thread of their own; giving one waits while `max_pending` others are not done.

    What a call raises is raised to whoever gives the next one, or by `drain`.
    """

    def __init__(self, name: str, max_pending: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._futures: deque[Future[Any]] = deque()
        self._max_pending = max_pending

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Give a call."""
        while len(self._futures) >= self._max_pending or (self._futures and self._futures[0].done()):
            self._futures.popleft().result()
        self._futures.append(self._pool.submit(function, *arguments))

    def drain(self) -> None:
        """Wait until everything is done; the first thing that was raised is raised when the rest is done too."""
        first_error: BaseException | None = None
        while self._futures:
            error = self._futures.popleft().exception()
            first_error = first_error or error
        if first_error is not None:
            raise first_error

    def close(self) -> None:
        """Wait for what was given and end the thread."""
        self._pool.shutdown()
