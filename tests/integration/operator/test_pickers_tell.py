"""What a real picker finds, with a real store and simulated engines, becomes conditions, and goes with its cause.

There is no kubelet: the picker runs here, with the configuration that the operator made for it, at the address of the
pod that the API server knows.
"""

import asyncio
import random
import re
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.client import Namespace, until
from multipick_sim.assets import MODEL_DIR
from multipick_sim.local.processes import held_port, running
from multipick_sim.local.valkey import valkey

Running = Callable[..., Any]
MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")
EVENTS = ("--events-port", 0, "--replay-port", 0)


class Programs:
    """`multipick …` processes, each with a log; all end with the test."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._ends: dict[str, AsyncExitStack] = {}

    async def start(self, name: str, *arguments: object, announced: str) -> None:
        """Start it in the place of an earlier one of this name, and wait for a line of its log."""
        if earlier := self._ends.pop(name, None):
            await earlier.aclose()
        log = self._folder / f"{name}-{random.randrange(1 << 32)}.log"
        own = self._ends[name] = AsyncExitStack()
        self._stack.push_async_callback(own.aclose)
        process = await own.enter_async_context(running([*MULTIPICK, *map(str, arguments)], log=log))
        async with asyncio.timeout(60):
            while not re.search(announced, said := log.read_text()):
                assert process.returncode is None, said
                await asyncio.sleep(0.02)


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    async with AsyncExitStack() as stack:
        yield Programs(tmp_path, stack)


async def set_ready(namespace: Namespace, role: str, address: str) -> None:
    """What a kubelet would say of the one pod of a role."""
    selector = f"multipick.dev/pool=p,multipick.dev/role={role}"

    async def pods() -> Any:
        return (await namespace.call("GET", namespace.path("pods") + f"?labelSelector={selector}"))["items"]

    [pod] = await until(pods)
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T08:00:00Z"}],
    }
    status |= {"podIP": address, "podIPs": [{"ip": address}]}
    await namespace.patch(namespace.path("pods", pod["metadata"]["name"]) + "/status", {"status": status})


async def picker_config(namespace: Namespace, address: str, engines: Sequence[int]) -> dict[str, Any]:
    """The operator's own, but for what only a cluster has: pods to watch, an address for each."""
    listed = namespace.path("configmaps") + "?labelSelector=multipick.dev/pool%3Dp"
    (made,) = (await until(lambda: namespace.call("GET", listed), lambda found: found["items"]))["items"]
    config: dict[str, Any] = yaml.safe_load(made["data"]["epp.yaml"])
    del config["kubernetes"]
    config["listen"] |= {"host": address}
    return config | {"endpoints": [{"address": f"127.0.0.1:{port}"} for port in engines]}


async def message(namespace: Namespace, kind: str) -> str:
    pool = await namespace.call("GET", namespace.pool_path())
    return next(str(one["message"]) for one in pool["status"]["conditions"] if one["type"] == kind)


async def test_sick_engines_and_a_lost_store_are_the_pools_conditions_until_they_are_well(
    namespace: Namespace, running: Running, programs: Programs, other_model: Path, tmp_path: Path
) -> None:
    address = "127." + ".".join(str(random.randrange(2, 250)) for _ in range(3))  # every picker listens on one port
    held = [held_port() for _ in range(4)]
    ports = [port for port, _ in held]

    async def engine(index: int, *flags: object) -> None:
        words = ("sim", "serve", "--served-model-name", "p", "--port", ports[index], *flags)
        await programs.start(f"engine-{index}", *words, announced="^serving")

    async def told(reason: str) -> int:
        return sum(one == reason for one, _ in await namespace.events())

    await asyncio.gather(
        engine(0, *EVENTS, "--served-model-name", "other"),
        engine(1, *EVENTS, "--tokenizer", other_model),
        engine(2, *EVENTS, "--block-size", 32),
        engine(3),
    )
    async with valkey() as store, running():
        await namespace.apply(
            model={"uri": "/simulated", "tokenizerUri": str(MODEL_DIR)},
            engine={"type": "Simulated", "blockSize": 16},
            index={"url": store.url},
        )
        file = tmp_path / "epp.yaml"
        file.write_text(yaml.safe_dump(await picker_config(namespace, address, ports)))
        await programs.start("picker", "epp", "--config", file, announced='"listening"')
        await namespace.reaches("EnginesMatch", "Unknown", "NotReported")
        await set_ready(namespace, "engine", "127.0.0.1")
        await set_ready(namespace, "picker", address)

        await namespace.reaches("EnginesMatch", "False", "ModelMismatch")
        words = await message(namespace, "EnginesMatch")
        assert f"127.0.0.1:{ports[0]}: it serves other, and not p" in words
        assert f"127.0.0.1:{ports[1]}: a chat has" in words
        assert f"127.0.0.1:{ports[2]}: it caches blocks of 32 tokens, where the pool names 16" in words
        await namespace.reaches("IndexReady", "False", "NoEvents")
        await namespace.reaches("Ready", "True", "Serving")

        await engine(0, *EVENTS)
        await namespace.reaches("EnginesMatch", "False", "TokenizerMismatch")
        await engine(1, *EVENTS)
        await namespace.reaches("EnginesMatch", "False", "BlockSizeMismatch")
        await engine(2, *EVENTS)
        await namespace.reaches("EnginesMatch", "True", "EnginesMatch")
        mismatches = await told("EngineMismatch")
        assert mismatches >= 3
        await until(
            lambda: message(namespace, "IndexReady"),
            lambda found: f"127.0.0.1:{ports[3]}: no KV events can be had: the engine has its events off" in found,
        )
        await engine(3, *EVENTS)
        await namespace.reaches("IndexReady", "True", "EventsArriving")

        degraded = await told("IndexDegraded")
        await store.kill()
        await namespace.reaches("IndexReady", "False", "RedisUnreachable")
        words = await message(namespace, "IndexReady")
        assert re.search(r"1 of 1 pickers: \w+: away", words)
        assert f" at {store.url.removeprefix('redis://')}" in words
        await namespace.reaches("Ready", "True", "Serving")
        assert await told("IndexDegraded") > degraded
        await store.start()
        await namespace.reaches("IndexReady", "True", "EventsArriving")
        await namespace.reaches("EnginesMatch", "True", "EnginesMatch")
        assert await told("EngineMismatch") == mismatches, "only changes are told"

        await namespace.reaches("GatewaysMatch", "True", "GatewaysMatch")
        gateway = ssl.create_default_context()
        with suppress(OSError):  # it is cut
            await asyncio.open_connection(address, 9002, ssl=gateway)
        await namespace.patch(namespace.pool_path(), {"metadata": {"labels": {"looked-at": "again"}}})
        await namespace.reaches("GatewaysMatch", "False", "TLSMismatch")
        assert "127.0.0.1 speaks TLS" in await message(namespace, "GatewaysMatch")
        await namespace.reaches("Ready", "True", "Serving")
    for _, keeper in held:
        keeper.close()
