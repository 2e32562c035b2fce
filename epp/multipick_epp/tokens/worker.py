"""Threads for work that would hold the event loop, with a bound on what waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from multipick_epp.tokens.outcome import NoText

_T = TypeVar("_T")


class Worker:
    """Used by one event loop."""

    def __init__(self, threads: int, max_waiting: int) -> None:
        """`max_waiting` bounds the sum of the sizes of all work that is not finished."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tokens")
        self._max_waiting = max_waiting
        self._waiting = 0  # the sum of the sizes of all work that is not finished; 0 when idle

    def start(self, size: int, work: Callable[[], _T]) -> "asyncio.Future[_T]":
        """The coming result of `work`, which is dropped if the future is cancelled before it begins.

        Raises NoText where too much waits already, and after `close`.
        """
        if self._waiting + size > self._max_waiting:
            raise NoText("tokenizer is busy")
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:
            raise NoText("closed") from error
        self._waiting += size
        future.add_done_callback(lambda _: self._done(size))
        return future

    async def run(self, size: int, work: Callable[[], _T]) -> _T:
        """The result of `work`, for this caller alone. Raises NoText as `start` does, and if it is closed meanwhile."""
        future = self.start(size, work)
        try:
            await asyncio.wait([future])
        finally:
            future.cancel()  # where the caller is; no harm to a result
        if future.cancelled():
            raise NoText("closed")
        return future.result()

    def _done(self, size: int) -> None:
        self._waiting -= size

    def close(self) -> None:
        """Cancels what has not begun. What has begun goes on to its end, unheard."""
        self._threads.shutdown(wait=False, cancel_futures=True)
