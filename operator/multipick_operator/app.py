"""Puts the operator together: wait for the lease, watch, work, and leave in order."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from multipick_operator.adapters import Adapters
from multipick_operator.api.crd import GROUP, KIND, PLURAL
from multipick_operator.children.context import Defaults
from multipick_operator.children.names import POOL_LABEL, Manifest
from multipick_operator.cluster.client import UNREACHABLE, ApiError, Kube
from multipick_operator.cluster.informer import Informer
from multipick_operator.cluster.kinds import WATCHED
from multipick_operator.cluster.lease import Lease
from multipick_operator.cluster.login import Login
from multipick_operator.cluster.pools import Key, PoolWatch
from multipick_operator.cluster.view import View
from multipick_operator.cluster.watches import Supervisor, Watch, words
from multipick_operator.cluster.writes import NotLeadingError, Writes
from multipick_operator.metrics import Metrics
from multipick_operator.pages import serve
from multipick_operator.probe import PodProbe
from multipick_operator.reconcile import Reconciler
from multipick_operator.store import StoreUsers
from multipick_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

WORKERS = 4
FIRST_S = 10.0  # watches that have not answered by then are not waited for
FINISH_S = 2.0  # for the work in hand at the end: nobody else acts meanwhile


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
    discovery_s: float = 60.0  # how often a kind that is not installed is looked for
    host: str = "0.0.0.0"
    port: int = 8080


class LeaseLostError(Exception):
    """Another operator may act now: this one must end at once."""


class Operator:
    """One operator process. `signals` puts the process's signal handlers (back) in place."""

    def __init__(self, settings: Settings, login: Login, signals: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._api = Kube(login)
        self._probe = PodProbe()
        self.metrics = Metrics()
        self.resyncs = 0
        self._queue: WorkQueue[Key] = WorkQueue(expected=(ApiError, *UNREACHABLE))
        self._lease = Lease(
            self._api, settings.lease_namespace, settings.lease_name, settings.identity, settings.lease_s
        )
        scopes = settings.namespaces or (None,)
        selector = settings.pool_selector or ""
        self._pools = [
            PoolWatch(self._api, login, settings.identity, scope, selector, self.look_at, signals) for scope in scopes
        ]
        self._watches = [Watch(f"{PLURAL}.{GROUP}", one.namespace, one) for one in self._pools]
        self._watches += [
            Watch(kind.kind, scope, Informer(self._api, kind, scope, self._child_changed), kind.is_optional)
            for kind in WATCHED
            for scope in scopes
        ]
        self._view = View(self._api, self._pools, self._watches)
        writes = Writes(self._api, self._lease, self._view)
        defaults = settings.defaults
        self._users = StoreUsers(defaults.state_url if defaults.state_users else None, defaults.state_password)
        self._adapters = Adapters(self.look_at, settings.resync_s)
        self._reconciler = Reconciler(
            self._view,
            writes,
            defaults,
            self.metrics,
            self._probe,
            self._users,
            self._adapters,
            now,
            settings.resync_s,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`. Raises LeaseLostError where another operator took over."""
        runner = await serve(self._settings.host, self._settings.port, self.inability, self.metrics.page)
        stopped = asyncio.create_task(stop.wait())
        acquired = asyncio.create_task(self._lease.acquire())
        try:
            log.info("waiting for the lease", extra={"lease": self._settings.lease_name})
            await asyncio.wait((stopped, acquired), return_when=asyncio.FIRST_COMPLETED)
            if acquired.done():
                acquired.result()
                self.metrics.leader.set(1)
                log.info("acting", extra={"identity": self._settings.identity})
                await self._act(stopped)
        finally:
            for task in (stopped, acquired):
                task.cancel()
            self.metrics.leader.set(0)
            await self._lease.release()  # it may have come in the last moment
            await self._probe.close()
            await self._api.close()
            await runner.cleanup()

    def look_at(self, key: Key) -> None:
        """Reconcile a pool soon."""
        self._queue.add(key)

    def inability(self) -> str | None:
        """Why this operator can't act, or could not take over; None: it can."""
        troubles = [watch.trouble for watch in self._watches if isinstance(watch.runner, PoolWatch)]
        if all(troubles):
            return f"no pool can be watched: {'; '.join(sorted(set(filter(None, troubles))))}"
        return self._lease.trouble and f"the lease can't be had: {self._lease.trouble}"

    async def _act(self, stopped: asyncio.Task[bool]) -> None:
        """Watch and work until told to stop or the lease is lost."""
        supervisor = Supervisor(self.metrics, self._settings.discovery_s, self._all_changed)
        kept, working = asyncio.create_task(self._lease.keep()), asyncio.create_task(self._work())
        reading = [asyncio.create_task(one) for one in (supervisor.run(self._watches), self._users.run())]
        try:
            await asyncio.wait((stopped, kept, working, *reading), return_when=asyncio.FIRST_COMPLETED)
            if kept.done():
                raise LeaseLostError
            for task in (working, *reading):
                if task.done():
                    task.result()
            self._queue.close()
            with suppress(TimeoutError):  # the work in hand is finished under the lease
                await asyncio.wait_for(self._queue.finish(), FINISH_S)
        finally:
            self._queue.close()
            await _ended(kept, working)
            await self._adapters.close()
            await self._lease.release()  # nothing is written any more: the next one may act while the watches end
            await _ended(*reading)

    async def _work(self) -> None:
        """Reconcile pools, as soon as every watch has told what it can."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                for watch in self._watches:
                    await watch.asked.wait()
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._queue.work(self._handle))
            group.create_task(self._resync())

    async def _handle(self, key: Key) -> float | None:
        self.metrics.queue.set(len(self._queue))
        try:
            with self.metrics.seconds.time():
                delay_s = await self._reconciler.reconcile(key)
        except NotLeadingError:
            return None
        except Exception:
            self.metrics.reconciles.labels("error").inc()
            raise
        self.metrics.reconciles.labels("ok").inc()
        return delay_s

    async def _resync(self) -> None:
        """Look at every pool again from time to time: for what no watch tells, and what a watch missed.

        Whatever comes of a list: it costs the list, not the operator.
        """
        while True:
            await asyncio.sleep(self._settings.resync_s)
            for pools in self._pools:
                try:
                    with suppress(ApiError, *UNREACHABLE):  # its watch finds the same, and tells
                        await pools.verify()
                except Exception as error:
                    where = pools.namespace or "all namespaces"
                    log.warning("pools can't be listed", extra={"namespace": where, "why": words(error)})
                for key in pools.known():
                    self._queue.add_after(key, random.uniform(0, self._settings.resync_s / 4))
            self.resyncs += 1

    def _child_changed(self, child: Manifest) -> None:
        """Of what a pool owned that is not ours, or no longer there, nothing is to be done."""
        meta = child["metadata"]
        owners = [one["name"] for one in meta.get("ownerReferences", ()) if one["kind"] == KIND]
        for name in {meta.get("labels", {}).get(POOL_LABEL), *owners}:  # anybody may have taken the label away
            if self._view.is_pool(key := (meta["namespace"], name)):
                self._queue.add(key)

    def _all_changed(self, watch: Watch) -> None:
        """A kind came or went."""
        log.info("kind is gone" if watch.absent else "kind is there", extra={"watch": watch.name})
        for pools in self._pools:
            for key in pools.known():
                self._queue.add(key)


async def _ended(*tasks: asyncio.Task[None]) -> None:
    """Cancelled, and over."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
