"""A pool as it runs in a cluster: pods, Valkey, pickers that share it, Envoy."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from multipick_epp.state.redis.address import parse_url
from multipick_epp.state.redis.keys import keys_of
from multipick_epp.state.redis.server import open_connection
from multipick_epp.types import BlockKey, Endpoint, address_of, rank_at
from multipick_sim.assets import MODEL_DIR
from multipick_sim.local.bootstrap import Bootstrap, Style, render
from multipick_sim.local.envoy import envoy
from multipick_sim.local.valkey import Valkey, valkey

from stacks.process import PATIENCE_S, Json, Picker, Pod, eventually, stop_all
from stacks.truth import MODEL, block_keys_of, xor

POOL = "demo"
LOOK_S = 30.0  # a part that answers no question for so long is as good as away


@dataclass
class Stack:
    """All that a test touches."""

    http: aiohttp.ClientSession  # against Envoy
    admin: aiohttp.ClientSession  # for everything else
    envoy_admin: str  # URL
    pods: list[Pod]
    pickers: list[Picker]
    store: Valkey

    # --- requests

    async def post(self, path: str, body: Any) -> tuple[aiohttp.ClientResponse, Any]:
        async with self.http.post(path, json=body) as response:
            return response, json.loads(await response.read())

    async def chat(self, messages: Sequence[Json], **fields: Any) -> tuple[aiohttp.ClientResponse, Any]:
        """One answered chat, once the index knows of all before it."""
        await self.settled()
        body = {"model": MODEL, "messages": messages, "max_tokens": 40, **fields}
        response, answer = await self.post("/v1/chat/completions", body)
        assert response.status == 200, answer
        return response, answer

    # --- what the parts know

    async def rows(self, picker: Picker) -> dict[Endpoint, Json]:
        return {row["endpoint"]: row for row in await self.get(f"{picker.url}/endpoints")}

    async def load(self) -> Mapping[bytes, bytes]:
        """The loads in Valkey: endpoints that have any."""
        connection = await open_connection(parse_url(self.store.url), "", PATIENCE_S)
        try:
            fields = await connection.call("HGETALL", keys_of(POOL).load)
        finally:
            connection.close()
        # An endpoint that had load keeps a zero, and a field without a name makes the hash a table (docs/state.md).
        return {each: sums for each, sums in zip(fields[::2], fields[1::2], strict=True) if each and int(sums)}

    async def records(self, kind: bytes) -> int:
        """How many of a kind are in the store's log."""
        connection = await open_connection(parse_url(self.store.url), "", PATIENCE_S)
        found, start = 0, b"-"
        try:
            while entries := await connection.call("XRANGE", keys_of(POOL).log, start, "+", "COUNT", 1000):
                found += sum(fields[::2].count(kind) for _, fields in entries)
                start = b"(" + entries[-1][0]
        finally:
            connection.close()
        return found

    async def batches(self, endpoint: Endpoint) -> int:
        """How many batches of an endpoint's events its owner has noted."""
        connection = await open_connection(parse_url(self.store.url), "", PATIENCE_S)
        try:
            position = await connection.call("HGET", keys_of(POOL).notes(endpoint), "position")
        finally:
            connection.close()
        noted = re.fullmatch(rb"\d+ \[(\d+),.*", position or b"")
        return int(noted[1]) + 1 if noted else 0

    async def cached(self, pod: Pod) -> dict[Endpoint, set[BlockKey]]:
        """What each rank of a pod really holds, as our keys; by its own account, which is not made of events."""
        ranks = [*(await self.get(f"http://{pod.endpoint}/sim/cache")).values()]
        several = len(ranks) > 1
        names = [rank_at(pod.endpoint, rank) if several else pod.endpoint for rank in range(len(ranks))]
        return {name: block_keys_of(blocks) for name, blocks in zip(names, ranks, strict=True)}

    async def total(self, metric: str) -> float:
        """A counter without labels, over all pickers."""
        total = 0.0
        for picker in self.pickers:
            found = re.search(rf"^{metric} (\S+)$", await self.metrics(picker), re.MULTILINE)
            assert found, f"no metric {metric}"
            total += float(found[1])
        return total

    async def metrics(self, picker: Picker) -> str:
        async with self.admin.get(f"{picker.url}/metrics") as response:
            return await response.text()

    # --- conditions

    async def status(self, good: Callable[[Json], object]) -> Json:
        """What the first picker says of itself, once it is good."""
        found: Json = {}

        async def bad() -> object:
            nonlocal found
            found = await self.get(f"{self.pickers[0].url}/status")
            return None if good(found) else found

        await eventually(bad)
        return found

    async def known(self) -> None:
        """Every picker follows every rank of every pod."""
        await eventually(self.unknown)

    async def seen_healthy(self) -> None:
        """Envoy calls every picker healthy."""
        await eventually(self.unseen)

    async def unseen(self) -> object:
        stats = await self.get(f"{self.envoy_admin}/stats?filter=cluster.pickers.membership_&format=json")
        members = {each["name"].rpartition("_")[2]: each["value"] for each in stats["stats"]}
        return members if members["healthy"] != members["total"] else None

    async def settled(self) -> None:
        """Every picker's index is, block for block, what the pods have cached."""
        await eventually(self.differing)

    async def idle(self) -> None:
        """No picker, and not the store, counts a request or a token on any pod."""
        await eventually(self.loaded)

    async def unknown(self) -> object:
        """What a picker knows of the pods, where it doesn't follow all; else None."""
        for picker in self.pickers:
            rows = await self.rows(picker)
            well = all(row["ready"] and row["mode"] == "exact" for row in rows.values())
            if not well or {*map(address_of, rows)} != {pod.endpoint for pod in self.pods}:
                return picker.log.stem, {each: (row["ready"], row["mode"]) for each, row in rows.items()}
        return None

    async def differing(self) -> object:
        """The first endpoint whose cache a picker's index differs from, and how; else None."""
        for endpoint, keys in [each for pod in self.pods for each in (await self.cached(pod)).items()]:
            wanted = (len(keys), f"{xor(keys):015x}")
            for picker in self.pickers:
                caches = await self.get(f"{picker.url}/index/{quote(endpoint)}")
                found = [(cache["blocks"], cache["digest"]) for cache in caches if cache["blocks"]]
                if found != [wanted][: len(keys)]:
                    return endpoint, wanted, picker.log.stem, found
        return None

    async def loaded(self) -> object:
        """The loads that the store, or else a picker, counts; None where there is none."""
        if load := await self.load():
            return load
        for picker in self.pickers:
            for row in (await self.rows(picker)).values():
                if row["in_flight"] or row["queued_tokens"] or row["unexplained_in_flight"]:
                    return picker.log.stem, row
        return None

    async def get(self, url: str) -> Any:
        """What a pod or a picker tells as JSON."""
        async with self.admin.get(url) as response:
            return await response.json()


@dataclass(frozen=True)
class Plan:
    """What a stack consists of."""

    style: Style = "standalone"
    pods: int = 2
    pickers: int = 1
    flags: Sequence[object] = ()  # of each pod
    each: Sequence[Sequence[object]] = ()  # of the first, second, ... pod, instead of free ports: to differ, or be sick
    config: Mapping[str, object] = field(default_factory=dict)  # added to each picker's
    store: Mapping[str, str] = field(default_factory=dict)  # Valkey's settings
    retries: int = 0  # Envoy's, of a request that no pod has begun to answer
    threads: int = 1  # Envoy's workers, each with a connection of its own to each picker


@asynccontextmanager
async def running_stack(folder: Path, plan: Plan) -> AsyncIterator[Stack]:
    async with AsyncExitStack() as started:
        server = await started.enter_async_context(valkey(plan.store))
        ports = ("--port", 0, "--events-port", 0, "--replay-port", 0)
        serve = ("sim", "serve", "--served-model-name", MODEL, "--dev", *plan.flags)
        own = plan.each or [ports] * plan.pods
        pods = [Pod(f"pod-{number}", folder, (*serve, *flags)) for number, flags in enumerate(own)]
        started.push_async_callback(stop_all, pods)
        await asyncio.gather(*(pod.serve() for pod in pods))
        config = {
            "pool": {"name": POOL, "models": [MODEL], "tokenizer": str(MODEL_DIR)},
            "endpoints": [{"address": pod.endpoint} for pod in pods],
            "state": server.url,
            "limits": {"decision_s": 5.0},  # a busy machine must not change what is decided
            "explain_headers": True,
        }
        pickers = [Picker(f"picker-{number}", folder, config | dict(plan.config)) for number in range(plan.pickers)]
        for picker in pickers:
            started.callback(picker.let_go)
        started.push_async_callback(stop_all, pickers)
        await asyncio.gather(*(picker.serve() for picker in pickers))
        ports_of_pickers = [picker.port for picker in pickers]
        bootstrap = Bootstrap([pod.endpoint for pod in pods], ports_of_pickers, plan.style, retries=plan.retries)
        gateway = await started.enter_async_context(
            envoy(render(bootstrap), log=folder / "envoy.log", workers=plan.threads)
        )
        connector = aiohttp.TCPConnector(limit=0)
        http = await started.enter_async_context(aiohttp.ClientSession(gateway.url, connector=connector))
        patience = aiohttp.ClientTimeout(total=LOOK_S)
        admin = await started.enter_async_context(aiohttp.ClientSession(timeout=patience))
        stack = Stack(http, admin, gateway.admin_url, pods, pickers, server)
        if not plan.each:
            await stack.known()
        yield stack
