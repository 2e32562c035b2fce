"""One supervised task for each engine of the registry, by its address, for as long as it is there: all its ranks answer
as one.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from multipick_epp.pods.registry import Registry
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint


class EachEngine:
    """Invariant, once started: `_tasks` has exactly the registry's addresses."""

    def __init__(
        self,
        registry: Registry,
        supervisor: Supervisor,
        task: str,
        work: Callable[[Endpoint], Coroutine[Any, Any, None]],
    ) -> None:
        """`task` is the kind of work, `work` does it until it is cancelled."""
        self._registry = registry
        self._supervisor = supervisor
        self._task = task
        self._work = work
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}

    def start(self) -> None:
        """For the registry's engines, and those that come later."""
        self._registry.on_change(lambda _: self._follow())
        self._follow()

    async def close(self) -> None:
        """End all of it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self) -> None:
        addresses = set(self._registry.addresses())
        for address in self._tasks.keys() - addresses:
            self._tasks.pop(address).cancel()
        for address in addresses - self._tasks.keys():
            self._tasks[address] = self._supervisor.keep(self._task, partial(self._work, address), address)
