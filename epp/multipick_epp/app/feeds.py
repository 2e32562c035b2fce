"""The ingest of KV events, as the picker starts it: in this process with a state in memory, else in one of its own.

Where a picker has several workers, theirs is one.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from multipick_epp.app.stores import MEMORY, store_password, store_url
from multipick_epp.blocks import root_key
from multipick_epp.config import Config
from multipick_epp.events.child import IngestOptions
from multipick_epp.events.discover import FeedSpec, Ports, one_spelling
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.events.ingest import Ingest
from multipick_epp.events.process import IngestProcess
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.state.protocol import State
from multipick_epp.types import host_of
from multipick_epp.workers.shared import SharedIngest


class Feeds:
    """Follows the events of the registry's endpoints, unless the configuration says not to."""

    def __init__(self, config: Config, state: State, secret: bytes, shared: SharedIngest | None = None) -> None:
        """`shared`: the ingest that a worker has in common with others."""
        options = ingest_options(config, secret)
        self._ports = options.ports
        self._enabled = config.events.enabled
        self._ingest: Ingest | IngestProcess | SharedIngest
        if shared is not None:
            self._ingest = shared
        elif options.url == MEMORY:
            root = partial(root_key, secret, options.model)
            self._ingest = Ingest(state, root, options.ports, options.media)
        else:
            self._ingest = IngestProcess(options)

    async def start(self) -> None:
        """Begin; there is nothing to follow yet."""
        if self._enabled:
            await self._ingest.start()

    async def up(self) -> None:
        """Returns when this picker can take over endpoints that others leave; after some seconds anyway."""
        if self._enabled and not isinstance(self._ingest, Ingest):
            await self._ingest.up()

    async def close(self) -> None:
        """Stop following. The index keeps what it knows."""
        if self._enabled:
            await self._ingest.close()

    def follow(self, pods: Sequence[PodEndpoint]) -> None:
        """The pool consists of these endpoints from now on."""
        if self._enabled:
            self._ingest.follow(specs_of(pods, self._ports))

    def stats(self) -> Sequence[FeedStats]:
        """Of each endpoint that this picker follows."""
        return self._ingest.stats() if self._enabled else ()

    @property
    def restarts(self) -> int:
        """Times that the process that ingests ended and was started again."""
        return self._ingest.restarts if isinstance(self._ingest, IngestProcess) else 0

    @property
    def unread_reports(self) -> int:
        """Lines of that process that were no report."""
        return self._ingest.unread_reports if isinstance(self._ingest, IngestProcess) else 0

    @property
    def degraded(self) -> str | None:
        """Why what engines say doesn't reach the shared state; None while it does, or nobody listens to them."""
        return self._ingest.degraded if self._enabled and not isinstance(self._ingest, Ingest) else None


def ingest_options(config: Config, secret: bytes) -> IngestOptions:
    """What an ingest has to know. Raises ConfigError where the store's password is not to be had."""
    return IngestOptions(
        store_url(config),
        store_password(config),
        config.pool.name,
        config.pool.models[0] if config.pool.models else "",
        secret,
        Ports(config.events.port, config.events.replay_port),
        config.log_level,
        config.log_format,
        tuple(config.events.medium_weights),
    )


def specs_of(pods: Sequence[PodEndpoint], ports: Ports) -> list[FeedSpec]:
    """What is to be followed. The pool's ports are nobody's where two endpoints of a host would have the same one."""
    publishers = [_publisher(pod, ports) for pod in pods]
    shared = Counter(publishers)
    return [
        FeedSpec(pod.endpoint, pod.events, pod.replay, pod.started_ms, pod.rank, alone=shared[publisher] == 1)
        for pod, publisher in zip(pods, publishers, strict=True)
    ]


def _publisher(pod: PodEndpoint, ports: Ports) -> tuple[str, int]:
    """Host and port where its events would be looked for, if its engine did not name another port."""
    if pod.events is None:
        return one_spelling(host_of(pod.endpoint)), (ports.events or 0) + pod.rank
    host, _, port = pod.events.removeprefix("tcp://").rpartition(":")
    return one_spelling(host), int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
