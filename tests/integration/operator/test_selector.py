"""Two releases in one cluster, told apart by their `poolSelector`: neither touches the other's pools."""

import asyncio
from collections.abc import Callable
from typing import Any

from cluster.client import Namespace, until
from multipick_operator.app import Operator

Running = Callable[..., Any]
GOLD = {"identity": "gold", "lease_name": "gold", "pool_selector": "tier=gold", "resync_s": 0.2}
SILVER = {"identity": "silver", "lease_name": "silver", "pool_selector": "tier=silver", "resync_s": 0.2}


async def label(namespace: Namespace, tier: str) -> None:
    await namespace.patch(namespace.pool_path(), {"metadata": {"labels": {"tier": tier}}})


async def picker(namespace: Namespace) -> tuple[int, str]:
    """Generation and image of the picker's Deployment."""
    found = await until(lambda: namespace.find(namespace.path("deployments", "p-epp", "apps/v1")))
    return found["metadata"]["generation"], found["spec"]["template"]["spec"]["containers"][0]["image"]


async def rounds(operator: Operator, count: int) -> None:
    """So many more resyncs."""
    before = operator.resyncs

    async def more() -> int:
        return operator.resyncs

    await until(more, lambda found: found >= before + count)


async def test_a_pool_is_one_releases_alone_and_one_that_leaves_it_is_let_go(
    namespace: Namespace, running: Running
) -> None:
    await namespace.apply()
    await label(namespace, "gold")
    service = namespace.path("services", "p-epp")
    silver_image = {"picker_image": "example.com/silver:1"}
    async with running(**GOLD) as gold, running(**SILVER, defaults_changes=silver_image) as silver:
        assert (await picker(namespace))[1] == "example.com/multipick:1"
        await namespace.patch(service, {"metadata": {"labels": {"multipick.dev/role": "x"}}})
        await until(
            lambda: namespace.find(service),
            lambda found: found["metadata"]["labels"]["multipick.dev/role"] == "picker",
        )
        before = await picker(namespace)
        await asyncio.gather(rounds(gold, 5), rounds(silver, 5))
        assert await picker(namespace) == before

        await label(namespace, "silver")
        await until(lambda: picker(namespace), lambda found: found[1] == "example.com/silver:1")
        settled = await picker(namespace)
        await asyncio.gather(rounds(gold, 5), rounds(silver, 5))
        assert await picker(namespace) == settled
        assert settled[0] == before[0] + 1

        await label(namespace, "nobody")
        await namespace.apply(replicas=3)
        await namespace.patch(service, {"metadata": {"labels": {"multipick.dev/role": "x"}}})
        await asyncio.gather(rounds(gold, 5), rounds(silver, 5))
        assert await picker(namespace) == settled
        engine = await namespace.find(namespace.path("deployments", "p-engine", "apps/v1"))
        assert engine["spec"]["replicas"] == 1
        assert (await namespace.find(service))["metadata"]["labels"]["multipick.dev/role"] == "x"
