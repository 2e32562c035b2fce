"""Where an endpoint publishes its events: as configured, else as its engine says, else at the pool's ports.

vLLM >= 0.31 answers `GET /kv_event_sources` with `{"RANK": {"endpoint": "tcp://*:5557", "replay_endpoint": …}}`, or
with `{}` where events are off; older ones and SGLang with an error. A publisher at port 0 has bound a port that the
system chose, and says its own address. Only ports are taken from the answer, never a host: an engine can't make the
picker connect anywhere but to that engine's own address.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from multipick_epp.engines import EngineClient, Unanswered, Why
from multipick_epp.engines.event_sources import EventSource
from multipick_epp.types import Endpoint, host_of

_LATER = frozenset({500, 502, 503, 504})
"""Statuses of an engine that starts or ends; any other but 200 means that it doesn't know the question."""
_ADDRESS = re.compile(r"tcp://(.{1,255}):([0-9]{1,5})")
_PORTS = range(1, 65536)
_LOOPBACK = "localhost"


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """An endpoint whose events are wanted."""

    endpoint: Endpoint
    events: str | None = None  # tcp://ip:port of the publisher; None: to be found
    replay: str | None = None
    started_ms: int | None = None  # Unix time at which the container started, where somebody knows
    rank: int = 0  # data-parallel rank of this endpoint, counted over all pods of a group
    alone: bool = True  # no other endpoint would be looked for at the pool's ports of its host and rank


@dataclass(frozen=True, slots=True)
class Ports:
    """The pool's event ports of rank 0; rank n has n more. None: events are off; no replay."""

    events: int | None = None
    replay: int | None = None


@dataclass(frozen=True, slots=True)
class Addresses:
    """Of one publisher."""

    events: str
    replay: str | None = None


@dataclass(frozen=True, slots=True)
class NoEvents:
    """The endpoint publishes nothing that can be followed."""

    reason: str


class Unreachable(Exception):  # noqa: N818 (named for what it is)
    """The engine doesn't answer now; it may later."""


async def discover(engines: EngineClient, spec: FeedSpec, ports: Ports) -> Addresses | NoEvents:
    """The addresses to follow. Raises Unreachable while the engine doesn't answer."""
    if spec.events is not None:
        return Addresses(spec.events, spec.replay)
    answer = await engines.event_sources(spec.endpoint)
    if not isinstance(answer, Unanswered):
        return said(spec, answer)
    if answer.why is Why.UNREADABLE:
        return NoEvents(str(answer))
    if answer.why is Why.REFUSED and answer.status not in _LATER:
        return by_ports(spec, ports)
    raise Unreachable(str(answer))


def said(spec: FeedSpec, sources: Mapping[int, EventSource]) -> Addresses | NoEvents:
    """The publisher of the endpoint's rank, from the engine's answer."""
    if not sources:
        return NoEvents("the engine has its events off")
    source = sources.get(spec.rank) or (next(iter(sources.values())) if len(sources) == 1 else None)
    if source is None or source.endpoint is None:
        return NoEvents(f"no rank {spec.rank} among {', '.join(map(str, sorted(sources)))}"[:200])
    events = _own_port(spec, source.endpoint)
    if isinstance(events, NoEvents):
        return events
    replay = _own_port(spec, source.replay_endpoint) if source.replay_endpoint and source.buffer_steps > 0 else None
    return Addresses(_at(spec, events), _at(spec, replay) if isinstance(replay, int) else None)


def _own_port(spec: FeedSpec, address: str) -> int | NoEvents:
    """The port of a socket that the engine has bound: at any host, or at the endpoint's own."""
    parts = _ADDRESS.fullmatch(address)
    if parts is None or not (parts[1] == "*" or _same_host(parts[1], host_of(spec.endpoint))):
        return NoEvents("the engine's publisher connects instead of binding: its endpoint needs a host of *")
    port = int(parts[2])
    return port if port in _PORTS else NoEvents(f"the engine names port {port}, which is none")


def _same_host(said: str, own: str) -> bool:
    """Whether `said` is any address, or the one that `own` is. A name is the same only to the letter."""
    try:
        address = _address(said)
    except ValueError:
        return said.lower() == own.lower()
    try:
        return address.is_unspecified or address == _address(own)
    except ValueError:
        return False


def one_spelling(host: str) -> str:
    """The same text for all ways to write an address, and one for this machine itself."""
    try:
        address = _address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return _LOOPBACK if name == "localhost" else name
    return _LOOPBACK if address.is_loopback else str(address)


def _address(host: str) -> IPv4Address | IPv6Address:
    """With or without brackets. Raises ValueError for what is no address."""
    address = ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def by_ports(spec: FeedSpec, ports: Ports) -> Addresses | NoEvents:
    """The publisher at the pool's ports."""
    if ports.events is None:
        return NoEvents("neither the engine nor the configuration names a port")
    if not spec.alone:
        return NoEvents("several endpoints of its host would have the same event port: state `events` of each")
    events, replay = ports.events + spec.rank, (ports.replay or 0) + spec.rank
    if events not in _PORTS:
        return NoEvents(f"the configuration gives rank {spec.rank} port {events}, which is none")
    return Addresses(_at(spec, events), _at(spec, replay) if ports.replay and replay in _PORTS else None)


def _at(spec: FeedSpec, port: int) -> str:
    return f"tcp://{spec.endpoint.rpartition(':')[0]}:{port}"
