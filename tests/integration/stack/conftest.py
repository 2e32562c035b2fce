"""A pool as it runs in a cluster, each part a process of its own: pods, Valkey, pickers that share it, Envoy."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from multipick_epp.blocks import child_key, encode_extra, root_key, token_bytes
from multipick_epp.state.redis.keys import keys_of
from multipick_epp.state.redis.server import open_connection, parse_url
from multipick_epp.types import BlockKey, Endpoint
from multipick_sim.assets import MODEL_DIR
from multipick_sim.local.bootstrap import Bootstrap, Style, render
from multipick_sim.local.envoy import envoy
from multipick_sim.local.processes import held_port, running
from multipick_sim.local.valkey import Valkey, valkey

Json = dict[str, Any]
MODEL = "demo"
POOL = "demo"
PATIENCE_S = 60.0
MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")


async def eventually(condition: Callable[[], Awaitable[object]], within_s: float = PATIENCE_S) -> None:
    """Wait until `condition` gives None, or anything that is equal to its default: what it gives instead is shown."""
    found: object = "nothing yet"
    try:
        async with asyncio.timeout(within_s):
            while found := await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still: {found}") from None


class Process:
    """`multipick …`, to be killed and started again."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[object]) -> None:
        self.log = folder / f"{name}.log"
        self._command = [*MULTIPICK, *map(str, arguments)]
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("MULTIPICK_")}
        self._running = AsyncExitStack()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    async def start(self, announcement: str) -> re.Match[str]:
        """Start, and wait for a line in the log that matches."""
        seen = len(self.said())
        process = await self._running.enter_async_context(running(self._command, log=self.log, env=self._env))
        self._process = process
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (match := re.search(announcement, self.said()[seen:])):
                    assert process.returncode is None, self.said()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not started: {self.said()[-2000:]}") from None
        return match

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    async def kill(self) -> None:
        """SIGKILL for it and all that it started, as the end of a container."""
        os.killpg(self.pid, signal.SIGKILL)
        await self.ended()
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._process = None
        await self._running.aclose()

    def terminate(self) -> None:
        """SIGTERM alone."""
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self) -> int:
        """The exit status, once it has one."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()


class Pod(Process):
    """A simulated vLLM."""

    endpoint = Endpoint("")

    async def serve(self) -> None:
        self.endpoint = Endpoint((await self.start(r"^serving .* on http://([\d.]+:\d+)"))[1])


class Picker(Process):
    """A picker, always on the same ext_proc port."""

    def __init__(self, name: str, folder: Path, config: Json) -> None:
        self.port, self._keeper = held_port()
        file = folder / f"{name}.yaml"
        listen = {"host": "127.0.0.1", "ext_proc": self.port, "health": 0, "admin": 0}
        file.write_bytes(msgspec.yaml.encode(config | {"listen": listen}))
        super().__init__(name, folder, ("epp", "--config", file))
        self.url = ""

    async def serve(self) -> None:
        listening = await self.start(r'"listening".*"admin": ?(\d+)')
        self.url = f"http://127.0.0.1:{listening[1]}"

    def let_go(self) -> None:
        self._keeper.close()

    @property
    def ingest_pid(self) -> int | None:
        """Of its child process, which takes the KV events in."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else None


@dataclass
class Stack:
    """All that a test touches."""

    http: aiohttp.ClientSession  # against Envoy
    admin: aiohttp.ClientSession  # for everything else
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
        return {row["endpoint"]: row for row in await self._get(f"{picker.url}/endpoints")}

    async def load(self) -> Mapping[bytes, bytes]:
        """The loads in Valkey: endpoints that have any."""
        connection = await open_connection(parse_url(self.store.url), "", PATIENCE_S)
        try:
            fields = await connection.call("HGETALL", keys_of(POOL).load)
        finally:
            connection.close()
        # An endpoint that had load keeps a zero, and a field without a name makes the hash a table (docs/state.md).
        return {each: sums for each, sums in zip(fields[::2], fields[1::2], strict=True) if each and int(sums)}

    async def cached(self, pod: Pod) -> set[BlockKey]:
        """What a pod really holds, as our keys; by its own account, which is not made of events."""
        [blocks] = (await self._get(f"http://{pod.endpoint}/sim/cache")).values()
        return block_keys_of(blocks)

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
            found = await self._get(f"{self.pickers[0].url}/status")
            return None if good(found) else found

        await eventually(bad)
        return found

    async def known(self) -> None:
        """Every picker follows every pod."""

        async def unknown() -> object:
            for picker in self.pickers:
                rows = await self.rows(picker)
                ready = sum(row["ready"] and row["mode"] == "exact" for row in rows.values())
                if ready < len(self.pods):
                    return rows
            return None

        await eventually(unknown)

    async def settled(self) -> None:
        """Every picker's index is, block for block, what the pods have cached."""

        async def differ() -> object:
            for pod in self.pods:
                keys = await self.cached(pod)
                wanted = (len(keys), f"{xor(keys):015x}")
                for picker in self.pickers:
                    caches = await self._get(f"{picker.url}/index/{pod.endpoint}")
                    found = [(cache["blocks"], cache["digest"]) for cache in caches if cache["blocks"]]
                    if found != [wanted][: len(keys)]:
                        return pod.endpoint, wanted, picker.log.stem, caches
            return None

        await eventually(differ)

    async def idle(self) -> None:
        """No picker, and not the store, counts a request or a token on any pod."""

        async def busy() -> object:
            if load := await self.load():
                return load
            for picker in self.pickers:
                for row in (await self.rows(picker)).values():
                    if row["in_flight"] or row["queued_tokens"] or row["unexplained_in_flight"]:
                        return picker.log.stem, row
            return None

        await eventually(busy)

    async def _get(self, url: str) -> Any:
        async with self.admin.get(url) as response:
            return await response.json()


def block_keys_of(blocks: Sequence[Json]) -> set[BlockKey]:
    """`GET /sim/cache` as block keys. A cached block's parent is cached: engines free a chain from its end."""
    by_hash = {block["hash"]: block for block in blocks}
    keys: dict[int, BlockKey] = {}
    for block in blocks:
        chain = []
        while block["hash"] not in keys:
            chain.append(block)
            if block["parent"] is None:
                break
            block = by_hash[block["parent"]]
        for each in reversed(chain):
            lora, parent = each["lora_name"], each["parent"]
            extras = encode_extra([extra for extra in each["extra_keys"] or () if extra != lora])
            before = root_key(b"", MODEL, lora) if parent is None else keys[parent]
            keys[each["hash"]] = child_key(before, token_bytes(each["token_ids"]), extras)
    return set(keys.values())


def xor(keys: set[BlockKey]) -> int:
    total = 0
    for key in keys:
        total ^= key
    return total


async def stop_all(processes: Sequence[Process]) -> None:
    await asyncio.gather(*(process.stop() for process in processes))


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
        bootstrap = Bootstrap([pod.endpoint for pod in pods], [picker.port for picker in pickers], plan.style)
        gateway = await started.enter_async_context(envoy(render(bootstrap), log=folder / "envoy.log"))
        connector = aiohttp.TCPConnector(limit=0)
        http = await started.enter_async_context(aiohttp.ClientSession(gateway.url, connector=connector))
        admin = await started.enter_async_context(aiohttp.ClientSession())
        stack = Stack(http, admin, pods, pickers, server)
        if not plan.each:
            await stack.known()
        yield stack


class StartStack(Protocol):
    """Starts what a `Plan` with these fields says."""

    async def __call__(
        self,
        style: Style = ...,
        *,
        pods: int = ...,
        pickers: int = ...,
        flags: Sequence[object] = ...,
        each: Sequence[Sequence[object]] = ...,
        config: Mapping[str, object] = ...,
        store: Mapping[str, str] = ...,
    ) -> Stack: ...


@pytest.fixture
async def start_stack(tmp_path: Path) -> AsyncIterator[StartStack]:
    """For tests that break something."""
    async with AsyncExitStack() as started:

        async def start(style: Style = "standalone", **fields: Any) -> Stack:
            return await started.enter_async_context(running_stack(tmp_path, Plan(style, **fields)))

        yield start


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["standalone", "gateway"])
async def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One for all tests of a module that leave it as it was, in both styles of gateway."""
    folder = tmp_path_factory.mktemp(request.param)
    async with running_stack(folder, Plan(request.param, flags=("--lora", "tuned"))) as running:
        yield running
