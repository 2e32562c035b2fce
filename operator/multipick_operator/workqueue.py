"""A keyed work queue: what is added many times while it waits is done once, and never twice at the same time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
BASE_S = 0.05
CAP_S = 60.0


class WorkQueue(Generic[Key]):
    """Keys to work on.

    Invariants: a key of `_waiting` is in `_ready` exactly once; a key of `_running` is in neither, and comes back when
    it is done if it is in `_again`; `_failures[key]` counts the failures since the last success; `_timers` holds at
    most one timer a key, the earliest asked for; `_idle` is set while `_running` is empty.
    """

    def __init__(
        self, base_s: float = BASE_S, cap_s: float = CAP_S, expected: tuple[type[Exception], ...] = ()
    ) -> None:
        """`expected` failures are logged in their words, others with a traceback."""
        self._base_s = base_s
        self._cap_s = cap_s
        self._expected = expected
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Work on `key` soon; once more, if it is being worked on now."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, delay_s: float) -> None:
        """Work on `key` after a while, or earlier if a timer for it runs out before."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + delay_s
        if (timer := self._timers.get(key)) and timer.when() <= when:
            return
        if timer:
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._fire, key)

    async def work(self, handler: Callable[[Key], Awaitable[float | None]]) -> None:
        """One worker: handle keys for ever. `handler` returns seconds to the next look, or None.

        A handler that raises is called again for the same key, after a delay that doubles with each failure.
        """
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            if self._closed:
                self._ready.task_done()
                continue
            self._running.add(key)
            self._idle.clear()
            try:
                delay_s = await handler(key)
            except Exception as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                delay_s = self.backoff_s(failures)
                told = {"key": key, "failures": failures, "retry_s": delay_s, "why": str(error) or type(error).__name__}
                log.warning("failed", extra=told, exc_info=not isinstance(error, self._expected))
            else:
                self._failures.pop(key, None)
            finally:
                self._running.discard(key)
                if not self._running:
                    self._idle.set()
                self._ready.task_done()
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
            if delay_s is not None:
                self.add_after(key, delay_s)

    def backoff_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return float(min(self._cap_s, self._base_s * 2 ** min(failures - 1, 30)))

    async def settle(self) -> None:
        """Wait until everything added so far is done (timers not counted)."""
        await self._ready.join()

    def close(self) -> None:
        """Begin nothing any more: what waits is dropped, and nothing comes back by itself."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def finish(self) -> None:
        """Wait until what was in hand is done."""
        await self._idle.wait()

    def _fire(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)
