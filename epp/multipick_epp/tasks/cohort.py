"""Coroutines that go through their stages together: cohort scheduling, after Larus and Parkes (USENIX ATC 2002).

What a decision runs through, code and tables, is more than the nearest caches of a processor hold. One decision after
the other, each finds them cold; stage by stage, only the first of a cohort does, and sixteen take a quarter less time
each (bench/README.md).

A stage ends where a coroutine awaits `stage`. It is in no task, which would cost as much as a stage: it may wait for
futures, and is made a task of where it asks for one (`eager.in_task`), for a timeout or to leave the loop for a while.
"""

import asyncio
import logging
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final, final

from multipick_epp.tasks.eager import IN_TASK, Rest

log = logging.getLogger(__name__)

_TOGETHER: Final = 16
"""So many at most: more gain little, and the loop has nothing else done meanwhile."""


@types.coroutine
def stage() -> Generator[None, None, None]:
    """To be awaited: the others of the cohort come as far first. In a task, it is `asyncio.sleep(0)`."""
    yield


@final
class Member:
    """One coroutine of a cohort."""

    __slots__ = ("_cancelled", "_cohort", "_coroutine", "_task", "_waits_for")

    def __init__(self, cohort: "Cohort", coroutine: Coroutine[Any, Any, None]) -> None:
        self._cohort = cohort
        self._coroutine = coroutine
        self._cancelled = False  # it is to be told when it goes on
        self._waits_for: asyncio.Future[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """As of a task."""
        if self._task is not None:
            self._task.cancel()
        elif self._waits_for is None or not self._waits_for.cancel():
            self._cancelled = True

    def go_on(self) -> bool:
        """Go through the next stage; whether there is another that waits for nothing."""
        try:
            if self._cancelled:
                self._cancelled = False
                waits_for = self._coroutine.throw(asyncio.CancelledError())
            else:
                waits_for = self._coroutine.send(None)
            if waits_for is None:
                return True
            if waits_for is IN_TASK:
                self._task = asyncio.get_running_loop().create_task(Rest(self._coroutine, IN_TASK))
                if self._cancelled:
                    self._task.cancel()
            else:
                self._wait_for(waits_for)
        except (StopIteration, asyncio.CancelledError):
            pass
        except Exception:  # it must cost no other
            log.exception("a member of a cohort failed")
        return False

    def _wait_for(self, future: asyncio.Future[Any]) -> None:
        future._asyncio_future_blocking = False  # as a task tells a future that it waits as agreed
        self._waits_for = future
        future.add_done_callback(self._wake)
        if self._cancelled and future.cancel():
            self._cancelled = False

    def _wake(self, _future: asyncio.Future[Any]) -> None:
        self._waits_for = None
        self._cohort.again(self)


class Cohort:
    """Of one event loop: what begins, or goes on, in one turn of it."""

    def __init__(self) -> None:
        self._ready: list[Member] = []  # where there are any, `_run` will be called

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> Member:
        """Run it with those that begin in the same turn, behind this one."""
        member = Member(self, coroutine)
        self.again(member)
        return member

    def again(self, member: Member) -> None:
        """It has waited, and goes on with the others."""
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._run)
        self._ready.append(member)

    def _run(self) -> None:
        members, self._ready = self._ready[:_TOGETHER], self._ready[_TOGETHER:]
        if self._ready:
            asyncio.get_running_loop().call_soon(self._run)
        while members:
            members = [member for member in members if member.go_on()]
