"""What a platform team does to a pool that serves, all under load: no request may be lost, and nobody fights."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from cluster.client import Namespace, until
from cluster.homes import Home
from cluster.load import PATIENCE_S, Gateway, load
from cluster.pools import PICKER, POOL, engine, engines, identities, pods, serves, spec
from cluster.release import Release, release

LEADERLESS_S = 3.0
NEW_PORT = 9000


async def lease(multipick: Release) -> str:
    """Who acts; empty where nobody does."""
    path = multipick.namespace.path("leases", "multipick-operator", "coordination.k8s.io/v1")
    found = await multipick.namespace.find(path)
    return str(found["spec"]["holderIdentity"]) if found else ""


async def test_a_rollout_of_the_operator_under_constant_changes_leaves_nobody_waiting(
    cluster: Home, multipick: Release, namespace: Namespace, pool: Gateway
) -> None:
    ended, longest = asyncio.Event(), 0.0

    async def change() -> None:
        """What `kubectl apply` would, over and over."""
        count = 0
        while not ended.is_set():
            count += 1
            disruption = {"maxUnavailable": 1 + count % 2}
            await namespace.apply(POOL, **spec(cluster.accelerator, disruption=disruption))
            await asyncio.sleep(0.2)

    async def observe() -> None:
        nonlocal longest
        since: float | None = None
        while not ended.is_set():
            if await lease(multipick):
                since = None
            else:
                since = since or time.monotonic()
                longest = max(longest, time.monotonic() - since)
            await asyncio.sleep(0.05)

    old = identities(await multipick.pods("operator"))
    async with load(pool, POOL) as tally:
        tasks = [asyncio.create_task(change()), asyncio.create_task(observe())]
        try:
            await multipick.upgrade(operator={"podAnnotations": {"restarted": str(time.time())}})
            await until(
                lambda: multipick.pods("operator"),
                lambda found: found and not identities(found).keys() & old.keys(),
                PATIENCE_S,
            )
            await until(lambda: lease(multipick), bool, PATIENCE_S)
        finally:
            ended.set()
            await asyncio.gather(*tasks)
            await multipick.upgrade()
        await serves(namespace)
    assert longest < LEADERLESS_S
    assert not tally.lost, tally.lost[:5]


async def test_a_changed_port_loses_nothing(
    cluster: Home, gateway: Release, namespace: Namespace, pool: Gateway
) -> None:
    known = gateway.values["gateway"]["pool"]
    await gateway.replace("gateway", gateway={"pool": known | {"ports": [8000, NEW_PORT]}})
    await until(pool.answers, bool, PATIENCE_S)
    async with load(pool, POOL) as tally:
        old = identities(await engines(namespace))
        await namespace.apply(POOL, **spec(cluster.accelerator, engine=engine(port=NEW_PORT)))
        await serves(namespace)
        assert not identities(await engines(namespace)).keys() & old.keys()
        await tally.more(100)
        await namespace.apply(POOL, **spec(cluster.accelerator))
        await serves(namespace)
    await gateway.replace("gateway")
    await until(pool.answers, bool, PATIENCE_S)
    assert not tally.lost, tally.lost[:5]


async def test_a_picker_image_that_does_not_exist_costs_nothing(
    cluster: Home, namespace: Namespace, pool: Gateway
) -> None:
    async def pickers() -> dict[str, int]:
        return identities(await pods(namespace, f"multipick.dev/pool={POOL},{PICKER}"))

    before = await pickers()
    changed = spec(cluster.accelerator)
    changed["routing"]["picker"] |= {"image": "localhost/no-such:1", "imagePullPolicy": "IfNotPresent"}
    async with load(pool, POOL) as tally:
        await namespace.apply(POOL, **changed)
        await namespace.reaches("Progressing", "False", "PickerRolloutFailed", POOL, PATIENCE_S)
        assert await namespace.condition("Ready", POOL) == ("True", "Serving")
        await tally.more(100)
        after = await pickers()
        assert {uid: after.get(uid) for uid in before} == before
        await namespace.apply(POOL, **spec(cluster.accelerator))
        await serves(namespace)
    assert not tally.lost, tally.lost[:5]


async def test_autoscaling_switched_on_keeps_every_engine(cluster: Home, namespace: Namespace, pool: Gateway) -> None:
    before = identities(await engines(namespace))
    wanted = spec(cluster.accelerator, autoscaling={"minReplicas": 2, "maxReplicas": 4})
    del wanted["replicas"]
    async with load(pool, POOL) as tally:
        await namespace.apply(POOL, **wanted)
        await namespace.reaches("ScalingActive", "False", "FailedGetPodsMetric", POOL, PATIENCE_S)  # no adapter here
        await serves(namespace)
        await tally.more(100)
        assert identities(await engines(namespace)) == before
        await namespace.apply(POOL, **spec(cluster.accelerator))
        await serves(namespace)
    assert not tally.lost, tally.lost[:5]


@pytest.fixture
def silver(cluster: Home, multipick: Release) -> Iterator[Release]:
    """A second operator in the cluster, for pools of its own."""
    off = {"enabled": False}
    operator = cluster.values["operator"] | {"poolSelector": "tier=silver", "resyncSeconds": 10}
    values = cluster.values | {"operator": operator, "valkey": off, "crds": {"install": False}}
    with release("silver", multipick.namespace, values) as made:
        yield made


async def test_of_two_operators_each_keeps_to_its_own_pools(
    cluster: Home, multipick: Release, namespace: Namespace, pool: Gateway, silver: Release
) -> None:
    async def generations() -> list[int]:
        names = (("deployments", f"{POOL}-engine"), ("deployments", f"{POOL}-epp"))
        found = [await namespace.find(namespace.path(plural, name, "apps/v1")) for plural, name in names]
        return [one["metadata"]["generation"] for one in found]

    await namespace.patch(namespace.pool_path(POOL), {"metadata": {"labels": {"tier": "gold"}}})
    try:
        await multipick.upgrade(operator={"poolSelector": "tier=gold", "resyncSeconds": 10})
        await until(lambda: silver.pods("operator"), lambda found: found, PATIENCE_S)
        async with load(pool, POOL) as tally:
            await namespace.patch(namespace.pool_path(POOL) + "/scale", {"spec": {"replicas": 3}})
            await serves(namespace, 3)
            before = await generations()
            await tally.more(300)
            assert await generations() == before
        assert not tally.lost, tally.lost[:5]
    finally:
        await multipick.upgrade()
        await namespace.patch(namespace.pool_path(POOL), {"metadata": {"labels": {"tier": None}}})
