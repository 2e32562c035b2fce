"""A whole pool of simulated engines behind the chart's Envoy, under load, on a cluster with a real kubelet."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from cluster.client import Namespace, until
from cluster.load import load

PATIENCE_S = 120.0
SPEC: dict[str, Any] = {
    "model": {"uri": "/simulated", "name": "demo"},
    "engine": {"type": "Simulated", "blockSize": 16, "imagePullPolicy": "IfNotPresent"},
    "resources": {"accelerator": {"count": 1}},  # the node says that it has four
    "drain": {"propagationSeconds": 5, "timeoutSeconds": 30},
    "routing": {"picker": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}},
}


def spec(**changes: Any) -> dict[str, Any]:
    return SPEC | changes


@pytest.fixture
async def url(default: Namespace, system: Namespace) -> AsyncIterator[str]:
    """The gateway, with the pool `demo` of two engines behind it, serving; the pool is gone after the test."""
    await default.apply("demo", **spec(replicas=2))
    await serves(default, 2)
    service = await system.call("GET", system.path("services", "multipick-gateway"))
    gateway = system.path("deployments", "multipick-gateway", "apps/v1")
    await until(lambda: system.call("GET", gateway), lambda found: found["status"].get("readyReplicas"), PATIENCE_S)
    address = f"http://{service['spec']['clusterIP']}"
    await until(lambda: answers(address), bool, PATIENCE_S)  # Envoy asks the name server for the new pool by and by
    yield address
    await default.call("DELETE", default.pool_path("demo"))
    await until(default.children, lambda found: not found, PATIENCE_S)
    await until(lambda: pods(default), lambda found: not found, PATIENCE_S)


async def answers(url: str) -> bool:
    """The gateway leads to an engine."""
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get(f"{url}/v1/models") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


async def pods(namespace: Namespace, pool: str = "demo") -> Any:
    path = namespace.path("pods") + f"?labelSelector=multipick.dev/pool={pool},multipick.dev/role=engine"
    return (await namespace.call("GET", path))["items"]


async def names(namespace: Namespace) -> list[str]:
    return [pod["metadata"]["name"] for pod in await pods(namespace)]


async def serves(namespace: Namespace, replicas: int) -> None:
    """So many engines are ready, none is left of more, and the rollout is done."""

    async def settled() -> bool:
        pool = await namespace.call("GET", namespace.pool_path("demo"))
        conditions = {one["type"]: one["reason"] for one in pool.get("status", {}).get("conditions", [])}
        ready = pool.get("status", {}).get("readyReplicas")
        states = conditions.get("Ready"), conditions.get("Progressing")
        return ready == replicas and states == ("Serving", "RolloutComplete") and len(await pods(namespace)) == replicas

    await until(settled, bool, PATIENCE_S)


async def test_a_chat_is_answered_through_envoy_and_nothing_is_lost_while_the_pool_changes(
    default: Namespace, url: str
) -> None:
    async with load(url, "demo") as tally:
        await until(lambda: asyncio.sleep(0.1, tally.served), lambda count: count > 20, PATIENCE_S)
        await default.patch(default.pool_path("demo") + "/scale", {"spec": {"replicas": 4}})
        await serves(default, 4)
        await default.patch(default.pool_path("demo") + "/scale", {"spec": {"replicas": 1}})
        await serves(default, 1)
        assert not tally.lost, tally.lost[:5]


async def test_a_rollout_and_the_deletion_of_a_pod_lose_nothing(default: Namespace, url: str) -> None:
    async with load(url, "demo") as tally:
        await until(lambda: asyncio.sleep(0.1, tally.served), lambda count: count > 20, PATIENCE_S)
        changed = SPEC["engine"] | {"args": ["--seed", "7"]}
        await default.apply("demo", **spec(replicas=2, engine=changed))
        await serves(default, 2)
        first = (await pods(default))[0]["metadata"]["name"]
        await default.call("DELETE", default.path("pods", first))
        await until(
            lambda: pods(default), lambda found: first not in [p["metadata"]["name"] for p in found], PATIENCE_S
        )
        await serves(default, 2)
        assert not tally.lost, tally.lost[:5]


async def test_more_gpus_than_there_are_is_said_and_the_rest_goes_on(default: Namespace, url: str) -> None:
    async with load(url, "demo") as tally:
        await default.patch(default.pool_path("demo") + "/scale", {"spec": {"replicas": 6}})
        await default.reaches("Progressing", "False", "InsufficientCapacity", "demo", PATIENCE_S)
        assert await default.condition("Ready", "demo") == ("True", "Serving")
        served = tally.served
        await until(lambda: asyncio.sleep(0.1, tally.served), lambda count: count > served + 20, PATIENCE_S)
        assert not tally.lost, tally.lost[:5]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": SPEC["engine"] | {"image": "localhost/nothing:1"}}, "ImagePullFailed"),
        ({"engine": SPEC["engine"] | {"args": ["--no-such-flag"]}}, "CrashLoop"),
        (
            {
                "engine": SPEC["engine"]
                | {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}]}
            },
            "ConfigurationError",
        ),
    ],
    ids=["image", "crash", "secret"],
)
async def test_a_sick_pool_says_why(default: Namespace, changes: dict[str, Any], reason: str) -> None:
    await default.apply("sick", **spec(**changes))
    try:
        await default.reaches("Available", "False", reason, "sick", PATIENCE_S)
    finally:
        await default.call("DELETE", default.pool_path("sick"))
        await until(lambda: pods(default, "sick"), lambda found: not found, PATIENCE_S)
