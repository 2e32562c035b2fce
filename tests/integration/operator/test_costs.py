"""What a pool costs the API server: nothing at rest, and little while it is sick."""

import asyncio
from collections.abc import Callable
from typing import Any

from cluster.client import Namespace, until
from multipick_operator.app import Operator

Running = Callable[..., Any]


def reconciles(operator: Operator) -> float:
    labels = {"result": "ok"}
    return operator.metrics.registry.get_sample_value("multipick_operator_reconcile_total", labels) or 0


async def test_reconciles_of_a_sick_pool_ask_the_api_server_nothing(namespace: Namespace, running: Running) -> None:
    asked: list[str] = []
    state = {"state_url": "redis://r:6379", "state_password": "pw"}  # so that the pool has a Secret
    async with running(asked=asked, defaults_changes=state) as operator:
        await namespace.apply(replicas=2)
        await namespace.reaches("Available", "False", "NoReadyReplicas")

        async def quiet() -> list[str]:
            """What three reconciles in a row ask for, but lists of pools, the lease and the watches' own."""
            asked.clear()
            done = reconciles(operator)
            key = (namespace.name, "p")

            async def more() -> float:
                operator.look_at(key)
                return reconciles(operator)

            await until(more, lambda found: found >= done + 3)
            own = ("/leases/", "/inferencepools?", "watch=true", "?limit=", "&limit=")
            return [one for one in asked if not any(part in one for part in own)]

        await until(quiet, lambda found: not found)


async def test_what_is_missing_is_asked_for_at_a_measured_pace(namespace: Namespace, running: Running) -> None:
    asked: list[str] = []
    async with running(asked=asked, resync_s=1000.0) as operator:
        await namespace.apply(model={"uri": "pvc://weights/m", "hfTokenSecretRef": {"name": "hf"}})
        await namespace.reaches("ResolvedRefs", "False", "SecretNotFound")
        done = reconciles(operator)

        async def more() -> float:
            operator.look_at((namespace.name, "p"))
            await asyncio.sleep(0)
            return reconciles(operator)

        await until(more, lambda found: found >= done + 10)
    for part in ("/secrets/hf", "/persistentvolumeclaims/weights"):
        assert len([one for one in asked if part in one]) == 1
