"""`multipick epp`: puts the rooms together, runs them until SIGTERM, and drains."""

import argparse
import asyncio
import logging
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from uuid import uuid4

import uvloop

from multipick_epp import config as configuration
from multipick_epp.admin import Admin
from multipick_epp.background import Background
from multipick_epp.checks.checker import Checker, Expected
from multipick_epp.checks.status import Endpoints, Status
from multipick_epp.config import Config, ConfigError
from multipick_epp.encoders import Encoders
from multipick_epp.extproc.driver import Settings as StreamSettings
from multipick_epp.extproc.health import Health
from multipick_epp.extproc.server import ExtProcServer, HealthServer
from multipick_epp.extproc.stream import Bounds
from multipick_epp.feeds import Feeds
from multipick_epp.picker import LivePicker, Settings
from multipick_epp.pods import static
from multipick_epp.pods.kubernetes import PodWatch, api_url
from multipick_epp.pods.monitor import Monitor
from multipick_epp.pods.registry import Registry
from multipick_epp.policy.registry import policy
from multipick_epp.prompts import PromptReader
from multipick_epp.stores import make_state, server
from multipick_epp.telemetry import logs
from multipick_epp.telemetry.collectors import CheckCollector, FeedCollector, StateCollector
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.telemetry.streams import StreamMetrics
from multipick_epp.types import Endpoint, ReplicaId

log = logging.getLogger(__name__)

PICK_GUARD_S = 1.0
"""A pick that takes so much longer than its own deadline is broken: the gateway chooses then."""


def command(argv: Sequence[str]) -> int:
    """`multipick epp --config FILE`; 2 for a configuration that can't be used."""
    parser = argparse.ArgumentParser(
        prog="multipick epp", description="The endpoint picker that Envoy calls by ext_proc."
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file; its fields are in docs/configuration.md")
    parser.add_argument("--check", action="store_true", help="only check the file")
    options = parser.parse_args(argv)
    try:
        config = configuration.load(options.config)
        check(config)
    except ConfigError as error:
        print(f"multipick epp: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(f"{options.config}: good")
        return 0
    logs.configure(config.log_level, config.log_format)
    try:
        uvloop.run(run(config))
    except (ConfigError, OSError, RuntimeError, ValueError) as error:
        log.error("the picker can't start", extra={"why": str(error)})
        return 1
    return 0


def check(config: Config) -> None:
    """Raises ConfigError for what only shows when the parts look at it: names, addresses, secrets, files."""
    try:
        policy(config.policy)
        logs.check(config.log_level, config.log_format)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    static.pods_of(config.endpoints)
    if config.kubernetes and (config.endpoints or config.endpoints_file):
        raise ConfigError("kubernetes: the endpoints are either watched or named")
    configuration.secret(config.pool.secret_env)
    server(config)
    if config.pool.tokenizer is not None and not (Path(config.pool.tokenizer) / "tokenizer.json").is_file():
        raise ConfigError(f"pool.tokenizer: no tokenizer.json in {config.pool.tokenizer}")


async def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = App(config)
    starting, stopping = asyncio.create_task(app.start()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopping
            await app.drain()
    finally:
        await _cancelled(starting)
        await app.close()


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel what may still run, and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class App:
    """One picker: its rooms, started from the bottom up and closed the other way."""

    def __init__(self, config: Config) -> None:
        self._config = config
        secret = configuration.secret(config.pool.secret_env)
        self.replica = ReplicaId(uuid4().hex[:12])
        self.metrics = Metrics()
        self.registry = Registry()
        self.state = make_state(config, self.replica)
        self.encoders = Encoders(config, self.registry)
        stages = self.metrics.stage_seconds
        reader = PromptReader(
            self.encoders,
            config.pool.models,
            secret,
            lambda: sorted(self.registry.block_sizes().union(self.state.block_sizes())),
            lambda stage, seconds: stages.labels(stage).observe(seconds),
        )
        settings = Settings(
            config.policy,
            policy(config.policy),
            config.limits.decision_s,
            config.destinations,
            config.explain_headers,
        )
        self.picker = LivePicker(settings, self.replica, self.state, self.registry, reader, self.metrics, Random())
        self.health = Health()
        limits = config.limits
        bounds = Bounds(limits.max_read_bytes, limits.max_body_bytes, limits.max_kept_bytes)
        guard_s = limits.decision_s + PICK_GUARD_S
        self.ext_proc = ExtProcServer(
            self.picker, self.health, StreamMetrics(self.metrics), StreamSettings(bounds, guard_s)
        )
        self.health_server = HealthServer(self.health)
        self.feeds = Feeds(config, self.state, secret)
        self.metrics.registry.register(StateCollector(self.state, self.state.stats, lambda: len(self.state.index)))
        self.metrics.registry.register(FeedCollector(self.feeds.stats))
        self.checker = Checker(
            self.registry,
            Expected(config.pool.models, config.pool.block_size),
            self.feeds.stats,
            lambda endpoint: self.state.index.blocks_of(endpoint) > 0,
            None if config.pool.tokenizer is None else self.encoders.compare,
            self.encoders.learn,
        )
        self.metrics.registry.register(CheckCollector(lambda: self.checker.mismatches, lambda: self.encoders.local))
        self.admin = Admin(self.metrics, self.registry, self.state, self.state.index, self.status)
        self.monitor = Monitor(
            self.registry,
            self.state.load,
            lambda: self.picker.mean_new_tokens,
            config.scrape_s,
            config.metrics_path,
            readiness=config.kubernetes is None,  # in a cluster the kubelet's probes decide
        )
        self._background = Background()

    async def start(self) -> None:
        """Load the index, find the pods, then listen. Raises OSError, RuntimeError: a port is taken.

        Whoever asks before the pods are known is refused the connection, as by a picker that is not there: the gateway
        chooses by itself, or asks another picker. A 503 would be a request lost by us.
        """
        listen = self._config.listen
        ports = {
            "health": await self.health_server.start(listen.host, listen.health),
            "admin": await self.admin.start(listen.host, listen.admin),
        }
        await self.encoders.start()
        await self.state.start()
        await self.feeds.start()
        self.registry.on_change(self.feeds.follow)
        self.registry.on_gone(self._gone)
        await self.monitor.start()
        await self._find_pods()
        await self.monitor.looked()
        self._background.run(self.picker.estimate_for_ever())
        self._background.run(self.checker.run())
        ports["ext_proc"] = await self.ext_proc.start(listen.host, listen.ext_proc)
        self.health.ready(True)
        log.info("listening", extra={"replica": self.replica, "policy": self._config.policy, **ports})

    def status(self) -> Status:
        """What `GET /status` shows."""
        modes = Counter(self.state.mode(endpoint) for endpoint in self.registry.ready().endpoints)
        return Status(
            self.replica,
            self.state.degraded,
            self.feeds.degraded,
            "local" if self.encoders.local else "engine",
            Endpoints(modes.total(), self.checker.checked, modes),
            self.checker.mismatches,
        )

    async def drain(self) -> None:
        """Not ready at once; go on answering until nothing is open, or the deadline is there."""
        log.info("draining", extra={"in_flight": self.picker.in_flight})
        await self.ext_proc.drain(self._config.limits.drain_s)

    async def close(self) -> None:
        """Release what is left and end everything."""
        await self._background.cancel()
        self.picker.close()
        await self.monitor.close()
        await self.feeds.close()
        await self.state.close()
        await self.encoders.close()
        await self.admin.close()
        await self.health_server.stop()

    async def _find_pods(self) -> None:
        """Fill the registry and keep it true; returns when the pool is known."""
        if self._config.kubernetes is None:
            self._background.run(static.follow(self._config, self.registry))
            await self.registry.known.wait()
            return
        watch = PodWatch(self._config.kubernetes, self.registry, api_url())
        self._background.run(watch.follow())
        await watch.synced.wait()

    def _gone(self, endpoint: Endpoint) -> None:
        self.picker.progress.drop(endpoint)
        self._background.run(self.state.drop(endpoint))
