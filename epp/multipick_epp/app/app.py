"""One picker: its rooms put together, started from the bottom up, drained and closed the other way."""

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol
from uuid import uuid4

from multipick_epp import config as configuration
from multipick_epp.admin.collectors import (
    CheckCollector,
    FailureCollector,
    FeedCollector,
    StateCollector,
    TaskCollector,
)
from multipick_epp.admin.server import Admin
from multipick_epp.admin.status import EndpointCounts, PickerStatus, TaskFailure
from multipick_epp.app.certificates import certificate, certificate_files
from multipick_epp.app.feeds import Feeds
from multipick_epp.app.leftovers import Leftovers
from multipick_epp.app.stores import make_state
from multipick_epp.capture.answers import StepRates
from multipick_epp.capture.files import Folder
from multipick_epp.capture.lines import Lines
from multipick_epp.capture.writer import Capture
from multipick_epp.checks.checker import Checker, ExpectedEngine
from multipick_epp.config import Config
from multipick_epp.decision.encoders import Encoders
from multipick_epp.decision.own_traffic import OwnTraffic
from multipick_epp.decision.picker import DecisionOptions, PoolPicker
from multipick_epp.decision.prompts import PromptReader
from multipick_epp.decision.sizes import HashedSizes
from multipick_epp.engines import EngineClient
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.health import Health
from multipick_epp.extproc.observer import StreamMetrics
from multipick_epp.extproc.reserved import ReservedFields
from multipick_epp.extproc.transports import ext_proc_server, health_server
from multipick_epp.pods.failures import failures
from multipick_epp.pods.models import ModelWatch
from multipick_epp.pods.monitor import Monitor
from multipick_epp.pods.ranks import RankWatch
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.static import StaticPods
from multipick_epp.policy.registry import policy
from multipick_epp.requests.stored import ResponseNames
from multipick_epp.tasks.background import Background
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import Endpoint, ReplicaId, address_of
from multipick_epp.workers.shared import SharedIngest

log = logging.getLogger(__name__)

PICK_GUARD_S = 1.0
"""A pick that takes so much longer than its own deadline is broken: the gateway chooses then."""

SWITCH_S = 0.0005
"""A thread that computes is asked so soon to let the event loop go on; Python's own 5 ms would be a stall each time."""


def share_threads() -> None:
    """Set how long threads of this process may hold each other up."""
    sys.setswitchinterval(SWITCH_S)


class Pods(Protocol):
    """What fills the registry."""

    @property
    def outage(self) -> str | None:
        """Why the pool may not be what the registry says."""

    async def follow(self) -> None:
        """Keep it true."""


class App:
    """One picker: its rooms, started from the bottom up and closed the other way."""

    def __init__(self, config: Config, shared: SharedIngest | None = None) -> None:
        """With a shared ingest it is a worker: its connections come from the front, which has the ports."""
        self._config = config
        self._is_worker = shared is not None
        self.admin_port = 0  # once it listens
        secret = configuration.secret(config.pool.secret_env)
        self.replica = ReplicaId(uuid4().hex[:12])
        self.metrics = Metrics()
        self.registry = Registry(asks_ranks=True)
        self.state = make_state(config, self.replica)
        self.supervisor = Supervisor()
        self.engines = EngineClient()
        self.encoders = Encoders(config, self.registry, self.engines)
        self.reader = PromptReader(
            self.encoders,
            config.pool.models,
            secret,
            HashedSizes(self.registry.block_sizes, self.state.block_sizes),
            self.metrics.stage_seconds,
            lambda: self.registry.max_model_len,
            counts_turns=config.capture is not None,
            lora_paths=lambda: self.registry.sglang,
        )
        options = DecisionOptions(
            config.policy,
            policy(config.policy),
            config.limits.decision_s,
            config.destinations,
            config.explain_headers,
            config.pool.models,
            ResponseNames(secret, config.pool.name),
            config.hotspot_guard,
            {name: policy(name) for name in config.shadow},
            unseen_s=2 * config.scrape_s,
        )
        self.models = ModelWatch(self.registry, self.engines, self.supervisor)
        self.ranks = RankWatch(self.registry, self.engines, self.supervisor, config.metrics_path)
        self.failures = failures(self.registry, self.state, self.models.doubt)
        self.rates = StepRates()
        self.capture = _capture(config, secret, self.replica, self.metrics)
        self.picker = PoolPicker(
            options,
            self.replica,
            self.state,
            self.registry,
            self.failures,
            self.reader,
            self.metrics,
            Random(),
            OwnTraffic(self.capture, self.rates) if self.capture else None,
        )
        self.health = Health()
        limits = config.limits
        bounds = Bounds(limits.max_read_bytes, limits.max_body_bytes, limits.max_kept_bytes)
        guard_s = limits.decision_s + PICK_GUARD_S
        removed = self.metrics.reserved_fields
        self.reserved = ReservedFields(lambda checked: removed.labels(checked).inc())
        streams = StreamOptions(
            bounds,
            guard_s,
            reserved=None if config.requests.allow_transfer_params else self.reserved,
            conformance=config.conformance,
            counts_output=self.capture is not None,
        )
        observer, transport = StreamMetrics(self.metrics), config.listen.transport
        self._certificate = certificate(config.listen.tls)
        self.ext_proc = ext_proc_server(transport, self.picker, self.health, observer, streams, self._certificate)
        self.health_server = health_server(transport, self.health, observer)
        self.feeds = Feeds(config, self.state, secret, shared)
        self.metrics.registry.register(StateCollector(self.state, self.state.stats, lambda: len(self.state.index)))
        if not self._is_worker:
            self.metrics.registry.register(FeedCollector(self.feeds))
        self.checker = Checker(
            self.registry,
            self.engines,
            ExpectedEngine(config.pool.models, config.pool.block_size),
            self.feeds.stats,
            lambda endpoint: self.state.index.blocks_of(endpoint) > 0,
            None if config.pool.tokenizer is None else self.encoders.compare,
            self.encoders.learn,
        )
        self.metrics.registry.register(
            CheckCollector(lambda: self.checker.mismatches, lambda: self.encoders.local, lambda: self.checker.windows)
        )
        self.metrics.registry.register(TaskCollector(self.supervisor))
        self.metrics.registry.register(FailureCollector(self.failures))
        self.admin = Admin(
            self.metrics, self.registry, self.state, self.state.index, self.status, self.picker.decisions.find
        )
        self.monitor = Monitor(
            self.registry,
            self.supervisor,
            self.state.load,
            lambda: self.picker.mean_new_tokens,
            config.scrape_s,
            config.metrics_path,
            self.failures.looked,
            readiness=not (config.kubernetes or config.inference_pool),  # in a cluster the kubelet's probes decide
            arrived=lambda address, page: self.rates.looked(address, page, time.monotonic()),
        )
        self._pods: Pods | None = None
        self._background = Background()

    async def start(self) -> None:
        """Load the index, find the pods, then listen. Raises OSError, RuntimeError: a port is taken.

        Whoever asks before the pods are known is refused the connection, as by a picker that is not there: Envoy asks
        another one, or, where it keeps the body and may fail open, chooses by itself. Where it does not (full duplex:
        what InferencePool gateways speak) and no other picker is there, the client gets 500; of us it would be a 503.
        """
        share_threads()
        listen = self._config.listen
        ports = {}
        if not self._is_worker:
            ports["health"] = await self.health_server.start(listen.host, listen.health)
        ports["admin"] = self.admin_port = await self.admin.start(listen.host, listen.admin)
        if self.capture:
            self.capture.start()
        await self.engines.start()
        await self.encoders.start()
        await self.state.start()
        await self.feeds.start()
        self.registry.on_change(self.feeds.follow)
        self.registry.on_gone(self._gone)
        self.monitor.start()
        self.models.start()
        self.ranks.start()
        await self._find_pods()
        await self.monitor.looked()
        await self.ranks.asked()
        await self.feeds.up()
        await self.state.settled()
        self.supervisor.keep("prefill estimates", self.picker.reservations.estimate_for_ever)
        self.supervisor.keep("engine checks", self.checker.run)
        self.supervisor.keep("leftovers", Leftovers(self._in_state, self._pool, self._forget).follow)
        if self._certificate is not None and (files := certificate_files(listen.tls)) is not None:
            self.supervisor.keep("certificate", partial(self._certificate.follow, files))
        if not self._is_worker:
            ports["ext_proc"] = await self.ext_proc.start(listen.host, listen.ext_proc)
        self.health.ready(True)
        started = "a worker serves" if self._is_worker else "listening"
        log.info(started, extra={"replica": self.replica, "policy": self._config.policy, **ports})

    def status(self) -> PickerStatus:
        """What `GET /status` shows."""
        ready = self.registry.ready().endpoints
        modes = Counter(self.registry.mode(endpoint, self.state.mode(endpoint)) for endpoint in ready)
        return PickerStatus(
            self.replica,
            self.state.degraded,
            self.feeds.degraded,
            "local" if self.encoders.local else "engine",
            EndpointCounts(modes.total(), self.checker.checked, modes),
            self.checker.mismatches,
            [TaskFailure(each.task, each.about, each.why) for each in self.supervisor.failing],
            self._pods.outage if self._pods else "starting",
            self.failures.left_out,
            self.encoders.paths,
            self.picker.hotspots.hot,
            self.capture.outage if self.capture else None,
            self.ext_proc.refused,
        )

    async def drain(self) -> None:
        """Not ready at once; go on answering until nothing is open, or the deadline is there."""
        log.info("draining", extra={"in_flight": self.picker.in_flight})
        await self.ext_proc.drain(self._config.limits.drain_s)

    async def close(self) -> None:
        """Release what is left and end everything."""
        await self.supervisor.close()
        await self._background.cancel()
        self.picker.close()
        if self.capture:
            await asyncio.to_thread(self.capture.close)
        self.reader.close()
        self.reserved.close()
        await self.monitor.close()
        await self.models.close()
        await self.ranks.close()
        await self.feeds.close()
        await self.state.close()
        await self.encoders.close()
        await self.engines.close()
        await self.admin.close()
        await self.health_server.stop()

    async def _find_pods(self) -> None:
        """Fill the registry and keep it true; returns when the pool is known. Raises ConfigError without a cluster."""
        if not (self._config.kubernetes or self._config.inference_pool):
            self._pods = StaticPods(self._config, self.registry)
            self.supervisor.keep("endpoints", self._pods.follow)
        else:
            self._pods = await self._watched_pods()
            self.supervisor.keep("pod watch", self._pods.follow)
        await self.registry.known.wait()

    async def _watched_pods(self) -> Pods:
        # Only here, for it loads the official client: 22 MB.
        from multipick_epp.pods.inference_pool import InferencePoolWatch
        from multipick_epp.pods.kubernetes import PodWatch
        from multipick_epp.pods.kubernetes_api import api_client

        await (await api_client()).close()  # type: ignore[no-untyped-call]
        if self._config.inference_pool:
            return InferencePoolWatch(self._config.inference_pool, self.registry, api_client)
        assert self._config.kubernetes is not None
        return PodWatch(self._config.kubernetes, self.registry, api_client)

    def _in_state(self) -> list[Endpoint]:
        """What the state knows, but for the ranks of engines that have not told theirs: another picker may know."""
        known = ((endpoint, self.registry.engine(endpoint)) for endpoint in self.state.index.known())
        told = [endpoint for endpoint, engine in known if engine is None or (engine.told and engine.obeys)]
        return [*told, *self.failures.strangers]

    def _pool(self) -> Collection[Endpoint] | None:
        """The endpoints that there are; None while that is not sure."""
        return None if self._pods is None or self._pods.outage else self.registry.all()

    async def _forget(self, endpoint: Endpoint) -> None:
        self.failures.forget(endpoint)
        await self.state.drop(endpoint)

    def _gone(self, endpoint: Endpoint) -> None:
        self.picker.drop(endpoint)
        self.rates.gone(address_of(endpoint))
        self._background.run(self.state.drop(endpoint))


def _capture(config: Config, secret: bytes, replica: ReplicaId, metrics: Metrics) -> Capture | None:
    if config.capture is None:
        return None
    folder = Folder(Path(config.capture.path), replica, config.capture.file_bytes, config.capture.files)
    return Capture(
        Lines(secret, config.pool.name),
        folder,
        metrics.captured.inc,
        lambda why: metrics.capture_lost.labels(why).inc(),
    )
