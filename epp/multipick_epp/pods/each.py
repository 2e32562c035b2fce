"""One supervised task for each endpoint of the registry, for as long as it is there."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from multipick_epp.pods.registry import Registry
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint


class EachEndpoint:
    """Invariant, once started: `_tasks` has exactly the registry's endpoints."""

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
        """For the registry's endpoints, and those that come later."""
        self._registry.on_change(lambda _: self._follow())
        self._follow()

    async def close(self) -> None:
        """End all of it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self) -> None:
        endpoints = set(self._registry.all())
        for endpoint in self._tasks.keys() - endpoints:
            self._tasks.pop(endpoint).cancel()
        for endpoint in endpoints - self._tasks.keys():
            self._tasks[endpoint] = self._supervisor.keep(self._task, partial(self._work, endpoint), endpoint)
