"""Keeps alive what lives long: starts it again when it fails, after a pause that grows, and says so."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from multipick_epp.tasks.backoff import Backoff

log = logging.getLogger(__name__)

_PAUSE_S = (0.1, 10.0)  # first and longest pause before work is started again
LONG_ENOUGH_S = 60.0
"""After so long without a failure, work counts as healthy: the next pause is the first again."""
_WORDS = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of work that is not known to be healthy again."""

    task: str  # the kind of work: fit for a metric's label
    about: str  # what it is done for, such as an endpoint; "" where there is one of its kind
    why: str


class Supervisor:
    """Invariant: `_tasks` has exactly the tasks that are not done."""

    def __init__(self) -> None:
        self.restarts: Counter[str] = Counter()  # by kind of work
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: dict[tuple[str, str], tuple[float, str]] = {}  # loop time and why

    def keep(self, task: str, work: Callable[[], Coroutine[Any, Any, None]], about: str = "") -> asyncio.Task[None]:
        """Run `work` until it returns or is cancelled; after an exception, again. `task` is its kind."""
        kept = asyncio.get_running_loop().create_task(self._run(task, about, work), name=f"{task} {about}".strip())
        self._tasks.add(kept)
        kept.add_done_callback(self._tasks.discard)
        return kept

    @property
    def failing(self) -> Sequence[Failure]:
        """What failed within the last LONG_ENOUGH_S."""
        since = asyncio.get_running_loop().time() - LONG_ENOUGH_S
        self._failures = {key: failure for key, failure in self._failures.items() if failure[0] >= since}
        return [Failure(task, about, why) for (task, about), (_, why) in self._failures.items()]

    async def close(self) -> None:
        """End all of it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, task: str, about: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(*_PAUSE_S)
        try:
            while True:
                started = loop.time()
                try:
                    await work()
                    return
                except Exception as error:
                    if loop.time() - started >= LONG_ENOUGH_S:
                        backoff.reset()
                    pause_s = backoff.next_s()
                    self.restarts[task] += 1
                    self._failures[task, about] = loop.time(), (str(error) or type(error).__name__)[:_WORDS]
                    log.exception("%s failed", task, extra={"about": about, "again_in_s": pause_s})
                await asyncio.sleep(pause_s)
        finally:
            self._failures.pop((task, about), None)
