"""Puts the operator together: wait for the lease, watch, work, and leave in order."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kopf
from aiohttp import web

from multipick_operator import watch
from multipick_operator.children.context import Defaults
from multipick_operator.kinds import Kinds
from multipick_operator.kube import Kube
from multipick_operator.lease import Lease
from multipick_operator.metrics import Metrics
from multipick_operator.probe import PickerProbe
from multipick_operator.reconcile import Key, Reconciler
from multipick_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

WORKERS = 4
SETTLE_S = 20.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator is told on its command line."""

    defaults: Defaults
    lease_namespace: str
    lease_name: str
    identity: str
    namespaces: tuple[str, ...] = ()  # empty: all
    pool_selector: str | None = None
    lease_s: float = 15.0
    resync_s: float = 120.0
    discovery_s: float = 60.0  # how long the answer that a kind is (not) installed is believed
    host: str = "0.0.0.0"
    port: int = 8080


class LeaseLostError(Exception):
    """Another operator may act now: this one must end at once."""


class Operator:
    """One operator process. Invariant: `_pools` has the keys of all pools that the watch showed and did not remove."""

    def __init__(self, settings: Settings, login: Callable[[], kopf.ConnectionInfo]) -> None:
        self._settings = settings
        self._login = login
        self._api = Kube(login)
        self._probe = PickerProbe()
        self.metrics = Metrics()
        self._queue: WorkQueue[Key] = WorkQueue()
        self._pools: set[Key] = set()
        kinds = Kinds(self._api, settings.discovery_s)
        self._reconciler = Reconciler(self._api, kinds, settings.defaults, self.metrics, self._probe.ask, now)
        self._lease = Lease(
            self._api, settings.lease_namespace, settings.lease_name, settings.identity, settings.lease_s
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`. Raises LeaseLostError where another operator took over."""
        runner = await self._serve()
        stopped = asyncio.create_task(stop.wait())
        acquired = asyncio.create_task(self._lease.acquire())
        try:
            log.info("waiting for the lease", extra={"lease": self._settings.lease_name})
            await asyncio.wait((stopped, acquired), return_when=asyncio.FIRST_COMPLETED)
            if acquired.done():
                self.metrics.leader.set(1)
                log.info("acting", extra={"identity": self._settings.identity})
                await self._act(stopped)
        finally:
            for task in (stopped, acquired):
                task.cancel()
            self.metrics.leader.set(0)
            await self._probe.close()
            await self._api.close()
            await runner.cleanup()

    async def _act(self, stopped: asyncio.Task[bool]) -> None:
        """Watch and work until told to stop or the lease is lost."""
        kopf_stop = asyncio.Event()
        kept = asyncio.create_task(self._lease.keep())
        watching = asyncio.create_task(self._watch(kopf_stop))
        workers = [asyncio.create_task(self._queue.work(self._handle)) for _ in range(WORKERS)]
        resync = asyncio.create_task(self._resync())
        try:
            done, _ = await asyncio.wait((stopped, kept, watching), return_when=asyncio.FIRST_COMPLETED)
            if kept in done:
                raise LeaseLostError
            if watching in done:
                await watching  # raises what ended it
                raise RuntimeError("the watch ended by itself")
            resync.cancel()
            self._queue.close()
            with suppress(TimeoutError):  # the work in hand is finished under the lease
                await asyncio.wait_for(self._queue.settle(), SETTLE_S)
        finally:
            kopf_stop.set()
            self._queue.close()
            for task in (resync, *workers):
                task.cancel()
            await asyncio.gather(watching, resync, *workers, return_exceptions=True)
            kept.cancel()
        await self._lease.release()

    async def _watch(self, stop: asyncio.Event) -> None:
        settings = self._settings
        identity: Any = settings.identity  # given, because kopf's own needs a user of that name, which images lack
        await kopf.operator(
            identity=identity,
            registry=watch.registry(self._add, self._gone, self._login),
            settings=watch.settings(settings.namespaces, settings.pool_selector),
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            stop_flag=stop,
        )

    async def _handle(self, key: Key) -> float | None:
        self.metrics.queue.set(len(self._queue))
        try:
            with self.metrics.seconds.time():
                delay_s = await self._reconciler.reconcile(key)
        except Exception:
            self.metrics.reconciles.labels("error").inc()
            raise
        self.metrics.reconciles.labels("ok").inc()
        return delay_s

    async def _resync(self) -> None:
        """Look at every pool again from time to time: for what no watch tells, and what a watch missed."""
        while True:
            await asyncio.sleep(self._settings.resync_s)
            for key in sorted(self._pools):
                self._queue.add_after(key, random.uniform(0, self._settings.resync_s / 4))

    def _add(self, key: Key) -> None:
        self._pools.add(key)
        self._queue.add(key)

    def _gone(self, key: Key) -> None:
        self._queue.add(key)
        self._pools.discard(key)

    async def _serve(self) -> web.AppRunner:
        async def healthy(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def page(_: web.Request) -> web.Response:
            return web.Response(body=self.metrics.page(), headers={"content-type": "text/plain; version=0.0.4"})

        app = web.Application()
        app.router.add_get("/healthz", healthy)
        app.router.add_get("/metrics", page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, self._settings.host, self._settings.port).start()
        return runner


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
