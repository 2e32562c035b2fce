"""A pool under load loses no request while it is scaled, rolled, robbed of a pod or given more than there is."""

from cluster.client import Namespace, until
from cluster.homes import ACCELERATORS, Home
from cluster.load import PATIENCE_S, Gateway, load
from cluster.pools import POOL, engine, engines, serves, spec


async def test_scaling_up_and_down_loses_nothing(namespace: Namespace, pool: Gateway) -> None:
    scale = namespace.pool_path(POOL) + "/scale"  # what `kubectl scale` patches
    async with load(pool, POOL) as tally:
        await namespace.patch(scale, {"spec": {"replicas": 4}})
        await serves(namespace, 4)
        await namespace.patch(scale, {"spec": {"replicas": 1}})
        await serves(namespace, 1)
    assert not tally.lost, tally.lost[:5]


async def test_a_rollout_and_the_deletion_of_a_pod_lose_nothing(
    cluster: Home, namespace: Namespace, pool: Gateway
) -> None:
    async with load(pool, POOL) as tally:
        old = {pod["metadata"]["name"] for pod in await engines(namespace)}
        await namespace.apply(POOL, **spec(cluster.accelerator, engine=engine(args=["--seed", "7"])))
        await serves(namespace)
        new = {pod["metadata"]["name"] for pod in await engines(namespace)}
        assert not old & new
        deleted = new.pop()
        await namespace.call("DELETE", namespace.path("pods", deleted))
        await until(
            lambda: engines(namespace),
            lambda found: deleted not in [pod["metadata"]["name"] for pod in found],
            PATIENCE_S,
        )
        await serves(namespace)
    assert not tally.lost, tally.lost[:5]


async def test_more_accelerators_than_there_are_is_said_and_the_rest_goes_on(
    namespace: Namespace, pool: Gateway
) -> None:
    async with load(pool, POOL) as tally:
        await namespace.patch(namespace.pool_path(POOL) + "/scale", {"spec": {"replicas": ACCELERATORS + 2}})
        await namespace.reaches("Progressing", "False", "InsufficientCapacity", POOL, PATIENCE_S)
        assert await namespace.condition("Ready", POOL) == ("True", "Serving")
        await tally.more()
    assert not tally.lost, tally.lost[:5]
