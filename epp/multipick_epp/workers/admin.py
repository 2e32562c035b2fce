"""The pages of a picker of several workers: each page is asked of all of them, and one is made of their answers."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from multipick_epp.admin.port import AdminPort, healthy, json_page, metrics_page
from multipick_epp.admin.server import EndpointRow
from multipick_epp.admin.status import PickerStatus, TaskFailure, WorkerCounts
from multipick_epp.tasks.supervisor import LONG_ENOUGH_S
from multipick_epp.workers.answers import one_status, one_table
from multipick_epp.workers.metrics import Sums
from multipick_epp.workers.worker import Run

_ANSWER_S: Final = 5.0  # a worker that takes longer is left out


class Asked(Protocol):
    """Whose pages are asked for: a `Worker`."""

    @property
    def number(self) -> int:
        """By which it goes."""

    @property
    def run(self) -> Run | None:
        """Its process that runs now."""

    @property
    def admin(self) -> int | None:
        """Port of its pages, on the loopback."""

    @property
    def serving(self) -> bool:
        """It decides what comes."""

    @property
    def restarts(self) -> int:
        """Times that it ended and was started again."""

    @property
    def ended_at(self) -> float | None:
        """When it last did, by `time.monotonic`."""

    @property
    def why(self) -> str:
        """It did."""


class FrontAdmin:
    """Serves what `admin.server.Admin` does, for all workers."""

    def __init__(self, workers: Sequence[Asked], own_metrics: Callable[[], bytes]) -> None:
        self._workers = workers
        self._own_metrics = own_metrics
        self._sums = Sums()
        self._adding = asyncio.Lock()  # one page of metrics at a time: each goes on from the last
        self._session: aiohttp.ClientSession | None = None
        self._port = AdminPort(
            {
                "/metrics": self._metrics,
                "/status": self._status,
                "/endpoints": self._endpoints,
                "/index/{endpoint}": self._any,
                "/explain/{name}": self._any,
                "/healthz": healthy,
            }
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises RuntimeError where it can't be had."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S))
        return await self._port.start(host, port)

    async def close(self) -> None:
        """Stop listening."""
        await self._port.close()
        if self._session is not None:
            await self._session.close()

    @property
    def counts(self) -> WorkerCounts:
        """Of the workers."""
        serving = sum(worker.serving for worker in self._workers)
        return WorkerCounts(len(self._workers), serving, sum(worker.restarts for worker in self._workers))

    async def _metrics(self, _: web.Request) -> web.Response:
        async with self._adding:
            pages = await self._ask("/metrics")
            running = [worker.run for worker in self._workers if worker.run is not None]
            # Of a large pool it takes a while to read them, and connections are to be accepted.
            page = await asyncio.to_thread(self._sums.page, self._own_metrics(), pages, running)
        return metrics_page(page)

    async def _status(self, _: web.Request) -> web.Response:
        told = [msgspec.json.decode(each, type=PickerStatus) for each in (await self._ask("/status")).values()]
        if not told:
            raise web.HTTPServiceUnavailable(text="no worker answers\n")
        return json_page(msgspec.json.encode(one_status(told, self.counts, self._failing())))

    async def _endpoints(self, _: web.Request) -> web.Response:
        told = (await self._ask("/endpoints")).values()
        return json_page(
            msgspec.json.encode(one_table(msgspec.json.decode(each, type=list[EndpointRow]) for each in told))
        )

    async def _any(self, request: web.Request) -> web.Response:
        """The answer of whoever has one."""
        for answer in (await self._ask(request.rel_url.raw_path)).values():
            return json_page(answer)
        raise web.HTTPNotFound(text="no worker of this picker has that\n")

    async def _ask(self, path: str) -> Mapping[Run, bytes]:
        """The good answers of the workers that run."""
        asked = {worker.run: worker.admin for worker in self._workers if worker.run is not None and worker.admin}
        answers = await asyncio.gather(*(self._get(port, path) for port in asked.values()))
        return {run: answer for run, answer in zip(asked, answers, strict=True) if answer is not None}

    async def _get(self, port: int, path: str) -> bytes | None:
        assert self._session is not None
        url = URL(f"http://127.0.0.1:{port}{path}", encoded=True)  # a name in it stays as it was written
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                return await answer.read() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    def _failing(self) -> list[TaskFailure]:
        since = time.monotonic() - LONG_ENOUGH_S
        ended = [worker for worker in self._workers if worker.ended_at is not None and worker.ended_at >= since]
        return [TaskFailure("worker", str(worker.number), worker.why) for worker in ended]
