"""One pod: its ranks, tokenizer and state, between the HTTP handlers and the engines."""

import asyncio
import time
import uuid
from array import array
from collections.abc import Mapping
from itertools import count

from multipick_epp.requests.rank_header import RANK_HEADER
from multipick_epp.tokens import Tokenizer
from multipick_epp.tokens.files import read_model

from multipick_sim.engine.engine import Engine
from multipick_sim.engine.values import Request
from multipick_sim.pod.adapters import Adapters
from multipick_sim.pod.answers import Answers
from multipick_sim.pod.clock import Clock
from multipick_sim.pod.flow import Flow
from multipick_sim.pod.hashes import block_hashes
from multipick_sim.pod.kv_events import Content
from multipick_sim.pod.metrics import RankMetrics
from multipick_sim.pod.orders import Order, Orders
from multipick_sim.pod.publisher import Publisher
from multipick_sim.pod.rank import Rank
from multipick_sim.pod.refused import Refused, bad_request
from multipick_sim.pod.scrape import PodMetrics
from multipick_sim.pod.settings import Settings
from multipick_sim.pod.sickness import Ward
from multipick_sim.pod.truth import Truth


class Pod:
    """Everything behind the HTTP port. `start` before use, `close` after."""

    def __init__(self, settings: Settings) -> None:
        """Reads the tokenizer and binds the event sockets, in a running event loop.

        Raises OSError or ValueError for a tokenizer that can't be used, zmq.ZMQError for a port in use.
        """
        self.settings = settings
        self.started_unix = int(time.time())
        self.draining = False
        self.ward = Ward()
        self.tokenizer = Tokenizer.load(settings.tokenizer, threads=1)
        self.answers = Answers(read_model(settings.tokenizer), settings.seed)
        self.adapters = Adapters(settings.loras, settings.models)
        self.orders = Orders(settings, self.tokenizer, self.answers, self.adapters)
        self._clock = Clock(settings.speed)
        self.ranks = [self._rank(settings.first_rank + index) for index in range(settings.ranks)]
        self.truths = {rank.number: Truth(rank) for rank in self.ranks} if settings.dev else {}
        self.metrics = PodMetrics(settings.models[0], self.adapters, self.ranks)
        self._turn = count()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Let the engines run."""
        self._tasks = [asyncio.create_task(rank.run()) for rank in self.ranks]

    async def run_until(self, stop: asyncio.Future[None]) -> None:
        """Return when `stop` is done; raise what an engine died of, since its requests would wait for ever."""
        await asyncio.wait([stop, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                task.result()

    async def close(self) -> None:
        """Stop the engines and close the event sockets."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for rank in self.ranks:
            if rank.publisher is not None:
                await rank.publisher.close()
        self.tokenizer.close()

    async def drain(self, timeout_s: float) -> None:
        """Take no more requests; return when the last one has ended. After `timeout_s` the rest is aborted."""
        self.draining = True
        idle = asyncio.gather(*(rank.wait_idle() for rank in self.ranks))
        try:
            await asyncio.wait_for(idle, timeout_s)
        except TimeoutError:
            for rank in self.ranks:
                rank.abort_all()

    def rank_for(self, headers: Mapping[str, str]) -> Rank | Refused:
        """The rank that `X-data-parallel-rank` names, counted from 0 behind this port; else the least loaded one.

        What is no number is ignored (vLLM, entrypoints/generate/base/serving.py). Among equally loaded ranks the next
        in turn: vLLM counts what it has just sent to each, until the ranks tell their loads.
        """
        count = len(self.ranks)
        try:
            named = int(headers.get(RANK_HEADER, ""))
        except ValueError:
            first = next(self._turn) % count
            return min(self.ranks[first:] + self.ranks[:first], key=_load)
        if 0 <= named < count:
            return self.ranks[named]
        return bad_request(f"data_parallel_rank {named} is out of range [0, {count}).")

    def submit(self, rank: Rank, order: Order) -> Flow:
        """Hand an order to an engine."""
        settings = self.settings
        ids = array("I", order.prompt)
        ids.extend(order.answer)
        lora, lora_id = (order.lora.name, order.lora.id) if order.lora else (None, None)
        request = Request(
            request_id=new_id(),
            prompt_tokens=len(order.prompt),
            output_tokens=len(order.answer),
            block_hashes=block_hashes(ids[:-1], settings.limits.block_size, lora, order.salt),
            report_hits=order.report_hits,
        )
        content = Content(ids, lora, lora_id, order.salt)
        flow = rank.submit(lambda now: Flow(request, content, order.answer, order.ends, arrived_s=now))
        if settings.dev:
            self.truths[rank.number].note(flow)
        return flow

    def _rank(self, number: int) -> Rank:
        settings = self.settings
        publisher = None
        if settings.events_port is not None:
            publisher = Publisher(
                settings.host,
                _nth(settings.events_port, number),
                None if settings.replay_port is None else _nth(settings.replay_port, number),
                settings.topic,
                number,
                settings.event_format,
            )
        engine = Engine(settings.limits, settings.costs)
        metrics = RankMetrics(settings.limits, self._clock)
        return Rank(number, engine, self._clock, metrics, publisher, settings.event_format)


def new_id() -> str:
    """What is unique about a request's id."""
    return uuid.uuid4().hex[:16]


def _nth(port: int, number: int) -> int:
    """The port of a rank, counted over all pods of a group; 0 stays 0."""
    return port + number if port else 0


def _load(rank: Rank) -> int:
    """As vLLM weighs it (v1/engine/core_client.py)."""
    return 4 * rank.engine.waiting + rank.engine.running
