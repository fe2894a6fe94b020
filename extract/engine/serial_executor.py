"""One step of the assembly line: a thread that does what it is given, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Stage:
    """Calls run one after another in a thread of their own; giving one waits while `ahead` others are not done.

    What a call raises is raised to whoever gives the next one, or by `drain`.
    """

    def __init__(self, name: str, ahead: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._given: deque[Future[Any]] = deque()
        self._ahead = ahead

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Give a call."""
        while len(self._given) >= self._ahead or (self._given and self._given[0].done()):
            self._given.popleft().result()
        self._given.append(self._pool.submit(function, *arguments))

    def drain(self) -> None:
        """Wait until everything is done; the first thing that was raised is raised when the rest is done too."""
        raised: BaseException | None = None
        while self._given:
            error = self._given.popleft().exception()
            raised = raised or error
        if raised is not None:
            raise raised

    def close(self) -> None:
        """Wait for what was given and end the thread."""
        self._pool.shutdown()
