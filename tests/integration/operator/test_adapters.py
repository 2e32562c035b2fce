"""Adapters come and go while engines run: simulated engines, at the addresses of pods that the API server knows."""

import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cluster.client import Namespace, until
from multipick_sim.local.processes import running as process

Running = Callable[..., Any]
MULTIPICK = (sys.executable, "-c", "import sys; from multipick_cli.main import main; sys.exit(main())")
PORT = 8000  # free on an address of one's own
SPEC: dict[str, Any] = {"engine": {"type": "Simulated"}, "model": {"uri": "/simulated", "name": "base"}}
LORA: dict[str, Any] = {"lora": {"allowRuntimeUpdates": True}}
ONE, TWO = {"name": "one", "uri": "hf://org/one"}, {"name": "two", "uri": "/adapters/two"}


class Engines:
    """Processes, each at an address of its own."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.running: dict[str, AsyncExitStack] = {}

    def address(self) -> str:
        return "127." + ".".join(str(random.randrange(2, 250)) for _ in range(3))

    async def start(self, address: str) -> None:
        """In the place of one that ran there."""
        if earlier := self.running.pop(address, None):
            await earlier.aclose()
        own = self.running[address] = AsyncExitStack()
        self._stack.push_async_callback(own.aclose)
        command = [*MULTIPICK, "sim", "serve", "--host", address, "--served-model-name", "base"]
        await own.enter_async_context(process(command, log=self._folder / f"{address}.log"))
        await until(lambda: self.has(address), lambda found: found is not None)

    async def has(self, address: str) -> set[str] | None:
        """Adapters of an engine; None where it does not answer."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://{address}:{PORT}/v1/models") as answer:
                return {one["id"] for one in (await answer.json())["data"] if one["parent"]}
        except aiohttp.ClientError:
            return None

    async def settle(self, address: str, *names: str) -> None:
        """It comes to have these."""
        await until(lambda: self.has(address), lambda found: found == set(names))


@pytest.fixture
async def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engines]:
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    async with AsyncExitStack() as stack:
        yield Engines(tmp_path, stack)


async def ready(namespace: Namespace, addresses: list[str], restarts: int = 0) -> list[str]:
    """What a kubelet would say of the pods of the engines; returns their names, in the order of the addresses."""
    selector = "multipick.dev/pool=p,multipick.dev/role=engine"

    async def pods() -> Any:
        return (await namespace.call("GET", namespace.path("pods") + f"?labelSelector={selector}"))["items"]

    found = await until(pods, lambda one: len(one) == len(addresses))
    known = {pod["status"].get("podIP"): pod for pod in found}
    fresh = [pod for pod in found if pod["status"].get("podIP") not in addresses]
    named = []
    for address in addresses:
        pod = known.get(address) or fresh.pop()
        named.append(pod["metadata"]["name"])
        container = {"name": "engine", "image": "i", "imageID": "", "ready": True, "restartCount": restarts}
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T08:00:00Z"}],
        }
        status |= {"podIP": address, "podIPs": [{"ip": address}], "containerStatuses": [container]}
        await namespace.patch(namespace.path("pods", named[-1]) + "/status", {"status": status})
    return named


async def adapters(namespace: Namespace) -> dict[str, list[str]]:
    pool = await namespace.call("GET", namespace.pool_path())
    return {one["name"]: one["pods"] for one in pool["status"].get("adapters", [])}


async def test_adapters_change_without_a_restart_and_new_pods_get_them(
    namespace: Namespace, running: Running, engines: Engines
) -> None:
    first, second = engines.address(), engines.address()
    await engines.start(first)
    path = namespace.path("deployments", "p-engine", "apps/v1")
    async with running():
        await namespace.apply(**SPEC, **LORA)
        [a] = await ready(namespace, [first])
        await until(
            lambda: namespace.find(namespace.pool_path()),
            lambda found: found.get("status", {}).get("readyReplicas") == 1,
        )
        template = (await namespace.call("GET", path))["spec"]["template"]
        assert await namespace.condition("AdaptersLoaded") == ("", "")

        await namespace.apply(**SPEC, **LORA, adapters=[ONE, TWO])
        await engines.settle(first, "one", "two")
        await namespace.reaches("AdaptersLoaded", "True", "AdaptersLoaded")
        assert await adapters(namespace) == {"one": [a], "two": [a]}

        await engines.start(second)
        await namespace.apply(**SPEC, **LORA, adapters=[ONE, TWO], replicas=2)
        _, b = await ready(namespace, [first, second])
        await engines.settle(second, "one", "two")
        await until(lambda: adapters(namespace), lambda found: found == {"one": sorted([a, b]), "two": sorted([a, b])})

        await namespace.apply(**SPEC, **LORA, adapters=[TWO], replicas=2)
        await engines.settle(first, "two")
        await engines.settle(second, "two")
        await until(lambda: adapters(namespace), lambda found: found == {"two": sorted([a, b])})

        await engines.start(first)  # its container was started anew, and has none
        await ready(namespace, [first, second], restarts=1)
        await engines.settle(first, "two")
        await namespace.apply(**SPEC, **LORA, replicas=2)
        await engines.settle(first)
        await engines.settle(second)
        await until(lambda: adapters(namespace), lambda found: found == {})
        assert await namespace.condition("AdaptersLoaded") == ("", "")
        assert (await namespace.call("GET", path))["spec"]["template"] == template


async def test_an_adapter_that_an_engine_refuses_is_told_in_its_words_and_costs_no_other(
    namespace: Namespace, running: Running, engines: Engines
) -> None:
    address = engines.address()
    await engines.start(address)
    async with running():
        await namespace.apply(**SPEC, **LORA, adapters=[{"name": "base", "uri": "/adapters/base"}, ONE])
        [pod] = await ready(namespace, [address])
        await engines.settle(address, "one")
        await namespace.reaches("AdaptersLoaded", "False", "LoadFailed")
        told = await until(namespace.events, lambda found: any(reason == "AdapterFailed" for reason, _ in found))
        words = [words for reason, words in told if reason == "AdapterFailed"]
        assert len(words) == 1
        assert f"base: {pod}: status 400: The lora adapter 'base' conflicts with a served base model." in words[0]
        pool = await namespace.call("GET", namespace.pool_path())
        assert {one["name"]: one["loaded"] for one in pool["status"]["adapters"]} == {"base": 0, "one": 1}
        await namespace.apply(**SPEC, **LORA, adapters=[ONE])
        await namespace.reaches("AdaptersLoaded", "True", "AdaptersLoaded")
