"""LoRA adapters that come and go while engines run: each engine is told through its own API, and asked what it has.

A reconcile never waits for that: loading may take minutes. It gets what is known, and is called again when more is.
Sources: vLLM 0.32 entrypoints/serve/lora, SGLang 0.5 `/load_lora_adapter`.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import msgspec

from multipick_operator.bounded import body_of
from multipick_operator.cluster.pools import Key
from multipick_operator.status.adapters import Engine, Held, Order
from multipick_operator.status.pickers import MAX_ANSWER_BYTES

ASK_S = 5.0
LOAD_S = 120.0  # the engine goes on loading after that, and tells when it is asked again
RETRY_S = 10.0  # an engine that has not what it should is asked again after so long
AT_ONCE = 16  # engines of a pool that are told
ASKED_AT_ONCE = 64  # engines of all pools that are asked, which takes ASK_S at most: after a start, all are due
UNANSWERED = (aiohttp.ClientError, OSError, TimeoutError)
FAILURES = (*UNANSWERED, ValueError, RecursionError)  # the last: of a nested answer


class Known(NamedTuple):
    """What an engine said last, and of which order."""

    at_s: float
    order: Order
    held: Held
    silent_at: str  # the adapter of which it was told, and did not answer; empty where it answered


def _slots() -> asyncio.Semaphore:
    return asyncio.Semaphore(AT_ONCE)


@dataclass(slots=True)
class _Pool:
    """Each engine has a task. Those that did not answer the last time take turns among themselves alone."""

    order: Order
    known: dict[Engine, Known] = field(default_factory=dict)
    tasks: dict[Engine, asyncio.Task[None]] = field(default_factory=dict)
    slots: asyncio.Semaphore = field(default_factory=_slots)
    silent_slots: asyncio.Semaphore = field(default_factory=_slots)


class _Card(msgspec.Struct):
    id: str
    parent: str | None = None  # of an adapter: the model that it is for


class _Models(msgspec.Struct):
    data: list[_Card]


class Adapters:
    """All pools of one operator. `changed` is called when more is known of a pool."""

    def __init__(
        self, changed: Callable[[Key], None], fresh_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changed = changed
        self._fresh_s = fresh_s
        self._clock = clock
        self._pools: dict[Key, _Pool] = {}
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    def look(self, key: Key, order: Order, engines: Sequence[Engine]) -> Mapping[Engine, Held]:
        """What these engines of a pool have, as far as they said so; who is not as ordered is told, beside."""
        pool = self._pools.setdefault(key, _Pool(order))
        pool.order = order
        for gone in pool.tasks.keys() - set(engines):
            pool.tasks.pop(gone).cancel()
        pool.known = {one: pool.known[one] for one in engines if one in pool.known}
        for one in engines:
            task = pool.tasks.get(one)
            if (task is None or task.done()) and self._is_due(pool.known.get(one), order):
                pool.tasks[one] = asyncio.create_task(self._settle(key, pool, one))
        return {one: known.held for one, known in pool.known.items()}

    def forget(self, key: Key) -> None:
        """The pool is gone, or has no adapters."""
        if pool := self._pools.pop(key, None):
            for task in pool.tasks.values():
                task.cancel()

    async def close(self) -> None:
        """Tell nobody any more."""
        tasks = [task for pool in self._pools.values() for task in pool.tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session:
            await self._session.close()

    def _is_due(self, known: Known | None, order: Order) -> bool:
        if known is None:
            return True
        age_s = self._clock() - known.at_s
        if order.is_met(known.held.names):
            return age_s >= self._fresh_s
        return known.order != order or age_s >= RETRY_S

    async def _settle(self, key: Key, pool: _Pool, engine: Engine) -> None:
        before = pool.known.get(engine)
        silent_at = before.silent_at if before else ""
        async with pool.silent_slots if silent_at else pool.slots:
            order = pool.order  # by now
            held, silent_at = await self._tell(engine, order, silent_at)
        pool.known[engine] = Known(self._clock(), order, held, silent_at)
        if before is None or held != before.held:
            self._changed(key)

    async def _tell(self, engine: Engine, order: Order, silent_at: str) -> tuple[Held, str]:
        """Ask what the engine has, and have loaded and unloaded what is not as ordered, until it does not answer.

        Takes and returns the adapter at which it did not. Begins after that one: it may be one that takes for ever.
        """
        try:
            async with self._asking:
                has = await self._names(engine)
        except FAILURES as error:
            words = f"/v1/models: {_words(error)}"
            return Held(frozenset(), dict.fromkeys((*order.wanted, *order.unwanted), words)), silent_at
        due = [name for name in order.wanted if name not in has] + [name for name in order.unwanted if name in has]
        start = due.index(silent_at) + 1 if silent_at in due else 0
        due = due[start:] + due[:start]
        troubles: dict[str, str] = {}
        for at, name in enumerate(due):
            try:
                trouble = await self._change(engine, order, name)
            except UNANSWERED as error:
                return Held(frozenset(has), troubles | dict.fromkeys(due[at:], _words(error))), name
            if trouble:
                troubles[name] = trouble
            else:
                has ^= {name}
        return Held(frozenset(has), troubles), ""

    async def _names(self, engine: Engine) -> set[str]:
        """Adapters that the engine has. Raises one of FAILURES."""
        status, body = await self._call("GET", engine, "/v1/models", None, ASK_S)
        if status != 200:
            raise ValueError(f"status {status}")
        return {one.id for one in msgspec.json.decode(body, type=_Models).data if one.parent is not None}

    async def _change(self, engine: Engine, order: Order, name: str) -> str:
        """The engine's words for why not; empty where it is done. Raises one of UNANSWERED."""
        if name in order.wanted:
            path, body = "/load_lora_adapter", {"lora_name": name, "lora_path": order.wanted[name]}
        else:
            path, body = "/unload_lora_adapter", {"lora_name": name}
        try:
            status, answer = await self._call("POST", engine, order.prefix + path, body, LOAD_S)
        except ValueError as error:
            return str(error)
        return "" if status == 200 else f"status {status}: {_message(answer)}"

    async def _call(self, method: str, engine: Engine, path: str, body: Any, time_s: float) -> tuple[int, bytes]:
        if self._session is None:
            # no bound of connections: pools have theirs, and would share this one
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        timeout = aiohttp.ClientTimeout(total=time_s)
        url = f"http://{engine.address}{path}"
        async with self._session.request(method, url, json=body, timeout=timeout, allow_redirects=False) as answer:
            return answer.status, await body_of(answer, MAX_ANSWER_BYTES)


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer yet"
    return str(error) or type(error).__name__


def _message(body: bytes) -> str:
    """What vLLM and SGLang say in JSON; anything else as it is."""
    try:
        found = json.loads(body)
        error = found.get("error") if isinstance(found.get("error"), dict) else found
        words = str(error.get("message") or error.get("error_message") or found)
        return words.encode(errors="replace").decode()  # JSON can say what no text can be
    except (ValueError, AttributeError, RecursionError):
        return body[:1000].decode(errors="replace")
