"""All watches of the operator, each kept going by itself: one that fails costs only what it tells."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from multipick_operator.cluster.client import ApiError
from multipick_operator.metrics import Metrics

log = logging.getLogger(__name__)

BASE_S = 0.5
CAP_S = 30.0
NOT_FOUND = 404


class Runner(Protocol):
    """What is kept going."""

    async def run(self, in_step: Callable[[], None]) -> NoReturn:
        """Go on until something fails; call `in_step` whenever all that there was to tell is told."""

    def forget(self) -> None:
        """The kind is not served: nothing of it exists."""


class Watch:
    """One watch and how it does.

    Invariant: `trouble` is the cause of the last failure until the watch is in step again; `absent` says that its kind
    is not installed, which is no failure.
    """

    def __init__(self, kind: str, namespace: str | None, runner: Runner, optional: bool = False) -> None:
        self.kind = kind
        self.namespace = namespace
        self.runner = runner
        self.optional = optional
        self.trouble: str | None = None
        self.absent = False
        self.asked = asyncio.Event()  # there was an answer, of whatever kind

    @property
    def name(self) -> str:
        """For logs."""
        return f"{self.kind} in {self.namespace or 'all namespaces'}"


class Supervisor:
    """Runs watches."""

    def __init__(self, metrics: Metrics, absent_s: float, installed: Callable[[Watch], None]) -> None:
        self._metrics = metrics
        self._absent_s = absent_s
        self._installed = installed

    async def run(self, watches: Sequence[Watch]) -> None:
        """Keep all of them going for ever."""
        async with asyncio.TaskGroup() as group:
            for watch in watches:
                group.create_task(self._keep(watch), name=watch.name)

    def _well(self, watch: Watch) -> None:
        if watch.trouble is not None:
            log.info("watch is back", extra={"watch": watch.name})
        came = watch.absent
        watch.trouble, watch.absent = None, False
        self._tell(watch)
        if came:
            self._installed(watch)

    async def _keep(self, watch: Watch) -> NoReturn:
        failures = 0
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await watch.runner.run(lambda: self._well(watch))
            except Exception as error:
                if asyncio.get_running_loop().time() - started > CAP_S:
                    failures = 0
                failures += 1
                pause_s = self._failed(watch, error, failures)
            await asyncio.sleep(pause_s)

    def _failed(self, watch: Watch, error: Exception, failures: int) -> float:
        """Note the failure; returns seconds to the next try."""
        if watch.optional and isinstance(error, ApiError) and error.status == NOT_FOUND:
            was_there = watch.asked.is_set() and not watch.absent
            watch.absent, watch.trouble = True, None
            watch.runner.forget()
            self._tell(watch)
            if was_there:
                self._installed(watch)
            return self._absent_s
        trouble = words(error)
        if trouble != watch.trouble:
            log.warning("watch fails", extra={"watch": watch.name, "why": trouble})
        watch.trouble = trouble
        self._tell(watch)
        return float(min(CAP_S, BASE_S * 2 ** min(failures - 1, 16)) * random.uniform(0.75, 1.25))

    def _tell(self, watch: Watch) -> None:
        watch.asked.set()
        self._metrics.failing.labels(watch.kind, watch.namespace or "").set(watch.trouble is not None)


def words(error: BaseException) -> str:
    """A cause for people; of a missing right, which one."""
    if isinstance(error, ApiError):
        missing = "a right is missing: " if error.status == 403 else ""
        return f"{missing}{error.message or error}"
    return f"{type(error).__name__}: {error}".removesuffix(": ")
