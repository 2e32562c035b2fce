"""Where an endpoint publishes its events: as configured, else as its engine says, else at the pool's ports.

vLLM >= 0.31 answers `GET /kv_event_sources` with `{"RANK": {"endpoint": "tcp://*:5557", "replay_endpoint": …}}`, or
with `{}` where events are off; older ones and SGLang with an error. Only ports are taken from the answer, never a host:
an engine can't make the picker connect anywhere but to that engine's own address.
"""

import re
from dataclasses import dataclass

import aiohttp
import msgspec

from multipick_epp.engines.answers import read_at_most
from multipick_epp.types import Endpoint

MAX_ANSWER_BYTES = 1 << 20
_ANSWER_TIMEOUT = aiohttp.ClientTimeout(total=3)
_ADDRESS = re.compile(r"tcp://(.+):(\d{1,5})")
_ANY_HOST = frozenset({"*", "0.0.0.0", "::", "[::]"})


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """An endpoint whose events are wanted."""

    endpoint: Endpoint
    events: str | None = None  # tcp://ip:port of the publisher; None: to be found
    replay: str | None = None
    started_ms: int | None = None  # Unix time at which the container started, where somebody knows
    rank: int = 0  # data-parallel rank behind this endpoint


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


class _Source(msgspec.Struct):
    endpoint: str | None = None
    replay_endpoint: str | None = None
    buffer_steps: int = 1


_answer = msgspec.json.Decoder(dict[str, _Source])


class Unreachable(Exception):  # noqa: N818 (named for what it is)
    """The engine doesn't answer now; it may later."""


async def discover(session: aiohttp.ClientSession, spec: FeedSpec, ports: Ports) -> Addresses | NoEvents:
    """The addresses to follow. Raises Unreachable while the engine doesn't answer."""
    if spec.events is not None:
        return Addresses(spec.events, spec.replay)
    try:
        url = f"http://{spec.endpoint}/kv_event_sources"
        async with session.get(url, timeout=_ANSWER_TIMEOUT, allow_redirects=False) as response:
            if response.status in (500, 502, 503, 504):
                raise Unreachable(f"status {response.status}")
            body = await read_at_most(response, MAX_ANSWER_BYTES) if response.status == 200 else b""
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
    if body is None:
        raise Unreachable(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return said(spec, body) if body else by_ports(spec, ports)


def said(spec: FeedSpec, body: bytes) -> Addresses | NoEvents:
    """The publisher of the endpoint's rank, from the engine's answer."""
    try:
        sources = _answer.decode(body)
    except msgspec.DecodeError as error:
        return NoEvents(f"unreadable answer: {error}")
    if not sources:
        return NoEvents("the engine has its events off")
    source = sources.get(str(spec.rank)) or (next(iter(sources.values())) if len(sources) == 1 else None)
    if source is None or source.endpoint is None:
        return NoEvents(f"no rank {spec.rank} among {', '.join(sorted(sources))}"[:200])
    address = _ADDRESS.fullmatch(source.endpoint)
    if address is None or address[1] not in _ANY_HOST:
        return NoEvents("the engine's publisher connects instead of binding: its endpoint needs a host of *")
    replay = _ADDRESS.fullmatch(source.replay_endpoint) if source.replay_endpoint and source.buffer_steps > 0 else None
    return Addresses(_at(spec, int(address[2])), _at(spec, int(replay[2])) if replay else None)


def by_ports(spec: FeedSpec, ports: Ports) -> Addresses | NoEvents:
    """The publisher at the pool's ports."""
    if ports.events is None:
        return NoEvents("neither the engine nor the configuration names a port")
    return Addresses(
        _at(spec, ports.events + spec.rank), None if ports.replay is None else _at(spec, ports.replay + spec.rank)
    )


def _at(spec: FeedSpec, port: int) -> str:
    return f"tcp://{spec.endpoint.rpartition(':')[0]}:{port}"
