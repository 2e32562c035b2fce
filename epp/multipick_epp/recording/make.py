"""Records a live engine: sends requests one after the other, and keeps the answers and the KV events of each.

What is written is what was sent and what came back, prompts included, but no `authorization` header.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from multipick_epp.engines.answers import read_at_most
from multipick_epp.events.discover import Addresses
from multipick_epp.recording.folder import RecordedMessage, Recording
from multipick_epp.recording.session import session as built_in

SUBSCRIBED_S = 10.0  # at most, until the publisher has taken the subscription
REPLAY_S = 3.0  # without an answer
MAX_ANSWER_BYTES = 64 << 20
_TOO_LONG = f"an answer of more than {MAX_ANSWER_BYTES} bytes"
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})
_END = b"\xff" * 8


class NoRecording(Exception):  # noqa: N818 (named for what it is)
    """The engine can't be recorded; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to record."""

    url: str  # http://host:port of the engine
    publishers: Sequence[Addresses]  # one for each data-parallel rank behind it
    ranks: Sequence[int] = ()  # the numbers of these, where the engine told them
    settle_s: float = 0.5  # after each answer, for its events to arrive
    headers: Mapping[str, str] = field(default_factory=dict)  # sent with every request


async def record(
    name: str,
    target: Target,
    requests: Iterable[Mapping[str, Any]] | None,
    progress: Callable[[str], None],
) -> tuple[Recording, Sequence[str]]:
    """The recording, and the engine's metrics before and after. `requests` are steps; None: a built-in session.

    Raises NoRecording where the engine or its publisher doesn't answer.
    """
    context: zmq.asyncio.Context = zmq.asyncio.Context()
    messages: list[RecordedMessage] = []
    sub = context.socket(zmq.SUB)
    sub.setsockopt(zmq.RCVHWM, 0)
    sub.setsockopt(zmq.SUBSCRIBE, b"")
    try:
        async with aiohttp.ClientSession(headers=target.headers, timeout=aiohttp.ClientTimeout(total=600)) as http:
            models = await _models(http, target.url)
            for addresses in target.publishers:
                await _connect(sub, addresses.events)
            for addresses in target.publishers:
                messages += await _replay(context, addresses.replay)
            receiving = asyncio.create_task(_receive(sub, messages))
            before = await _metrics(http, target.url)
            steps = []
            for step in built_in(models[0]) if requests is None else requests:
                progress(str(step.get("step", step.get("path"))))
                begin = len(messages)
                done = await _send(http, target.url, step)
                await asyncio.sleep(target.settle_s)
                steps.append(done | {"msg_range": [begin, len(messages)]})
            after = await _metrics(http, target.url)
            receiving.cancel()
            version = await _json(http, f"{target.url}/version")
    finally:
        context.destroy(linger=0)
    engine = f"vllm {version['version']}" if isinstance(version, dict) and "version" in version else "unknown"
    manifest = {
        "name": name,
        "engine": engine,
        "models": models,
        "ranks": list(target.ranks),
        "nmsgs": len(messages),
        "format": "frames.bin: repeated [f64 BE recv_unix_time][u8 nframes]{[u32 BE len][bytes]}",
    }
    return Recording(name, manifest, messages, steps), (before, after)


async def _models(http: aiohttp.ClientSession, url: str) -> list[str]:
    """The base model's names; LoRA adapters, which have a parent, are none."""
    listed = await _json(http, f"{url}/v1/models")
    data = listed.get("data") if isinstance(listed, dict) else None
    names = [str(model["id"]) for model in data or () if isinstance(model, dict) and not model.get("parent")]
    if not names:
        raise NoRecording(f"{url}/v1/models names no model")
    return names


async def _connect(sub: zmq.asyncio.Socket, events: str) -> None:
    # a name of its own: the default is made of the descriptor, which comes again before the last monitor is quite gone
    monitor = sub.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED, f"inproc://monitor-{uuid4().hex}")
    try:
        sub.connect(events)
        async with asyncio.timeout(SUBSCRIBED_S):
            await recv_monitor_message(monitor)
    except (TimeoutError, zmq.ZMQError) as error:
        raise NoRecording(f"no publisher at {events}") from error
    finally:
        sub.disable_monitor()


async def _replay(context: zmq.asyncio.Context, replay: str | None) -> list[RecordedMessage]:
    """All that the publisher has kept, so that a warm cache is known too."""
    messages: list[RecordedMessage] = []
    if replay is None:
        return messages
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.RCVHWM, 0)
    dealer.connect(replay)
    await dealer.send_multipart([b"", bytes(8)])
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(REPLAY_S):
                frames = await dealer.recv_multipart()
            if frames[-2] == _END:
                break
            messages.append(RecordedMessage(time.time(), [b"", *frames[-2:]]))
    dealer.close(linger=0)
    return messages


async def _receive(sub: zmq.asyncio.Socket, messages: list[RecordedMessage]) -> None:
    """Append what comes live, but for what the replay has brought."""
    known = {(message.rank, message.seq) for message in messages}
    while True:
        message = RecordedMessage(time.time(), await sub.recv_multipart())
        whole = len(message.frames) >= 2 and len(message.frames[-2]) == 8
        if whole and (not known or (message.rank, message.seq) not in known):
            messages.append(message)


async def _send(http: aiohttp.ClientSession, url: str, step: Mapping[str, Any]) -> dict[str, Any]:
    """One step, and what came of it."""
    request = step.get("request")
    headers = {str(name): str(value) for name, value in (step.get("req_headers") or {}).items()}
    started = time.time()
    done: dict[str, Any] = {
        "step": step.get("step", step.get("path")),
        "note": step.get("note", ""),
        "method": step.get("method", "POST" if request is not None else "GET"),
        "path": step["path"],
        "request": request,
        "req_headers": {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS},
        "t_start": started,
    }
    try:
        async with http.request(done["method"], url + step["path"], json=request, headers=headers) as response:
            done |= {"status": response.status, "headers": dict(response.headers)}
            if response.content_type == "text/event-stream":
                done["sse"] = await _events(response, started)
            else:
                done["response"] = _readable(await _body(response))
    except (aiohttp.ClientError, TimeoutError) as error:
        done |= {"status": 0, "response": {"__error__": str(error) or type(error).__name__}}
    return done | {"t_end": time.time()}


async def _json(http: aiohttp.ClientSession, url: str) -> Any:
    try:
        async with http.get(url) as response:
            return _readable(await _body(response))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NoRecording(f"{url}: {error}") from error


async def _metrics(http: aiohttp.ClientSession, url: str) -> str:
    """The engine's own lines of its metrics page."""
    try:
        async with http.get(f"{url}/metrics") as response:
            page = (await _body(response)).decode(errors="replace")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NoRecording(f"{url}/metrics: {error}") from error
    return "".join(f"{line}\n" for line in page.splitlines() if line.startswith(("vllm:", "sglang:")))


async def _events(response: aiohttp.ClientResponse, started: float) -> list[tuple[float, str]]:
    """The lines of a stream, of whatever length, and when each was whole."""
    lines: list[tuple[float, str]] = []
    size, rest = 0, bytearray()  # grown in place: a line may come in a thousand pieces
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(_TOO_LONG)
        *whole, last = chunk.split(b"\n")
        now = time.time() - started
        for end in whole:
            rest += end
            lines.append((now, rest.decode(errors="replace") + "\n"))
            rest.clear()
        rest += last
    return [*lines, (time.time() - started, rest.decode(errors="replace"))] if rest else lines


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = await read_at_most(response, MAX_ANSWER_BYTES)
    if body is None:
        raise aiohttp.ClientPayloadError(_TOO_LONG)
    return body


def _readable(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"__text__": body.decode(errors="replace")}
