"""Threads for work that would hold the event loop, with a bound on what waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class Worker:
    """Used by one event loop."""

    def __init__(self, threads: int, max_waiting: int) -> None:
        """`max_waiting` bounds the sum of the sizes of all work that is not finished."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tokens")
        self._max_waiting = max_waiting
        self._waiting = 0  # the sum of the sizes of all work that is not finished; 0 when idle

    def start(self, size: int, work: Callable[[], _T]) -> "asyncio.Future[_T] | None":
        """The coming result of `work`; None where too much waits already. Work that is cancelled never starts."""
        if self._waiting + size > self._max_waiting:
            return None
        self._waiting += size
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(lambda _: self._done(size))
        return future

    def _done(self, size: int) -> None:
        self._waiting -= size

    def close(self) -> None:
        """Cancels what has not begun. What has begun goes on to its end, unheard."""
        self._threads.shutdown(wait=False, cancel_futures=True)
