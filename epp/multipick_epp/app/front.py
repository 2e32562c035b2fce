"""A picker of several workers, as the process that was started: it holds the ports and the ingest, and no request."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from multipick_epp import config as configuration
from multipick_epp.admin.collectors import FeedCollector
from multipick_epp.app.feeds import ingest_options
from multipick_epp.config import Config, Listen
from multipick_epp.events.child import Report
from multipick_epp.events.discover import FeedSpec
from multipick_epp.events.process import IngestProcess
from multipick_epp.extproc.health import Health
from multipick_epp.extproc.observer import StreamMetrics
from multipick_epp.extproc.transports import health_server
from multipick_epp.tasks.background import Background
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.workers.admin import FrontAdmin
from multipick_epp.workers.door import Door
from multipick_epp.workers.spread import Balance
from multipick_epp.workers.worker import Worker

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0  # between two looks at the workers
_END_S: Final = 10.0  # for a worker, once its streams had their time to end


class Front:
    """What `App` is with one worker, for several: started, drained and closed the same way."""

    def __init__(self, config: Config) -> None:
        self._config = config
        # Its pages are for the front alone.
        pages = Listen("127.0.0.1", admin=0, tls=config.listen.tls, transport=config.listen.transport)
        one = replace(config, workers=1, listen=pages)
        close_s = config.limits.drain_s + _END_S
        numbers = range(1, config.workers + 1)
        self.workers = {number: Worker(number, one, close_s, self._changed, self._follow) for number in numbers}
        everyone = tuple(self.workers.values())
        secret = configuration.secret(config.pool.secret_env)
        self.ingest = IngestProcess(ingest_options(config, secret), self._ingested) if config.events.enabled else None
        self.metrics = Metrics()
        self.health = Health()
        self.health_server = health_server(config.listen.transport, self.health, StreamMetrics(self.metrics))
        self.door = Door(self.workers)
        self.admin = FrontAdmin(everyone, self.metrics.page)
        self.metrics.registry.register(_WorkerCollector(self.admin))
        if self.ingest is not None:
            self.metrics.registry.register(FeedCollector(self.ingest))
        self._balance = Balance()
        self.supervisor = Supervisor()
        self._background = Background()
        self._ingests = False
        self._open = False
        self._news = asyncio.Event()  # of a worker

    async def start(self) -> None:
        """Start everything; returns once all workers serve. Raises OSError, RuntimeError: a port is taken, or a worker
        can't start.
        """
        listen = self._config.listen
        ports = {
            "health": await self.health_server.start(listen.host, listen.health),
            "admin": await self.admin.start(listen.host, listen.admin),
        }
        for worker in self.workers.values():
            worker.start()
        await self._all_serve()
        ports["ext_proc"] = self.door.open(listen.host, listen.ext_proc)
        self._open = True
        self.supervisor.keep("workers", self._look)
        log.info("listening", extra={"policy": self._config.policy, "workers": self._config.workers, **ports})

    async def drain(self) -> None:
        """Not ready at once; all workers ask their peers to go elsewhere, answer on, and end."""
        log.info("draining", extra={"workers": self._config.workers})
        self.health.drain()
        await self._end_workers()

    async def close(self) -> None:
        """End everything that is left."""
        await self.supervisor.close()
        await self._end_workers()
        self.door.close()
        await self._background.cancel()
        if self.ingest is not None:
            await self.ingest.close()
        await self.admin.close()
        await self.health_server.stop()

    async def _all_serve(self) -> None:
        """Returns when they do. Raises RuntimeError where one ends before."""
        while not all(worker.serving for worker in self.workers.values()):
            self._news.clear()
            await self._news.wait()
            for worker in self.workers.values():
                if worker.ended_at is not None:
                    raise RuntimeError(f"worker {worker.number}: {worker.why}")

    async def _end_workers(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self.workers.values()))

    def _changed(self) -> None:
        """A worker tells of itself, or ended."""
        self._news.set()
        if self._open:  # one that is started again takes seconds: the others serve all there is meanwhile
            self.health.ready(any(worker.serving for worker in self.workers.values()))

    async def _look(self) -> None:
        """See how they do, also where none tells; for ever."""
        while True:
            self._changed()
            shares = [worker.share for worker in self.workers.values() if worker.serving and not worker.silent]
            number = self._balance.overloaded(shares, time.monotonic())
            if number is not None:
                self.workers[number].shed()
            await asyncio.sleep(_LOOK_S)

    def _follow(self, feeds: Sequence[FeedSpec]) -> None:
        """The pool, as a worker sees it. The ingest begins with the first: one that has a part of the endpoints, and
        does not know them yet, would leave them to nobody.
        """
        if self.ingest is None:
            return
        self.ingest.follow(feeds)
        if not self._ingests:
            self._ingests = True
            self._background.run(self.ingest.start())

    def _ingested(self, report: Report) -> None:
        for worker in self.workers.values():
            worker.ingested(report)


class _WorkerCollector(Collector):
    def __init__(self, admin: FrontAdmin) -> None:
        self._admin = admin

    def collect(self) -> Iterable[Metric]:
        counts = self._admin.counts
        yield GaugeMetricFamily("multipick_workers_serving", "Workers of this picker that serve.", counts.serving)
        yield CounterMetricFamily(
            "multipick_worker_restarts", "Times that a worker ended and was started again.", counts.restarts
        )
